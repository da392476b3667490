"""What changed between two configs: dotted key, old value, new value; each change once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.canonical import encode_canonical
from weightslab.engine.identity.config import DEFAULT_EXCLUDED, without
from weightslab.engine.identity.plain import plain_tree
from weightslab.engine.identity.treetext import value_text
from weightslab.engine.values import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "MISSING",
    "diff_configs",
    "diff_excluded",
    "difference_text",
    "differences",
    "differences_of_many",
]

_PLAIN: Final = frozenset({bool, int, str, type(None)})  # equal if the digest takes them for equal
_MAX_ALIGNED: Final = 200  # items; longer lists are compared place by place


@dataclass(frozen=True, slots=True)
class _Missing:
    """Stands for a key that is not there; None is a value."""


MISSING: Final = _Missing()
_Row = tuple[str, Any, Any]


def diff_configs(
    old_plain: Mapping[Any, Any],
    new_plain: Mapping[Any, Any],
    exclude: Sequence[str] = (),
    *,
    old_exclude: Sequence[str] | None = None,
) -> list[Change]:
    """Return one change per dotted key whose value differs, sorted by key.

    Empty exactly if the digests of both configs are equal.

    Args:
        old_plain, new_plain: `ConfigDescription.plain`.
        exclude: dotted paths left out, besides the defaults.
        old_exclude: those of the old config, if they were others.
    """
    after_hidden = frozenset((*DEFAULT_EXCLUDED, *exclude))
    before_hidden = (
        after_hidden if old_exclude is None else frozenset((*DEFAULT_EXCLUDED, *old_exclude))
    )
    before, after = without(dict(old_plain), before_hidden), without(dict(new_plain), after_hidden)
    return _changes(differences(before, after))


def diff_excluded(
    old_plain: Mapping[Any, Any], new_plain: Mapping[Any, Any], exclude: Sequence[str] = ()
) -> list[Change]:
    """Return the changes of keys that do not count.

    Args:
        exclude: dotted paths that count in neither config, besides the defaults.
    """
    hidden = frozenset((*DEFAULT_EXCLUDED, *exclude))
    sides = [dict(_hidden_values(dict(plain), hidden)) for plain in (old_plain, new_plain)]
    rows = []
    for key in sorted({*sides[0], *sides[1]}):
        rows += differences(sides[0].get(key, MISSING), sides[1].get(key, MISSING), key)
    return _changes(rows)


def _hidden_values(plain: dict[Any, Any], hidden: frozenset[str]) -> Iterator[tuple[str, Any]]:
    depth = max(path.count(".") for path in hidden)
    stack: list[tuple[str, Any, int]] = [("", plain, 0)]
    while stack:
        prefix, record, level = stack.pop()
        for key, value in record.items():
            path = f"{prefix}{key}"
            if path in hidden:
                yield path, value
            elif isinstance(value, dict) and level < depth:
                stack.append((f"{path}.", value, level + 1))


# ---------------------------------------------------------------- walking both at once
def differences(old: Any, new: Any, path: str = "") -> list[_Row]:
    """Return (path, old, new) of the outermost values that differ, `MISSING` for one not there."""
    rows: list[_Row] = []
    stack: list[_Row] = [(path, old, new)]
    while stack:
        at, before, after = stack.pop()
        if _is_record(before) and _is_record(after):
            stack.extend(_keys(at, before, after))
        elif _is_nested(before) and _is_nested(after):
            stack.extend(_items(at, before, after))
        elif not _equal(before, after):
            rows.append((at, before, after))
    return rows


def differences_of_many(values: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Return (path, values) of the outermost places where not all of several configs agree.

    Two are aligned as `differences` does; lists of more are compared by place where they are as long.
    """
    if len(values) == 2:  # noqa: PLR2004
        return [(path, pair) for path, *pair in differences(*values)]
    rows: list[tuple[str, list[Any]]] = []
    stack: list[tuple[str, list[Any]]] = [("", list(values))]
    while stack:
        path, found = stack.pop()
        if all(map(_is_record, found)):
            stack.extend(_keys_of_many(path, found))
        elif all(map(_is_nested, found)) and len({len(side) for side in found}) == 1:
            stack.extend(
                (f"{path}[{at}]", list(row)) for at, row in enumerate(zip(*found, strict=True))
            )
        elif not all(_equal(found[0], other) for other in found[1:]):
            rows.append((path, found))
    return rows


def _keys_of_many(path: str, records: list[dict[Any, Any]]) -> Iterator[tuple[str, list[Any]]]:
    sides = [{_encoded(key): (key, value) for key, value in one.items()} for one in records]
    for code in dict.fromkeys(code for side in sides for code in side):
        found = [side.get(code) for side in sides]
        key = next(pair[0] for pair in found if pair is not None)
        where = path if key == "$state" else _joined(path, key)
        yield where, [MISSING if pair is None else pair[1] for pair in found]


