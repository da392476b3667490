"""The table of a numbered root, `checkpoints.metadata`: which file has which id, and its parent.

The old manager wrote absolute paths, and forgot after a reopening whether an id is a number or a text;
so a file is looked for by its name beside the table, and nowhere else, and ids are made numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.small_text import Pairs, load_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NO_ID", "TABLE_FILE", "NumberedTable", "checkpoint_id", "read_table"]

TABLE_FILE: Final = "checkpoints.metadata"
NO_ID: Final = -1
_ID: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_FILE: Final = re.compile(r"ckpt_(0|[1-9][0-9]{0,17})_([0-9A-Za-z-]+)")
_SEPARATOR: Final = re.compile(r"[/\\]")


@dataclass(slots=True)
class NumberedTable:
    """The content of `checkpoints.metadata`.

    Attributes:
        next_id: the highest id that was given; -1 before the first.
        parent_id: the parent that the next checkpoint gets.
        names: id -> name of its file.
        parents: id -> id of the parent, -1 for none.
        meta: id -> what was attached to it.
        strangers: id -> the parent as it is written, where that is no id of this table.
        problems: (name, reason) of entries that cannot be right.
    """

    next_id: int = NO_ID
    parent_id: int = NO_ID
    names: dict[int, str] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    meta: dict[int, Any] = field(default_factory=dict)
    strangers: dict[int, Any] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def to_bytes(self, folder: Path) -> bytes:
        """Return the file, as the old manager reads it: with absolute paths."""
        document = {
            "next_id": self.next_id,
            "parent_id": self.parent_id,
            "id_2_path": {str(i): str(folder / name) for i, name in self.names.items()},
            "id_2_prnt": {str(i): self.strangers.get(i, p) for i, p in self.parents.items()},
            "id_2_meta": {str(i): meta for i, meta in self.meta.items()},
        }
        return json.dumps(document).encode("ascii")

    def order(self) -> list[int]:
        """Return all ids, parents before children; a cycle is broken, and told, where it is met."""
        done: dict[int, None] = {}
        for start in sorted(self.names):
            path: dict[int, None] = {}
            current = start
            while current in self.names and current not in done:
                if current in path:
                    loop = [*path][[*path].index(current) :]
                    told = " -> ".join(str(i) for i in [*loop, current][:8])
                    self.problems.append((TABLE_FILE, f"the parents go in a circle: {told}"))
                    for each in loop:
                        self.strangers[each] = f"{self.parents.get(each, NO_ID)} (in a circle)"
                        self.parents[each] = NO_ID
                    break
                path[current] = None
                current = self.parents.get(current, NO_ID)
            done.update(dict.fromkeys(i for i in reversed(path) if i not in done))
        return list(done)


def checkpoint_id(name: str) -> tuple[int, str] | None:
    """Return id and UUID of a file name `ckpt_{id}_{uuid}`; None for another."""
    found = _FILE.fullmatch(name)
    return None if found is None else (int(found[1]), found[2])


def read_table(folder: Path) -> NumberedTable:
    """Read the table in a folder; entries that cannot be right are in `problems`.

    Raises: FormatError for a file that is no such table, OSError.
    """
    document = load_json(folder / TABLE_FILE)
    if not isinstance(document, Pairs):
        raise FormatError(f"{TABLE_FILE} is not a JSON object")
    table = NumberedTable()
    for number, path in _by_id(document, "id_2_path", table.problems).items():
        name = _SEPARATOR.split(path)[-1] if isinstance(path, str) else ""
        if name in ("", ".", "..") or "\0" in name:
            table.problems.append((f"id {number}", f"{path!r:.80} names no file"))
        else:
            table.names[number] = name
    for number, parent in _by_id(document, "id_2_prnt", table.problems).items():
        _add_parent(table, number, parent)
    table.meta = _by_id(document, "id_2_meta", table.problems)
    highest = max(table.names, default=NO_ID)
    table.next_id = max(_id_of(document.get("next_id"), NO_ID), highest)
    table.parent_id = _known_id(table, document.get("parent_id"))
    return table


def _by_id(document: Pairs, key: str, problems: list[tuple[str, str]]) -> dict[int, Any]:
    entries = document.get(key, Pairs())
    if not isinstance(entries, Pairs):
        raise FormatError(f"{key} in {TABLE_FILE} is not a JSON object")
    problems += [
        (f"id {twice!s:.40}", f"stands twice in {key}; the last one counts")
        for twice in entries.twice
    ]
    found = {}
    for text, value in entries.items():
        if _ID.fullmatch(text):
            found[int(text)] = value
        else:
            problems.append((TABLE_FILE, f"{text!r:.60} in {key} is no id"))
    return found


def _add_parent(table: NumberedTable, number: int, parent: Any) -> None:
    found = _known_id(table, parent)
    table.parents[number] = found
    if found != NO_ID or parent in (NO_ID, str(NO_ID)):
        return
    table.strangers[number] = parent
    if _id_of(parent, NO_ID) != NO_ID:
        table.problems.append((f"id {number}", f"its parent {parent} is not in {TABLE_FILE}"))


def _known_id(table: NumberedTable, value: Any) -> int:
    """Return the id in the table that a number, its text, or the path of a file stands for."""
    found = _id_of(value, NO_ID)
    if found == NO_ID and isinstance(value, str):
        name = _SEPARATOR.split(value)[-1]
        found = next((i for i, known in table.names.items() if known == name), NO_ID)
    return found if found in table.names else NO_ID


def _id_of(value: Any, otherwise: int) -> int:
    if type(value) is int and value >= 0:
        return value
    return int(value) if isinstance(value, str) and _ID.fullmatch(value) else otherwise
