"""Fields of the filter language: their names and kinds, and which of them a field of a filter is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import FilterError
from weightslab.engine.repository.fact_tables import join_path, to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from weightslab.engine.query.nodes import Field, Node

__all__ = ["FIELDS", "Known", "fields_of", "resolve"]

# name -> kind: `text`, `hash` (compared by its beginning), `number`, `quantity` (may have a unit),
# `time`, `flag`, and `texts`, of which a thing may have several
FIELDS: Final = {
    "hash": "hash",
    "name": "text",
    "tag": "texts",
    "note": "texts",
    "created": "time",
    "step": "number",
    "revision": "number",
    "sequence": "number",
    "size": "quantity",
    "checkpoints": "number",
    "samples": "quantity",
    "damaged": "flag",
    "pinned": "flag",
    "model.class": "text",
    "model.parameters": "quantity",
    "model.digest": "hash",
    "config.digest": "hash",
    "data.digest": "hash",
}
_ALIASES: Final = {  # columns of a listing, and plurals
    "exp_hash": "hash",
    "tags": "tag",
    "notes": "note",
    "created_at": "created",
    "last_step": "step",
    "size_bytes": "size",
    "num_checkpoints": "checkpoints",
    "num_samples": "samples",
    "num_parameters": "model.parameters",
    "model_class": "model.class",
}
_OPEN: Final = {"metric": "metric", "metrics": "metric", "config": "config"}
_MAX_NAME: Final = 60  # characters of a name in an error
_MAX_SHOWN: Final = 5
_MAX_NAMES: Final = 5000  # among which the nearest is looked for


@dataclass(frozen=True, slots=True)
class Known:
    """What a field stands for.

    Attributes:
        name: one of `FIELDS`; `metric` or `config` for one metric or config value.
        kind: as in `FIELDS`; `metric` or `config`.
        key: name of the metric, or path of the config value.
    """

    name: str
    kind: str
    key: str = ""


def resolve(field: Field, text: str, *, what: str = "filter") -> Known:
    """Return what a field stands for; whether a metric or config value exists is not looked at.

    Raises: FilterError with the nearest names for an unknown one.
    """
    plain = not any(field.are_quoted)
    name = ".".join(field.segments)
    name = _ALIASES.get(name, name)
    if plain and name in FIELDS:
        return Known(name, FIELDS[name])
    kind = None if field.are_quoted[0] else _OPEN.get(field.segments[0])
    if kind is not None and len(field.segments) > 1:
        rest = field.segments[1:]
        return Known(kind, kind, to_text(".".join(rest)) if kind == "metric" else join_path(rest))
    near = nearest(name, [*FIELDS, *_ALIASES, *_OPEN])
    near = [_ALIASES.get(word, word) for word in near] or sorted(FIELDS)
    if kind is not None:
        near = [f"{kind}.NAME"]
    raise FilterError(
        f"there is no field {_shown(name)}",
        text=text,
        position=field.position,
        hint=f"nearest: {', '.join(dict.fromkeys(near))}",
        what=what,
    )


def unknown_key(
    known: Known, field: Field, text: str, names: Iterable[str], *, what: str = "filter"
) -> FilterError:
    """Return the error for a metric or config key that nothing in the root has."""
    found = list(names)
    near = nearest(known.key, found)
    some = near or sorted(found)[:_MAX_SHOWN]
    told = ", ".join(f"{known.name}.{_shown_key(name)}" for name in some)
    thing = "metric" if known.name == "metric" else "config key"
    return FilterError(
        f"nothing in the root has the {thing} {_shown(known.key)}",
        text=text,
        position=field.position,
        hint=(f"nearest: {told}" if near else f"there are: {told}")
        if some
        else f"no {thing} at all",
        what=what,
    )


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that are most like one, those that end with it first."""
    few = [n for n, _ in zip(names, range(_MAX_NAMES), strict=False)]
    tail = name.rpartition(".")[2].lower()
    same = sorted(
        (n for n in few if n.lower().rpartition(".")[2] == tail), key=lambda n: (len(n), n)
    )
    close = difflib.get_close_matches(name, few, n=3, cutoff=0.6)
    return list(dict.fromkeys([*same[:3], *close]))[:3]


def _shown(name: str) -> str:
    told = "".join(c if c.isprintable() else "?" for c in name)
    return repr(told if len(told) <= _MAX_NAME else told[: _MAX_NAME - 3] + "...")


def _shown_key(path: str) -> str:
    """Return a path as it is written in a filter, inert on a screen."""
    parts = path.replace("\\\\", "\0").replace("\\.", "\1").split(".")
    plain = [part.replace("\0", "\\").replace("\1", ".") for part in parts]
    return ".".join(p if _is_word(p) else '"' + _escaped(p) + '"' for p in plain)


def _is_word(part: str) -> bool:
    return bool(part) and all(c.isalnum() or c in "_-/" for c in part)


def _escaped(part: str) -> str:
    told = part.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if c.isprintable() else "?" for c in told)[:_MAX_NAME]


def fields_of(node: Node) -> Iterator[Field]:
    """Yield the fields of a filter. Recursion is bounded by the depth that a filter may have."""
    field = getattr(node, "field", None)
    if field is not None:
        yield field
    part = getattr(node, "part", None)
    for inner in getattr(node, "parts", ()) if part is None else (part,):
        yield from fields_of(inner)
