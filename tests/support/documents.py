"""Markdown documents as programs.

The rule: all ```python blocks of a document are one program, in order, in one namespace. They run
in a process of their own, in an empty folder. Lines of a block that begin with `#>`, or a ```text
block that follows it directly, are what the block prints; a block without either may print anything. Experiment hashes, digests, times
and numbers with three or more decimals are masked; a hash that is shown twice has to be the same
one both times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
GUIDE = REPOSITORY / "weightslab" / "CHECKPOINT_V2_GUIDE.md"
OUTPUT = "#>"
MARK = "\x1e"  # separates the outputs of two blocks; nothing prints it
_FENCE = re.compile(r"^```(\w*)\s*$")
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
_MASKS = (
    (re.compile(r"\b\d{8}T\d{12}Z"), "TIME"),
    (re.compile(r"(sha256:|xxh3-128:)[0-9a-f]{12,64}"), r"\1DIGEST"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"), "TIME"),
    (re.compile(r"\d+\.\d{3,}"), "NUMBER"),
    (re.compile(r"\b\d+\.\d s after"), "SOME s after"),
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the line of its opening fence (from 0), its language, and what is in it."""

    line: int
    language: str
    text: str


def fenced_blocks(document):
    """All fenced blocks of a Markdown text, in order."""
    found, start, language = [], None, ""
    lines = document.split("\n")
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, language = number, fence.group(1)
        else:
            found.append(Block(start, language, "\n".join(lines[start + 1 : number])))
            start = None
    assert start is None, f"the block that opens in line {start + 1} is never closed"
    return found


def expected_outputs(document):
    """Line of a python block -> what the document says it prints; blocks that say nothing are absent."""
    lines, blocks = document.split("\n"), fenced_blocks(document)
    outputs = {}
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.language != "python":
            continue
        said = [line for line in block.text.split("\n") if line.startswith(OUTPUT)]
        end = block.line + block.text.count("\n") + 2
        if said:
            outputs[block.line] = "\n".join(line[len(OUTPUT) + 1 :] for line in said)
        elif (
            after and after.language == "text" and not "".join(lines[end + 1 : after.line]).strip()
        ):
            outputs[block.line] = after.text
    return outputs


def as_program(document):
    """The python blocks as one program; every line keeps its number in the document."""
    lines = [""] * (document.count("\n") + 1)
    for block in fenced_blocks(document):
        if block.language == "python":
            lines[block.line] = f"print({MARK!r} + '{block.line}', flush=True)"
            for offset, line in enumerate(block.text.split("\n"), start=1):
                lines[block.line + offset] = line
    return "\n".join(lines)


def run_program(document, folder, *, name):
    """Run a document in `folder`; returns line of each python block -> what it printed."""
    program = folder / f"{name}.py"
    program.write_text(as_program(document), encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    finished = subprocess.run(
        [sys.executable, str(program)],
        cwd=work,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, f"line numbers are those of the document\n{finished.stderr}"
    printed = {}
    for part in finished.stdout.split(MARK)[1:]:
        line, _, text = part.partition("\n")
        printed[int(line)] = text.rstrip("\n")
    return printed


class Masking:
    """Replaces what differs from run to run; hashes get numbers in the order they appear in."""

    def __init__(self):
        self._numbers = {}

    def mask(self, text):
        for pattern, word in _MASKS:
            text = pattern.sub(word, text)
        text = _HASH.sub(
            lambda m: f"#{self._numbers.setdefault(m.group(), len(self._numbers))}", text
        )
        return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
