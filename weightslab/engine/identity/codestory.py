"""Telling changed code to people: each edit once, with all that follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.codediff import CodeChange, CodeSide, code_name, labels_in
from weightslab.engine.identity.facts import Fact, places_word
from weightslab.engine.identity.treetext import value_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["CodeStory"]

_WORDS: Final = {
    "constants": "{name}",
    "defaults": "default of {name} in {owner}",
    "closure": "closure variable {name} of {owner}",
    "attributes": "{name} of {owner}",
}
_MAX_USERS: Final = 2


@dataclass(slots=True, kw_only=True)
class CodeStory:
    """Makes findings of code changes.

    Attributes:
        old, new: the code of both models.
        changes: what differs.
        users: label -> paths of the modules whose class has it, in either model.
        explained: labels that come and go with modules, hooks or attributes told elsewhere.
        appeared: attributes that only one of the models counts; told here if the code that reads
            them changed.
    """

    old: CodeSide
    new: CodeSide
    changes: Sequence[CodeChange]
    users: Mapping[str, Sequence[str]]
    explained: set[str]
    appeared: Sequence[Fact] = ()
    _details: dict[str, list[str]] = field(default_factory=dict)

    def facts(self) -> list[Fact]:
        """Return the findings: edited code, values that it uses, code that came or went."""
        edited = [change for change in self.changes if change.diff]
        for change in edited:
            self._details[change.label] = list(change.diff)
        alone = self._fold_labels(edited)
        attributes = self._fold_attributes(edited)
        values = self._values()  # before the edits: some values are told under them
        return [
            *(fact for change in self.changes for fact in self._edited(change)),
            *values,
            *alone,
            *attributes,
        ]

    # ------------------------------------------------------------ edited code
    def _edited(self, change: CodeChange) -> Iterator[Fact]:
        if change.old is None or change.new is None or (change.values and not change.diff):
            return
        paths = tuple(self.users.get(change.label, ()))
        text = " changed" + (f" ({places_word(len(paths))})" if len(paths) > 1 else "")
        if not change.diff:
            text += self._hidden(change)
        yield Fact(
            kind="changed",
            path=change.label,
            place=code_name(change.label),
            text=text,
            old=self.old.digests[change.old],
            new=self.new.digests[change.new],
            detail=tuple(self._details.get(change.label, ())),
            paths=paths if len(paths) > 1 else (),
        )

    def _hidden(self, change: CodeChange) -> str:
        if change.label.startswith("class "):
            return ": its members or base classes"
        if not (self.old.sources.get(str(change.old)) and self.new.sources.get(change.label)):
            return ": byte-code, of which no source is known"
        return ", though its text did not: what it refers to, or imports, is another"

    # ------------------------------------------------------------ values
    def _values(self) -> list[Fact]:
        groups: dict[str, list[tuple[CodeChange, tuple[str, str, Any, Any]]]] = {}
        for change in self.changes:
            for found in change.values:
                kind, name, old, new = found
                if kind == "defaults" and change.diff:
                    self._note_default(change, name, old, new)
                    continue
                owner = "" if kind == "constants" else change.label
                groups.setdefault(repr((found, owner)), []).append((change, found))
        facts = []
        for group in groups.values():
            change, (kind, name, old, new) = group[0]
            place = _WORDS[kind].format(name=name, owner=_owner(change.label))
            before, after = value_text(old), value_text(new)
            text = f": {before} -> {after}" if before != after else ": changed inside"
            if kind == "constants":
                text += f" (used by {_several([code_name(c.label) for c, _ in group])})"
            facts.append(Fact(kind="changed", path=name, place=place, text=text, old=old, new=new))
        return facts

    def _note_default(self, change: CodeChange, name: str, old: Any, new: Any) -> None:
        """Add a default to a diff that shows the signature, but not the value."""
        value = value_text(new)
        if not any(line.startswith("+") and value in line for line in change.diff):
            line = f"default of {name}: {value_text(old)} -> {value}"
            self._details[change.label].append(line)

    # ------------------------------------------------------------ what follows from an edit
    def _fold_labels(self, edited: Sequence[CodeChange]) -> list[Fact]:
        """Put code that came or went under the edit that names it; return what is left over.

        What is reached only through modules that came or went is told with them.
        """
        facts: list[Fact] = []
        for verb, side in (("no longer used", self.old), ("now used", self.new)):
            pool = {c.label for c in self.changes if (c.old if side is self.new else c.new) is None}
            pool -= _closure(self.explained & pool, pool, side)
            for change in edited:
                label = str(change.old if side is self.old else change.new)
                named = labels_in([side.values.get(label, {})])
                direct = {n for n in pool if n in named or _mentions(change.diff, n)}
                followers = _closure(direct, pool, side)
                pool -= followers
                for follower in sorted(followers):
                    self._details[change.label] += self._source_lines(follower, verb, side)
            kind = "added" if side is self.new else "removed"
            facts += [
                Fact(kind=kind, path=label, place=code_name(label), text=f" is {verb}")
                for label in sorted(pool)
            ]
        return facts

    def _source_lines(self, label: str, verb: str, side: CodeSide) -> list[str]:
        sign = "+" if side is self.new else "-"
        source = side.sources.get(label, "").splitlines()
        return [f"{code_name(label)} is {verb}", *(f"{sign}{line}" for line in source)]

    def _fold_attributes(self, edited: Sequence[CodeChange]) -> list[Fact]:
        """Put attributes that an edit began or ceased to read under it; return the others."""
        left = []
        for fact in self.appeared:
            owner, _, name = fact.path.rpartition(".")
            readers = [
                c.label
                for c in edited
                if owner in self.users.get(c.label, ()) and _mentions(self._details[c.label], name)
            ]
            if not readers:
                left.append(fact)
                continue
            gone = fact.new is None and fact.text.endswith("not set")
            value = value_text(fact.old if gone else fact.new)
            line = f"{'no longer reads' if gone else 'now reads'} {name} = {value}"
            if line not in self._details[readers[0]]:
                self._details[readers[0]].append(line)
        return left


def _closure(starts: set[str], pool: set[str], side: CodeSide) -> set[str]:
    """Return the labels of `pool` that are reached from `starts`, these included."""
    reached: set[str] = set()
    pending = set(starts)
    while pending:
        label = pending.pop()
        reached.add(label)
        named = labels_in([side.values.get(label, {})])
        text = (side.sources.get(label, ""),)
        member = f"{_owner(label)}."
        pending |= {
            other
            for other in pool - reached
            if other in named or other.startswith(member) or _mentions(text, other)
        }
    return reached


def _owner(label: str) -> str:
    return label if not label.startswith("class ") else label[6:]


def _several(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = len(names) - _MAX_USERS
    return ", ".join(names[:_MAX_USERS]) + (f" and {more} more" if more > 0 else "")


def _mentions(lines: Iterable[str], label: str) -> bool:
    """Say whether a changed line, or any line of a source, has the name in it."""
    name = label.removeprefix("class ").rpartition(".")[2].partition("#")[0]
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return any(
        word.search(line) for line in lines if not line.startswith((" ", "@@", "---", "+++"))
    )
