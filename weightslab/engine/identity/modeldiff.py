"""Comparing two described models: modules, their contents, code, dtypes and what is frozen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.alignment import align
from weightslab.engine.identity.codediff import CodeSide, compare_code, labels_in
from weightslab.engine.identity.codestory import CodeStory
from weightslab.engine.identity.configdiff import MISSING, difference_text, differences
from weightslab.engine.identity.entrydiff import compare_entries, value_change
from weightslab.engine.identity.facts import Fact, gather, places_word
from weightslab.engine.identity.moduleevents import event_facts
from weightslab.engine.identity.moduletree import (
    Entry,
    Node,
    build_tree,
    map_references,
    tensor_names,
)
from weightslab.engine.identity.treetext import entry_label, short_class, value_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from weightslab.engine.values import Change

__all__ = ["ModelSide", "diff_one_model"]

_CODE_TAGS: Final = ("$function", "$property", "$staticmethod", "$classmethod", "$cached_property")
_TOLD: Final = frozenset({"modules", "code", "frozen"})


class ModelSide:
    """One side of a comparison: the identity of a model, and what stands beside it.

    Args:
        identity: `modules`, `code`, `frozen`.
        document: where sources and values of the code are; may lack them.
        name: of the model in a dict of models, "" for a single one.
    """

    def __init__(
        self, identity: Mapping[str, Any], document: Mapping[str, Any], *, name: str = ""
    ) -> None:
        self.identity = identity
        self.root: Node = build_tree(identity["modules"])
        self.nodes: dict[str, Node] = {node.path: node for node in self.root.walk()}
        own = {part: document.get(part, {}).get(name, {}) for part in ("sources", "values")}
        # what is apart has its labels after a name of its own; of it each label is there once
        self.beside = {
            part: {"": {label.rpartition(": ")[2]: item for label, item in found.items()}}
            for part, found in own.items()
        }
        self.code = CodeSide(digests=identity["code"], sources=own["sources"], values=own["values"])

    def tensors(self, below: str = "") -> set[str]:
        """Return the full names of the parameters of a module and everything below it."""
        return {
            f"{node.path}.{name}" if node.path else name
            for node in self.nodes[below].walk()
            for name in tensor_names(node.entry)
        }


def diff_one_model(old: ModelSide, new: ModelSide, *, prefix: str = "") -> list[Change]:
    """Return the changes from one described model to another, each once, outermost first.

    Args:
        prefix: put before every path (`name:` in a dict of models).
    """
    if repr(old.identity) == repr(new.identity):
        return []
    facts = _ModelDiff(old, new).facts()
    if not facts:  # never silent: two identities that differ have a change
        facts = [Fact(kind="changed", path="", text=" changed in a way that has no words yet")]
    return gather(facts, prefix=prefix)


class _ModelDiff:
    def __init__(self, old: ModelSide, new: ModelSide) -> None:
        self._old, self._new = old, new
        self._alignment = align(old.root, new.root)
        paths = dict.fromkeys([*new.nodes, *old.nodes])
        self._order = {path: at for at, path in enumerate(paths)}
        self._renamed: dict[str, str] = {}  # class names
        self._touched: list[Any] = []  # entries that changed: the code that they name is explained
        self._dtypes: dict[str, tuple[str, str]] = {}
        self._appeared: list[Fact] = []

    def facts(self) -> list[Fact]:
        """Return all findings, in the order in which people want to read them."""
        events = event_facts(self._alignment.events)
        modules = [*self._renamed_classes(), *self._entries()]
        return [
            *sorted([*events, *modules], key=self._place),
            *self._classes(),
            *self._code(),
            *self._all_dtypes(),
            *self._frozen(),
            *self._rest(),
        ]

    def _place(self, fact: Fact) -> int:
        """Return where in the model a finding belongs: the order of registration."""
        path = fact.path
        while path not in self._order and path:
            path = path.rpartition(".")[0]
        return self._order.get(path, 0)

    # ------------------------------------------------------------ modules
    def _renamed_classes(self) -> Iterator[Fact]:
        """Tell of modules that have the same contents under another class."""
        groups: dict[tuple[str, str], list[str]] = {}
        for old, new in self._alignment.pairs:
            if not old.is_module or old.entry["class"] == new.entry["class"]:
                continue
            if old.entry["kind"] == new.entry["kind"] == "user":
                groups.setdefault((old.entry["class"], new.entry["class"]), []).append(new.path)
                continue
            labels = entry_label(old.entry), entry_label(new.entry)
            text = f": {labels[0]} became {labels[1]}"
            yield Fact(kind="replaced", path=new.path, text=text, old=labels[0], new=labels[1])
        for (before, after), paths in groups.items():
            self._renamed[before] = after
            count = f" ({places_word(len(paths))})" if len(paths) > 1 else ""
            yield Fact(
                kind="replaced",
                path=paths[0],
                place=f"class {before}",
                text=f" became {after}{count}",
                old=before,
                new=after,
                paths=tuple(paths) if len(paths) > 1 else (),
            )

    def _entries(self) -> Iterator[Fact]:
        for event in self._alignment.events:
            for node in (*event.old, *event.new):
                if event.kind != "reordered":
                    self._touched += [inner.entry for inner in node.walk()]
        for old, new in self._alignment.pairs:
            before = self._as_new(old.entry)
            if repr({**before, "path": ""}) == repr({**new.entry, "path": ""}):
                continue
            self._touched += [_without_code(old.entry), _without_code(new.entry)]
            before, nested = self._apart(before, new)
            yield from nested
            found = compare_entries(old, new, before)
            self._dtypes |= found.dtypes
            self._appeared += found.appeared
            yield from found.facts

    def _apart(self, before: Entry, new: Node) -> tuple[Entry, list[Fact]]:
        """Compare models that a module keeps outside the tree, as attributes.

        Returns: the old entry with what was compared taken from the new one, and the findings.
        """
        old_values, values = before.get("attributes", {}), new.entry.get("attributes", {})
        found: list[tuple[str, Any, Any]] = []
        kept = {
            name: _meet_apart(value, values[name], ".".join(filter(None, (new.path, name))), found)
            if name in values
            else value
            for name, value in old_values.items()
        }
        facts = []
        for at, one, other in found:
            sides = ModelSide(one, self._old.beside), ModelSide(other, self._new.beside)
            facts += [_below(at, fact) for fact in _ModelDiff(*sides).facts()]
        return {**before, "attributes": kept} if facts else before, facts

    def _as_new(self, entry: Entry) -> Entry:
        mapped: Entry = map_references(entry, self._alignment.new_path, self._alignment.new_tensor)
        return mapped

    # ------------------------------------------------------------ classes and code
    def _classes(self) -> Iterator[Fact]:
        """Compare class attributes and bases; methods are told with the code."""
        seen: set[str] = set()
        for old, new in self._alignment.pairs:
            sides = [
                node.entry.get(key) for node in (old, new) for key in ("class", "code", "bases")
            ]
            key = json.dumps(sides)
            if key in seen or sides[:3] == sides[3:] or "code" not in new.entry:
                continue
            seen.add(key)
            yield from self._bases(old.entry, new.entry)
            yield from self._members(old.entry, new)

    def _bases(self, old: Entry, new: Entry) -> Iterator[Fact]:
        before = [self._renamed.get(base, base) for base, _ in old.get("code", ())]
        before += list(old.get("bases", ()))
        after = [*(base for base, _ in new["code"]), *new.get("bases", ())]
        if before != after:
            shown = [
                ", ".join(short_class(base) for base in side[1:] if base != "builtins.object")
                for side in (before, after)
            ]
            yield Fact(
                kind="changed",
                path=new["class"],
                place=f"class {new['class']}",
                text=f": base classes {shown[0] or 'none'} -> {shown[1] or 'none'}",
                old=before[1:],
                new=after[1:],
            )

    def _members(self, old: Entry, new: Node) -> Iterator[Fact]:
        before, after = _members(old.get("code", ())), _members(new.entry["code"])
        for name in sorted(before.keys() | after.keys()):
            both = name in before and name in after
            one, other = before.get(name), after.get(name)
            if both and repr(self._relabelled(one)) == repr(other):
                continue
            if not both and _is_code(other if name in after else one):
                continue  # told as code that came or went
            where = f"{new.entry['class']}.{name}"
            if both:
                yield Fact(
                    kind="changed",
                    path=where,
                    text=f": {value_change(one, other)}",
                    old=one,
                    new=other,
                )
            else:
                text = (
                    f"not set -> {value_text(other)}"
                    if name in after
                    else f"{value_text(one)} -> not set"
                )
                self._appeared.append(
                    Fact(kind="changed", path=where, text=f": {text}", old=one, new=other)
                )

    def _relabelled(self, value: Any) -> Any:
        """Return a member of a class with the labels that its code has after a renaming."""
        if isinstance(value, list):
            return [self._relabelled(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {key: self._relabelled(item) for key, item in value.items()}
        label = value.get("$function")
        if isinstance(label, str):
            owner, dot, name = label.partition(".")
            found["$function"] = f"{self._renamed.get(owner, owner)}{dot}{name}"
        return found

    def _code(self) -> list[Fact]:
        changes = compare_code(
            self._old.code, self._new.code, classes=self._renamed, names=self._renamed_children()
        )
        if not changes and not self._appeared:
            return []
        users: dict[str, list[str]] = {}
        for old, new in self._alignment.pairs:
            for label in labels_in([old.entry.get("code"), new.entry.get("code")]):
                users.setdefault(label, []).append(new.path)
        story = CodeStory(
            old=self._old.code,
            new=self._new.code,
            changes=changes,
            users=users,
            explained=labels_in(self._touched),
            appeared=self._appeared,
        )
        return story.facts()

    def _renamed_children(self) -> dict[str, str]:
        """Return old name -> new name of modules that kept their parent."""
        return {
            event.old[0].name: event.new[0].name
            for event in self._alignment.events
            if event.kind == "moved"
        }

    # ------------------------------------------------------------ dtypes, frozen
    def _all_dtypes(self) -> Iterator[Fact]:
        groups: dict[tuple[str, str], set[str]] = {}
        for name, dtypes in self._dtypes.items():
            groups.setdefault(dtypes, set()).add(name)
        for (before, after), names in groups.items():
            for path, _ in self._covering(names, _floats):
                yield Fact(
                    kind="changed", path=path, text=f": {before} -> {after}", old=before, new=after
                )

    def _frozen(self) -> Iterator[Fact]:
        old = {self._alignment.new_tensor(name) for name in self._old.identity["frozen"]}
        new = set(self._new.identity["frozen"])
        kept = {name for path in self._alignment.paths.values() for name in self._own(path)}
        for word, names in (("frozen", new - old), ("unfrozen", old - new)):
            for path, whole in self._covering(names & kept, tensor_names):
                text, place = f" {word}", "" if path else "the whole model"
                yield Fact(kind="changed", path=path, text=text, place=place if whole else "")

    def _own(self, path: str) -> list[str]:
        at = f"{path}." if path else ""
        return [f"{at}{name}" for name in tensor_names(self._new.nodes[path].entry)]

    def _covering(self, names: set[str], names_of: Any) -> Iterator[tuple[str, bool]]:
        """Yield the outermost modules all of whose tensors are in `names`, then single tensors."""
        left = set(names)
        for path, node in self._new.nodes.items():
            at = f"{path}." if path else ""
            if not any(name.startswith(at) for name in left):
                continue
            inside = {
                f"{inner.path}.{name}" if inner.path else name
                for inner in node.walk()
                for name in names_of(inner.entry)
            }
            if inside and inside <= left:
                yield path, True
                left -= inside
                continue
            single = [n for n in sorted(left) if n.startswith(at) and "." not in n[len(at) :]]
            for name in single:
                yield name, False
            left -= set(single)

    # ------------------------------------------------------------ the rest
    def _rest(self) -> Iterator[Fact]:
        """Tell of parts of an identity that this version has no words for."""
        old, new = self._old.identity, self._new.identity
        for key in sorted((old.keys() | new.keys()) - _TOLD):
            if repr(old.get(key)) == repr(new.get(key)):
                continue
            rows = differences(old.get(key, {}), new.get(key, {}), key)
            for path, before, after in rows or [(key, old.get(key), new.get(key))]:
                gone, come = (None if v is MISSING else v for v in (before, after))
                text = difference_text(before, after)
                yield Fact(kind="changed", path=path, place=path, text=text, old=gone, new=come)


def _apart_identity(value: Any) -> Mapping[str, Any] | None:
    """Return the identity of a module that is not registered in the tree."""
    content = value.get("$modules") if isinstance(value, dict) else None
    return content if isinstance(content, dict) and "modules" in content else None


def _meet_apart(old: Any, new: Any, at: str, found: list[tuple[str, Any, Any]]) -> Any:
    """Collect (place, old, new) of models inside two values; return `old` without them."""
    one, other = _apart_identity(old), _apart_identity(new)
    if one is not None and other is not None:
        if repr(one) != repr(other):
            found.append((at, one, other))
        return new
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [_meet_apart(a, b, f"{at}[{i}]", found) for i, (a, b) in pairs]
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return {key: _meet_apart(old[key], new[key], f"{at}.{key}", found) for key in old}
    return old


def _below(at: str, fact: Fact) -> Fact:
    """Put a finding about a model below the attribute that holds the model."""
    if fact.place:
        return replace(fact, place=f"{at}: {fact.place}", paths=())
    return replace(fact, path=f"{at}.{fact.path}" if fact.path else at)


def _without_code(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key != "code"}


def _floats(entry: Entry) -> list[str]:
    """Return the tensors that a change of dtype concerns: all that have one that is a float's."""
    return [
        name
        for kind in ("parameters", "buffers")
        for name, *spec in entry.get(kind, ())
        if isinstance(spec[0], list) and "float" in str(spec[0][0])
    ]


def _members(code: Any) -> dict[str, Any]:
    """Return the members of a class, the most derived first."""
    found: dict[str, Any] = {}
    for _, members in code:
        for name, value in members.items():
            found.setdefault(name, value)
    return found


def _is_code(value: Any) -> bool:
    return isinstance(value, dict) and next(iter(value), "") in _CODE_TAGS
