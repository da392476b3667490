"""Sorting raw sample UIDs into columns: given as integers, integers given as text, other text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.containers import EXACT_FLOAT, REMEDY, open_container, uid_error
from weightslab.engine.identity.decimals import INT64_MAX, INT64_MIN, as_int64, split_decimals
from weightslab.engine.identity.mix import MASK, mix_texts, sum_ints
from weightslab.engine.identity.repetitions import all_differ
from weightslab.engine.identity.textindex import TextIndex, index_texts
from weightslab.engine.identity.texts import Texts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]
    Words = npt.NDArray[np.uint64]
    Bools = npt.NDArray[np.bool_]

__all__ = ["Columns", "read_uids", "sort_integers"]

_DENSE: Final = 8  # a flag takes an eighth of an int64


@dataclass(frozen=True, slots=True)
class Columns:
    """Unique UIDs; no integer is in two columns.

    Attributes:
        int64: int64 [n], ascending: given as integers.
        decimal_text: int64 [m], ascending: given as canonical decimal text.
        texts: all others.
        hashes: uint64, lane 0 of each text.
        sums: of both lanes over all UIDs, modulo 2^64.
        index: of the texts, if one was needed to find repetitions among them.
        ascends: the texts are known to be in the order of their bytes.
    """

    int64: Int64
    decimal_text: Int64
    texts: Texts
    hashes: Words
    sums: tuple[int, int]
    index: TextIndex | None = None
    ascends: bool = False

    @classmethod
    def of(
        cls, int64: Int64, decimal_text: Int64, texts: Texts, *, ascends: bool = False
    ) -> Columns:
        """Make columns of UIDs that are unique and in order."""
        hashes, mixed = mix_texts(texts)
        sums = _add(sum_ints(int64), sum_ints(decimal_text), mixed)
        return cls(int64, decimal_text, texts, hashes, sums, ascends=ascends)

    def __len__(self) -> int:
        return self.int64.size + self.decimal_text.size + len(self.texts)

    def where(self, chosen: Bools) -> Columns:
        """Return the UIDs at which `chosen` is True: int64 first, decimal text, other texts."""
        if chosen.all():
            return self
        first, second = self.int64.size, self.int64.size + self.decimal_text.size
        return Columns.of(
            self.int64[chosen[:first]],
            self.decimal_text[chosen[first:second]],
            self.texts.take(chosen[second:].nonzero()[0]),
        )


def _add(*sums: tuple[int, int]) -> tuple[int, int]:
    return sum(s[0] for s in sums) & MASK, sum(s[1] for s in sums) & MASK


def read_uids(uids: Any) -> Columns:
    """Read UIDs of any supported container into columns; repetitions count once.

    Raises: IdentityError naming position, type and remedy of a UID that cannot be one, or of two
        UIDs that would become the same sample (1 and "1").
    """
    import numpy as np

    empty = np.empty(0, np.int64)
    opened = open_container(uids)
    if isinstance(opened, np.ndarray):
        return _unique(opened, empty, Texts.of([]))
    if isinstance(opened, Texts):
        return _unique(empty, *split_decimals(opened))
    return _unique(*_item_by_item(opened))


def _unique(ints: Int64, decimals: Int64, texts: Texts) -> Columns:
    """Sort and drop repetitions; texts stay in the order in which they were given."""
    import numpy as np

    ints, decimals = sort_integers(ints), sort_integers(decimals)
    both = np.intersect1d(ints, decimals, assume_unique=True) if decimals.size else decimals
    refuse_both([str(number) for number in both[:1].tolist()])
    hashes, mixed = mix_texts(texts)
    index, repeated = (None, ints[:0]) if all_differ(hashes) else index_texts(texts, hashes)
    if index is not None and repeated.size:
        keep = np.ones(len(texts), bool)
        keep[repeated] = False
        index.renumber(np.cumsum(keep) - 1)
        texts, hashes = texts.take(np.flatnonzero(keep)), hashes[keep]
        _, mixed = mix_texts(texts)
    sums = _add(sum_ints(ints), sum_ints(decimals), mixed)
    return Columns(ints, decimals, texts, hashes, sums, index)


def sort_integers(values: Int64) -> Int64:
    """Return the sorted unique values; a sorted array (the usual case) is not sorted again."""
    import numpy as np

    if values.size < 2 or bool((values[1:] > values[:-1]).all()):  # noqa: PLR2004
        return values
    low, high = int(values.min()), int(values.max())
    if high - low < _DENSE * values.size:  # row numbers in any order: ten times faster than sorting
        present = np.zeros(high - low + 1, bool)
        present[values - low] = True
        return np.flatnonzero(present) + low
    values = np.sort(values)
    keep = np.empty(values.size, bool)
    keep[0] = True
    np.not_equal(values[1:], values[:-1], out=keep[1:])
    return values if keep.all() else values[keep]


def _item_by_item(items: list[Any]) -> tuple[Int64, Int64, Texts]:
    import numpy as np

    ints: list[int] = []
    decimals: list[int] = []
    texts: dict[bytes, None] = {}
    large: dict[bytes, None] = {}  # integers outside int64, as text
    for at, item in enumerate(items):
        value = _scalar(item, at)
        if isinstance(value, int):
            if INT64_MIN <= value <= INT64_MAX:
                ints.append(value)
            else:
                large[b"%d" % value] = None
        elif (number := as_int64(value)) is not None:
            decimals.append(number)
        else:
            texts[_utf8(value, at)] = None
    refuse_both([text.decode() for text in sorted(large.keys() & texts.keys())[:1]])
    return np.array(ints, np.int64), np.array(decimals, np.int64), Texts.of([*texts, *large])


def refuse_both(clash: list[str]) -> None:
    """Raise if there is a number that was given as an integer and as text."""
    if clash:
        raise IdentityError(
            f"the sample UIDs hold both {clash[0]} and {clash[0]!r}: CSV, HDF5 and JSON do not keep"
            " them apart, so they would become one sample",
            hint="use only integers or only texts",
        )


def _scalar(item: Any, at: int) -> int | str:
    """Return one UID as int or str."""
    kind = type(item)
    if kind is int or kind is str:
        return item  # type: ignore[no-any-return]
    if (kind.__module__ == "numpy" and hasattr(item, "item") and item.dtype.kind not in "mM") or (
        kind.__module__ == "torch" and hasattr(item, "detach") and item.ndim == 0
    ):
        item = item.item()
        kind = type(item)
    if issubclass(kind, bool):
        raise _bad(item, at, kind)
    if issubclass(kind, int):
        return int.__pos__(item)
    if issubclass(kind, str):
        return str.__str__(item)
    if issubclass(kind, bytes):
        return _from_bytes(item, at)
    if issubclass(kind, float):
        return _from_float(item, at)
    raise _bad(item, at, kind)


def _bad(item: Any, at: int, kind: type) -> IdentityError:
    shown = f" ({item!r})" if item is None or kind in (bool, float) else ""
    return uid_error(f"{kind.__module__}.{kind.__qualname__}{shown}", at)


def _from_float(item: float, at: int) -> int:
    if item != item or item in (float("inf"), float("-inf")) or item != int(item):  # noqa: PLR0124
        raise _bad(item, at, float)
    if abs(item) >= EXACT_FLOAT:
        raise IdentityError(
            f"active_data_uids[{at}] is the float {item!r}: floats this large stand for several"
            " integers",
            hint=REMEDY,
        )
    return int(item)


def _from_bytes(item: bytes, at: int) -> str:
    try:
        return bytes(item).decode("utf-8")
    except UnicodeDecodeError as error:
        raise IdentityError(
            f"active_data_uids[{at}] is bytes that are not UTF-8 text ({item[:20]!r})",
            hint="decode them with the right encoding, or use their hex form",
        ) from error


def _utf8(text: str, at: int) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise IdentityError(
            f"active_data_uids[{at}] is a text with half a character (a lone surrogate): {text!a}",
            hint="decode file names with the right encoding",
        ) from error
