"""What the documents point to is there."""

from __future__ import annotations

import importlib
import re

import pytest
from support.documents import GUIDE, README, REPOSITORY

# names of record schemas, which look like modules
SCHEMAS = tuple(
    f"weightslab.{name}"
    for name in (
        "cli.",
        "experiment",
        "architecture",
        "samples",
        "file",
        "checkpoint",
        "quarantine",
        "trash",
        "note",
        "provenance",
    )
)
DOCUMENTS = [README, GUIDE, *sorted((REPOSITORY / "docs").rglob("*.md"))]
# indented lines, fenced blocks and code spans: brackets in code are no links
_CODE = re.compile(r"^```[\s\S]*?^```$|^    .*$|`[^`\n]*`", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# a path inside the repository, in a code span; names in a root (`logs/events.jsonl`) have other folders
_PATH = re.compile(
    r"`((?:weightslab|docs|tests|benchmarks|changes)/[\w./-]*|[\w-]+\.(?:toml|txt))`"
)


def _anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    return {_anchor(line.lstrip("#").strip()) for line in lines if line.startswith("#")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path):
    broken = []
    for target in _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(path):
    named = set(_PATH.findall(path.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_that_is_named_can_be_imported(path):
    text = re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`\n]*\.(md|py)`", "", path.read_text(encoding="utf-8"))
    for name in set(re.findall(r"\bweightslab(?:\.[a-z_]\w*)+\b", text)):
        if not name.startswith(SCHEMAS):
            importlib.import_module(name)


def test_code_is_not_taken_for_links_and_nothing_else_is_lost():
    text = "[a](one)\n```\n[b](two)\n```\n    [c](three)\n`[d](four)` [e](five)\n"

    assert _LINK.findall(_CODE.sub("", text)) == ["one", "five"]


def test_links_with_a_wrong_anchor_would_be_found():
    assert _anchor("6. API reference") == "6-api-reference"
    assert "no-such-heading" not in _anchors(GUIDE)
