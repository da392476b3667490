"""Telling what happened to whole modules: added, removed, replaced, moved, swapped, wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.identity.facts import Fact, places_word
from weightslab.engine.identity.treetext import entry_label, short_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from weightslab.engine.identity.alignment import Event
    from weightslab.engine.identity.moduletree import Node

__all__ = ["event_facts"]


def event_facts(events: Iterable[Event]) -> list[Fact]:
    """Return one finding per event."""
    return [_RULES[event.kind](event) for event in events]


def _come_or_gone(event: Event) -> Fact:
    nodes = event.new or event.old
    label, kind = entry_label(nodes[0].entry), event.kind
    verb = "inserted" if kind == "added" and event.renumbered else kind
    text = f": {label} {verb}"
    path, place = nodes[0].path, ""
    paths: tuple[str, ...] = ()
    if len(nodes) > 1:
        place = f"modules {path} to {nodes[-1].path}"
        text = f": {len(nodes)} x {label} {verb}"
        paths = tuple(node.path for node in nodes)
    if event.renumbered:
        text += f", {places_word(event.renumbered)} after it renumbered"
    return Fact(
        kind=kind,
        path=path,
        before="" if place else "module ",
        place=place,
        text=text,
        old=None if event.new else label,
        new=label if event.new else None,
        paths=paths,
        detail=_inside("+" if event.new else "-", nodes[0]),
    )


def _replaced(event: Event) -> Fact:
    old, new = event.old[0], event.new[0]
    labels = entry_label(old.entry), entry_label(new.entry)
    if labels[0] == labels[1]:  # two classes of one name: say where they come from
        labels = str(old.entry.get("class")), str(new.entry.get("class"))
    return Fact(
        kind="replaced",
        path=new.path,
        text=f": {labels[0]} became {labels[1]}",
        old=labels[0],
        new=labels[1],
        detail=(*_inside("-", old), *_inside("+", new)),
    )


def _wrapped(event: Event) -> Fact:
    old, new, inner = event.old[0], *event.new
    labels = entry_label(old.entry), entry_label(new.entry)
    return Fact(
        kind="replaced",
        path=new.path,
        text=f": {labels[0]} is now inside {labels[1]}, as its {inner.name}",
        old=labels[0],
        new=labels[1],
        detail=_inside("+", new, inner),
    )


def _unwrapped(event: Event) -> Fact:
    (old, inner), new = event.old, event.new[0]
    labels = entry_label(old.entry), entry_label(new.entry)
    return Fact(
        kind="replaced",
        path=new.path,
        text=f": {labels[0]} became its {inner.name} alone, {labels[1]}",
        old=labels[0],
        new=labels[1],
        detail=_inside("-", old, inner),
    )


def _moved(event: Event) -> Fact:
    old, new = event.old[0], event.new[0]
    parents = old.path.rpartition(".")[0], new.path.rpartition(".")[0]
    verb = "renamed to" if parents[0] == parents[1] else "moved to"
    to = new.name if parents[0] == parents[1] else new.path
    return Fact(
        kind="moved",
        path=old.path,
        before="module ",
        text=f" {verb} {to}: {entry_label(new.entry)}",
        old=old.path,
        new=new.path,
    )


def _swapped(event: Event) -> Fact:
    one, other = event.old
    labels = [short_class(str(node.entry.get("class"))) for node in event.old]
    text = f" and {other.path} changed places ({labels[0]}, {labels[1]})"
    names = [node.path for node in event.old]
    new = [node.path for node in event.new]
    return Fact(kind="moved", path=one.path, text=text, old=names, new=new)


def _permuted(event: Event) -> Fact:
    places = ", ".join(
        f"{old.name} to {new.name}" for old, new in zip(event.old, event.new, strict=True)
    )
    parent = event.new[0].path.rpartition(".")[0]
    names = [[node.path for node in nodes] for nodes in (event.old, event.new)]
    text = f": modules in another order ({places})"
    return Fact(kind="moved", path=parent, text=text, old=names[0], new=names[1])


def _reordered(event: Event) -> Fact:
    old, new = event.old[0], event.new[0]
    common = [name for name in new.children if name in old.children]
    before = [name for name in old.children if name in new.children]
    moved = [n for n in before if _without(before, n) == _without(common, n)]
    if moved:
        at = common.index(moved[-1])
        place = f"after {common[at - 1]}" if at else f"before {common[1]}"
        text = f": {moved[-1]} is registered {place} now"
    else:
        text = (
            f": modules registered in another order: {_shortened(before)} -> {_shortened(common)}"
        )
    return Fact(kind="moved", path=new.path, text=text, old=before, new=common)


def _without(names: Sequence[str], name: str) -> list[str]:
    return [one for one in names if one != name]


def _inside(sign: str, node: Node, but: Node | None = None) -> tuple[str, ...]:
    """Return a line for each module below a node."""
    hidden = set(but.walk()) if but is not None else set()
    start = len(node.path) + 1 if node.path else 0
    return tuple(
        f"{sign} {inner.path[start:]}: {entry_label(inner.entry)}"
        for inner in node.walk()
        if inner is not node and inner not in hidden
    )


def _shortened(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004  two of them on a line


_RULES: Mapping[str, Callable[[Event], Fact]] = {
    "added": _come_or_gone,
    "removed": _come_or_gone,
    "replaced": _replaced,
    "wrapped": _wrapped,
    "unwrapped": _unwrapped,
    "moved": _moved,
    "swapped": _swapped,
    "permuted": _permuted,
    "reordered": _reordered,
}
