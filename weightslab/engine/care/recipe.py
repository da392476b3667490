"""A recipe: the commands, files and seeds by which an experiment can be made again, as text and as files."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import AlreadyExistsError
from weightslab.engine.storage.local import LocalStore

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.repository.provenance import Provenance

__all__ = ["Recipe"]

_CONFIG: Final = "config.yaml"
_SAMPLES: Final = "samples.jsonl"
_DIFF: Final = "code.diff"
_PACKAGES: Final = "requirements.txt"
_CHUNK: Final = 65_536  # UIDs in memory as text
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][\w.-]*\Z")
_VERSION: Final = re.compile(r"[A-Za-z0-9][\w.+!]*\Z")
_OWN: Final = "weightslab"
_SEED_VARIABLES: Final = ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "PL_GLOBAL_SEED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to make an experiment, or a checkpoint, again.

    Attributes:
        root: path of the root.
        exp_hash: the experiment.
        step, revision: the checkpoint; None for the experiment.
        session: what is known of the session that made it; None if nothing was recorded.
        start: the checkpoint of another experiment to start from, as a reference; None for none.
        config: the config file as it is stored; None without one.
        config_file: its name in the root.
        samples: the active samples; None without them.
        missing: what is missing, in words; empty if nothing is.
    """

    root: str
    exp_hash: str
    step: int | None = None
    revision: int | None = None
    session: Provenance | None = None
    start: str | None = None
    config: bytes | None = field(default=None, repr=False)
    config_file: str | None = None
    samples: SampleSet | None = field(default=None, repr=False)
    missing: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """`3f2a9c1b00d14e77@100`, or the hash alone for an experiment."""
        if self.step is None:
            return self.exp_hash
        return f"{self.exp_hash}@{self.step}{'' if self.revision in (None, 1) else f'.r{self.revision}'}"

    @property
    def files(self) -> dict[str, str]:
        """File name -> what it holds, of what `write` writes beside this text."""
        code = self.session and self.session.code
        found = {
            _CONFIG: self.config is not None and f"the config, {self.config_file}",
            _SAMPLES: self.samples is not None
            and f"{len(self.samples or ())} UIDs, one a line, as JSON",
            _DIFF: bool(code and code.diff) and "what differed from the commit",
            _PACKAGES: bool(self._packages()) and "versions of the packages",
        }
        return {name: text for name, text in found.items() if text}

    @property
    def commands(self) -> list[str]:
        """The lines to type; nothing in them is run here."""
        lines = []
        if self.files:
            lines.append(_python_line(self.root, self.reference))
        lines += self._code_lines()
        if _PACKAGES in self.files:
            lines.append(f'pip install -r "$recipe/{_PACKAGES}"')
        if self.session is not None and self.session.command:
            lines.append(self._run_line())
        return lines

    @property
    def seeds(self) -> dict[str, Any]:
        """What is known of seeds and determinism."""
        return {} if self.session is None else dict(self.session.seeds)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; of the sample list only how long it is."""
        return {
            "reference": self.reference,
            "exp_hash": self.exp_hash,
            "step": self.step,
            "revision": self.revision,
            "commands": self.commands,
            "files": self.files,
            "start_from": self.start,
            "num_samples": None if self.samples is None else len(self.samples),
            "seeds": self.seeds,
            "provenance": None if self.session is None else self.session.to_dict(),
            "missing": list(self.missing),
        }

    def __str__(self) -> str:
        """Return it for people: commands, files, seeds, and what is missing."""
        return "\n".join(_shown(line) for line in self._lines())

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write the files of the recipe, with this text and `to_dict` beside them, into a new folder.

        Args:
            folder: made if absent; it has to be empty.
        Returns: its absolute path.
        Raises: AlreadyExistsError if something is in it; StorageError.
        Durability: on disk on return.
        """
        target = Path(folder).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise AlreadyExistsError(
                f"{target} is not empty", hint="nothing is replaced: name a new folder"
            )
        store = LocalStore(target)
        code = self.session and self.session.code
        parts = {
            _CONFIG: lambda: [self.config or b""],
            _SAMPLES: lambda: list(_lines_of(self.samples)),
            _DIFF: lambda: [(code.diff if code else "").encode()],
            _PACKAGES: lambda: ["".join(f"{line}\n" for line in self._packages()).encode()],
        }
        for name in self.files:
            store.put(name, parts[name](), if_absent=True)
        store.put("README.txt", [f"{self}\n".encode()], if_absent=True)
        told = json.dumps(self.to_dict(), indent=1, sort_keys=True)
        store.put("recipe.json", [f"{told}\n".encode("ascii")], if_absent=True)
        store.sync("")
        return target

    # ------------------------------------------------------------ lines
    def _lines(self) -> Iterator[str]:
        what = (
            "experiment" if self.step is None else f"checkpoint at step {self.step} of experiment"
        )
        yield f"# {what} {self.exp_hash}"
        if self.session is not None:
            yield f"# session of {self.session.recorded_at:%Y-%m-%d %H:%M:%S} UTC, {_host(self.session)}"
        yield from self.commands
        if self.start is not None:
            yield f"# start from {self.start}: load it before the first step; root.history(...) has its own way"
        for name, text in self.files.items():
            yield f"# {name}: {text}"
        seeds = ", ".join(f"{key} {value}" for key, value in sorted(self.seeds.items()))
        if seeds:
            yield f"# seeds: {seeds}"
        yield f"# missing: {'nothing' if not self.missing else ''}".rstrip()
        for text in self.missing:
            yield f"#   - {text}"

    def _code_lines(self) -> list[str]:
        code = self.session and self.session.code
        if not code or code.commit is None:
            return []
        source = shell_word(code.remote) if code.remote else "PATH_OF_YOUR_COPY"
        lines = [f"git clone -- {source} code && cd code", f"git checkout --detach {code.commit}"]
        if code.diff:
            lines.append(f'git apply "$recipe/{_DIFF}"')
        if code.folder not in ("", "."):
            lines.append(f"cd -- {shell_word(code.folder)}")
        return lines

    def _run_line(self) -> str:
        assert self.session is not None, "asked for by one that has a session"
        seeds = {k.upper(): str(v) for k, v in self.seeds.items() if k.upper() in _SEED_VARIABLES}
        words = [f"{name}={shell_word(value)}" for name, value in sorted(seeds.items())]
        return " ".join([*words, *(shell_word(word) for word in self.session.command)])

    def _packages(self) -> list[str]:
        if self.session is None:
            return []
        found = self.session.packages.items()
        good = (n for n in found if _PACKAGE.match(n[0]) and _VERSION.match(n[1]) and n[0] != _OWN)
        return [f"{name}=={version}" for name, version in sorted(good)]