def _is_record(value: Any) -> bool:
    """Say whether a value is a dict with keys of the user's, or an object with attributes."""
    if not isinstance(value, dict):
        return False
    return len(value) != 1 or not str(next(iter(value))).startswith("$")


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _equal(old: Any, new: Any) -> bool:
    if old is MISSING or new is MISSING:
        return old is new
    if type(old) is type(new) and type(old) in _PLAIN:
        return bool(old == new)
    if _is_plainly_equal(old, new):
        return True
    if type(old) is type(new) is float and abs(old - new) > 0:  # no NaN, and no zeros of two signs
        return False
    return bool(_encoded(old) == _encoded(new))


def _is_plainly_equal(old: Any, new: Any) -> bool:
    if type(old) is not type(new):
        return False
    return (type(old) in _PLAIN or (type(old) is float and old != 0)) and bool(old == new)


def _encoded(value: Any) -> bytes:
    return encode_canonical(plain_tree(value))


def _keys(path: str, old: dict[Any, Any], new: dict[Any, Any]) -> Iterator[_Row]:
    """Pair the values of two dicts by key; keys are equal if the digest takes them for equal."""
    code_of: Callable[[Any], Any] = _encoded
    if all(type(key) is str for key in (*old, *new)):
        code_of = _itself  # texts are equal if their codes are; most configs have no other keys
    sides = [{code_of(key): (key, value) for key, value in one.items()} for one in (old, new)]
    for code in {**sides[0], **sides[1]}:
        before, after = (side.get(code) for side in sides)
        if before and after and _is_plainly_equal(before[1], after[1]):
            continue  # most values; their paths are not even put together
        key = (before or after or ("",))[0]
        yield (
            path if key == "$state" else _joined(path, key),
            MISSING if before is None else before[1],
            MISSING if after is None else after[1],
        )


def _itself(key: Any) -> Any:
    return key


def _joined(path: str, key: Any) -> str:
    text = str(key)
    if (
        not isinstance(key, str)
        or not text
        or any(c in text for c in ".[]")
        or not text.isprintable()
    ):
        return f"{path}[{key!r}]"
    return f"{path}.{text}" if path else text


def _items(path: str, old: list[Any], new: list[Any]) -> Iterator[_Row]:
    """Pair the items of two lists, so that an inserted one is one change."""
    if len(old) == len(new) or max(len(old), len(new)) > _MAX_ALIGNED:
        for at in range(max(len(old), len(new))):
            one, other = (side[at] if at < len(side) else MISSING for side in (old, new))
            yield f"{path}[{at}]", one, other
        return
    codes = [[_encoded(item) for item in side] for side in (old, new)]
    matcher = difflib.SequenceMatcher(a=codes[0], b=codes[1], autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            continue
        both = min(j - i, m - k)
        for at in range(both):
            yield f"{path}[{k + at}]", old[i + at], new[k + at]
        yield from ((f"{path}[{at}]", old[at], MISSING) for at in range(i + both, j))
        yield from ((f"{path}[{at}]", MISSING, new[at]) for at in range(k + both, m))


# ---------------------------------------------------------------- words
def _changes(rows: list[_Row]) -> list[Change]:
    return [_change(*row) for row in sorted(rows, key=lambda row: row[0])]


def _change(path: str, old: Any, new: Any) -> Change:
    kind = "added" if old is MISSING else "removed" if new is MISSING else "changed"
    return Change(
        component="config",
        kind=kind,
        path=path,
        old=None if old is MISSING else old,
        new=None if new is MISSING else new,
        text=f"{path}{difference_text(old, new)}",
    )


def difference_text(old: Any, new: Any) -> str:
    """Return what comes after the key: `: 0.1 -> 0.2`, ` added: 3`, ` removed (was 3)`."""
    if old is MISSING:
        return f" added: {value_text(new)}"
    if new is MISSING:
        return f" removed (was {value_text(old)})"
    before, after = value_text(old), value_text(new)
    if before == after:
        return f": {before} {_what_differs(old, new)}"
    return f": {before} -> {after}"


def _what_differs(old: Any, new: Any) -> str:
    """Say where two values differ that look alike in a line."""
    if _is_code(old) and _is_code(new):
        return "has other code"
    if isinstance(old, list) and isinstance(new, list):
        at = next(
            (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if not _equal(a, b)), 0
        )
        if len(old) != len(new):
            return f"has {len(new):,} items, not {len(old):,}"
        return f"differs from item {at:,} on: {value_text(old[at])} -> {value_text(new[at])}"
    return "changed inside"


def _is_code(value: Any) -> bool:
    return isinstance(value, dict) and next(iter(value), "") in ("$function", "$class")
