"""What changed in the user's code of a model: sources as a diff, constants, defaults, closures."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CodeChange", "CodeSide", "code_name", "compare_code", "labels_in"]

_KINDS: Final = ("constants", "defaults", "closure", "attributes")
_REFERENCES: Final = ("$function", "$class", "$object")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSide:
    """The code of one model.

    Attributes:
        digests: label -> digest.
        sources: label -> text; nothing where there is only byte-code.
        values: label -> kind -> name -> plain value.
    """

    digests: Mapping[str, str]
    sources: Mapping[str, str]
    values: Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(slots=True, kw_only=True)
class CodeChange:
    """One label whose code changed.

    Attributes:
        old, new: the label before and after; None where there was none.
        diff: lines of a unified diff of the source; empty if the text did not change.
        values: (kind, name, old, new) of the values that it uses and that changed.
    """

    old: str | None
    new: str | None
    diff: tuple[str, ...] = ()
    values: tuple[tuple[str, str, Any, Any], ...] = ()

    @property
    def label(self) -> str:
        """The label, the new one if it has one."""
        return str(self.old if self.new is None else self.new)


def compare_code(
    old: CodeSide, new: CodeSide, *, classes: Mapping[str, str], names: Mapping[str, str]
) -> list[CodeChange]:
    """Return every label whose digest changed, came or went, by label.

    Code that only follows the renaming of a module is left out: the renaming is told.

    Args:
        classes: old class name -> new class name.
        names: old module name -> new module name.
    """
    pairs = _pairs(old, new, classes)
    gone = [label for label in old.digests if label not in pairs]
    taken = set(pairs.values())
    found = [CodeChange(old=label, new=None) for label in gone]
    found += [CodeChange(old=None, new=label) for label in new.digests if label not in taken]
    for one, other in pairs.items():
        if old.digests[one] == new.digests[other]:
            continue
        texts = old.sources.get(one, ""), new.sources.get(other, "")
        change = CodeChange(
            old=one,
            new=other,
            diff=_source_diff(*texts, other),
            values=tuple(_value_changes(old.values.get(one, {}), new.values.get(other, {}))),
        )
        if change.values or not change.diff or not _follows(*texts, names):
            found.append(change)
    return sorted(found, key=lambda change: change.label)


def _pairs(old: CodeSide, new: CodeSide, renamed: Mapping[str, str]) -> dict[str, str]:
    pairs = {}
    for label in old.digests:
        owner, dot, name = label.partition(".")
        now = f"{renamed[owner]}{dot}{name}" if owner in renamed else label
        if now in new.digests:
            pairs[label] = now
    return pairs


def _source_diff(old: str, new: str, label: str) -> tuple[str, ...]:
    if _meaning(old) == _meaning(new):
        return ()
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"{label} (old)", f"{label} (new)", lineterm=""
    )
    return tuple(lines)


def _follows(old: str, new: str, names: Mapping[str, str]) -> bool:
    """Say whether the new text is the old one with modules called by their new names."""
    for before, after in names.items():
        old = re.sub(rf"(?<!\w){re.escape(before)}(?!\w)", lambda _, to=after: to, old)  # type: ignore[misc]
    return _meaning(old) == _meaning(new)


def _meaning(source: str) -> str:
    """Return the text without comments and layout, so that only edits of code count."""
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a lambda out of its line
        return source


def _value_changes(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, Any, Any]]:
    for kind in _KINDS:
        before, after = old.get(kind, {}), new.get(kind, {})
        for name in sorted(before.keys() & after.keys()):
            if repr(before[name]) != repr(after[name]):
                yield kind, name, before[name], after[name]


def code_name(label: str) -> str:
    """Return `forward of Net`, `function helper`, `class Router`."""
    if label.startswith("class "):
        return label
    owner, _, name = label.rpartition(".")
    return f"{name} of {owner}" if owner else f"function {name}"


def labels_in(value: Any) -> set[str]:
    """Return the labels of code that a plain value refers to."""
    found: set[str] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            found.update(str(item[key]) for key in _REFERENCES if isinstance(item.get(key), str))
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return found
