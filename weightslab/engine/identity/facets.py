"""Facets of the data: what counts besides which samples are active, where it is asked for.

A facet gives samples a value. Per active sample that has one, the canonical bytes of [UID, value] are
mixed like a text UID; a facet enters the digest as [name, count, sum 0, sum 1]. So a facet is as
incremental as the set, and a value of a discarded sample does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.canonical import encode_canonical
from weightslab.engine.identity.decimals import as_int64
from weightslab.engine.identity.mix import MASK, mix_texts
from weightslab.engine.identity.plain import plain_tree, to_plain
from weightslab.engine.identity.texts import Texts
from weightslab.engine.identity.uids import Columns, read_uids

if TYPE_CHECKING:
    from collections.abc import Iterable

    Key = int | bytes
    Values = dict[Key, Any]

__all__ = ["FACETS", "key_of", "keys_of", "read_facets", "sums_of"]

FACETS: Final = ("labels", "tags")


def key_of(uid: int | str) -> int | bytes:
    """Return what a UID is, however it was given: an integer, or a text in UTF-8."""
    if isinstance(uid, int):
        return uid
    number = as_int64(uid)
    return uid.encode() if number is None else number


def keys_of(columns: Columns) -> list[int | bytes]:
    """Return the keys of columns: both kinds of integers, then the texts."""
    numbers: list[int | bytes] = [*columns.int64.tolist(), *columns.decimal_text.tolist()]
    return [*numbers, *columns.texts.to_list()]


def read_facets(given: Mapping[str, Any]) -> dict[str, Values]:
    """Return facet -> key -> plain value of the facets that are not None.

    Args:
        given: `tags`: UID -> list, tuple or set of texts; order and repetitions do not count, and
            no tags is as good as no entry. `labels`: UID -> anything that a config may hold.
    Raises: IdentityError for a UID that cannot be one, or a value that has no deterministic form.
    """
    found: dict[str, Values] = {}
    for name in FACETS:
        if given.get(name) is None:
            continue
        if not isinstance(given[name], Mapping):
            raise IdentityError(
                f"{name} is a {type(given[name]).__name__}", hint="pass a dict of UID -> value"
            )
        values = [_plain(name, uid, value) for uid, value in given[name].items()]
        keys = [_one_key(name, uid) for uid in given[name]]
        if len(set(keys)) < len(keys):
            raise IdentityError(f"{name} names one sample twice, as 1 and as '1' for example")
        pairs = zip(keys, values, strict=True)
        found[name] = {key: value for key, value in pairs if name != "tags" or value}
    return found


def _one_key(name: str, uid: Any) -> Key:
    try:
        return keys_of(read_uids([uid]))[0]
    except IdentityError as error:
        raise IdentityError(f"{name}: {error}", hint=error.hint) from error


def _plain(name: str, uid: Any, value: Any) -> Any:
    if name != "tags":
        return to_plain(value, root=f"{name}[{uid!r}]", json=True)
    if not isinstance(value, (list, tuple, set, frozenset)) or not all(
        isinstance(tag, str) for tag in value
    ):
        raise IdentityError(
            f"tags[{uid!r}] is {value!r:.60}", hint="give each sample a list of texts as its tags"
        )
    return sorted({str.__str__(tag) for tag in value})


def sums_of(values: Values, keys: Iterable[Key]) -> tuple[int, int, int]:
    """Return the number of `keys` that have a value, and the sums of both lanes over them."""
    known: dict[Any, bytes] = {}  # labels of millions of samples are a few classes
    mixed = []
    for key in keys:
        if key not in values:
            continue
        value = values[key]
        shortcut = (type(value), value) if type(value) in (int, str) else None
        encoded = None if shortcut is None else known.get(shortcut)
        if encoded is None:
            encoded = encode_canonical(plain_tree(value))
            if shortcut is not None:
                known[shortcut] = encoded
        uid = b"%d" % key if isinstance(key, int) else key
        mixed.append(b"l2:s%d:%b%b" % (len(uid), uid, encoded))
    _, sums = mix_texts(Texts.of(mixed))
    return len(mixed), sums[0] & MASK, sums[1] & MASK
