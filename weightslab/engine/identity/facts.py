"""Single findings about a model, and how equal ones of many modules become one change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.values import Change

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fact", "gather", "places_text", "places_word"]

_MAX_PLACES: Final = 40  # characters of a list of places; longer ones become a pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One finding at one place.

    Attributes:
        kind: as in `Change`.
        path: the module, or the tensor or attribute, that it is about.
        text: what happened to it; comes after the place.
        before: comes before the place; `module ` becomes `modules ` for several.
        old, new: plain JSON values.
        detail: further lines.
        place: how the place is called, where that is not its path: `forward of Net`.
        paths: the modules that are concerned, where the finding stands for several by itself.
    """

    kind: str
    path: str
    text: str
    before: str = ""
    old: Any = None
    new: Any = None
    detail: tuple[str, ...] = ()
    place: str = ""
    paths: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Equal for the same finding at another place."""
        parts = [self.kind, self.text, self.before, self.place, self.old, self.new, self.detail]
        return json.dumps(parts, sort_keys=True)


def gather(facts: Iterable[Fact], *, prefix: str = "") -> list[Change]:
    """Return one change for all findings that differ in their place alone, in order.

    Args:
        prefix: put before every place (`name:` in a dict of models).
    """
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.key, []).append(fact)
    return [_change(group, prefix) for group in groups.values()]


def _change(group: list[Fact], prefix: str) -> Change:
    first = group[0]
    paths = [f"{prefix}{fact.path}" for fact in group]
    before = first.before
    if len(group) > 1 and before.endswith("module "):
        before = f"{before[:-1]}s "
    place = first.place and f"{prefix}{first.place}"
    if not place:
        place = places_text(paths) if first.path or len(group) > 1 else f"{prefix}the model"
    concerned = tuple(f"{prefix}{path}" for path in first.paths)
    return Change(
        component="model",
        kind=first.kind,
        path=paths[0],
        old=first.old,
        new=first.new,
        text=f"{before}{place}{first.text}",
        detail=first.detail,
        paths=concerned or (tuple(paths) if len(paths) > 1 else ()),
    )


def places_text(paths: list[str]) -> str:
    """Return `a, b`, or what a long list has in common: `blocks.*.act (12 places)`."""
    text = ", ".join(path or "the model" for path in paths)
    if len(paths) == 1 or len(text) <= _MAX_PLACES:
        return text
    patterns: dict[tuple[str, ...], list[list[str]]] = {}
    for path in paths:
        parts = path.split(".")
        form = tuple("*" if part.isdecimal() else part for part in parts)
        patterns.setdefault(form, []).append(parts)
    shown = ", ".join(_pattern(group) or "the model" for group in patterns.values())
    if len(shown) > _MAX_PLACES:
        shown = f"{paths[0] or 'the model'} and others"
    return f"{shown} ({len(paths):,} places)"


def _pattern(group: list[list[str]]) -> str:
    """Return the path that all have in common, with a star where numbers differ."""
    return ".".join(parts[0] if len(set(parts)) == 1 else "*" for parts in zip(*group, strict=True))


def places_word(count: int) -> str:
    """Return `1 module`, `12 modules`."""
    return f"{count:,} module" if count == 1 else f"{count:,} modules"