def _python_line(root: str, reference: str) -> str:
    """Return the line that writes the files, and remembers where."""
    call = f"CheckpointRoot({root!r}, read_only=True).reproduce({reference!r}).write('recipe')"
    code = f"from weightslab.engine.root import CheckpointRoot; {call}"
    return f"python -c {shell_word(code)} && recipe=$PWD/recipe"


def _host(session: Provenance) -> str:
    host, versions = session.host, session.versions
    parts = [f"Python {versions['python']}"] if "python" in versions else []
    parts += [f"CUDA {versions['cuda']}"] if "cuda" in versions else []
    parts += [f"{host['system']} {host.get('machine', '')}"] if "system" in host else []
    parts += [f"{host['num_cpus']} CPUs"] if host.get("num_cpus") else []
    gpus = host.get("gpus")
    parts += [", ".join(map(str, gpus))] if isinstance(gpus, list) and gpus else []
    return ", ".join(parts) or "host unknown"


def shell_word(text: str) -> str:
    """Return `text` as one word of a POSIX shell, without characters that a screen would obey."""
    if text.isprintable():
        return shlex.quote(text)
    shown = "".join(c if c.isprintable() and c not in "'\\" else _escaped(c) for c in text)
    return f"$'{shown}'"


def _escaped(char: str) -> str:
    if char in "'\\":
        return f"\\{char}"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _shown(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _lines_of(samples: SampleSet | None) -> Iterator[bytes]:
    lines: list[str] = []
    for uid in samples or ():
        lines.append(json.dumps(uid))
        if len(lines) == _CHUNK:
            yield ("\n".join(lines) + "\n").encode("ascii")
            lines = []
    if lines:
        yield ("\n".join(lines) + "\n").encode("ascii")
