"""The immutable part of a sample set: all samples it was built with, in rows, and their state."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.canonical import component_digest
from weightslab.engine.identity.facets import key_of
from weightslab.engine.identity.mix import MASK, mix_text, mix_texts
from weightslab.engine.identity.textindex import TextIndex, index_texts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.facets import Values
    from weightslab.engine.identity.texts import Texts
    from weightslab.engine.identity.uids import Columns

    Int64 = npt.NDArray[np.int64]
    Bits = npt.NDArray[np.uint8]
    Bools = npt.NDArray[np.bool_]

__all__ = ["Base", "State", "clear_bits", "has_bits", "rows_of", "set_bits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the digest of a set is made of; adding and taking away samples is arithmetic.

    Attributes:
        count: number of samples.
        sums: of both lanes, modulo 2^64.
        facets: name -> (count, sum, sum), sorted by name.
    """

    count: int = 0
    sums: tuple[int, int] = (0, 0)
    facets: tuple[tuple[str, tuple[int, int, int]], ...] = ()

    def plus(self, other: State, sign: int = 1) -> State:
        """Return the state with the samples of `other` added, or taken away with `sign=-1`."""
        more = dict(other.facets)
        return State(
            count=self.count + sign * other.count,
            sums=(
                (self.sums[0] + sign * other.sums[0]) & MASK,
                (self.sums[1] + sign * other.sums[1]) & MASK,
            ),
            facets=tuple(
                (name, (n + sign * k, (a + sign * x) & MASK, (b + sign * y) & MASK))
                for name, (n, a, b) in self.facets
                for k, x, y in [more.get(name, (0, 0, 0))]
            ),
        )

    @property
    def digest(self) -> str:
        """`wl1:sha256:...` of the component `data`."""
        facets: list[Any] = [[name, *map(str, numbers)] for name, numbers in self.facets]
        return component_digest("data", ["samples", str(self.count), *map(str, self.sums), facets])


@dataclass(frozen=True, eq=False)
class Base:
    """Samples in rows: those given as integers, as decimal text, as other text.

    Never changed, so any number of sets share it. Two bases are the same only if they are one object.

    Attributes:
        int64, decimal_text: int64, ascending.
        texts: all other UIDs.
        gone: one bit a row: known, but discarded when the base was made; None: no row.
        active: state of the others.
        known: state of all rows.
        facets: facet -> key -> value of the rows.
        ascends: the texts are known to be in the order of their bytes.
    """

    int64: Int64
    decimal_text: Int64
    texts: Texts
    gone: Bits | None
    active: State
    known: State
    facets: dict[str, Values] = field(default_factory=dict)
    ascends: bool = False
    _index: list[TextIndex] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        columns: Columns,
        *,
        known: State,
        active: State | None = None,
        gone: Bits | None = None,
        facets: dict[str, Values] | None = None,
    ) -> Base:
        """Make a base of columns; without `active` all rows are."""
        made = cls(
            columns.int64,
            columns.decimal_text,
            columns.texts,
            gone,
            active or known,
            known,
            facets or {},
            columns.ascends,
        )
        for array in (made.int64, made.decimal_text):
            array.flags.writeable = False
        if columns.index is not None:
            made._index.append(columns.index)
        return made

    def __len__(self) -> int:
        return self.int64.size + self.decimal_text.size + len(self.texts)

    def __deepcopy__(self, memo: dict[int, Any]) -> Base:
        return self

    def with_gone(self, gone: Bits | None, active: State) -> Base:
        """Return the same rows with other ones discarded; the index is shared."""
        return replace(self, gone=gone, active=active)

    def index(self) -> TextIndex:
        """Return the index of the texts; made on first use where reading did not need it."""
        if not self._index:
            with _INDEXING:
                if not self._index:
                    self._index.append(index_texts(self.texts, mix_texts(self.texts)[0])[0])
        return self._index[0]

    def find(self, wanted: Columns) -> Int64:
        """Return the row of each UID, -1 where it is not known; in the order of `keys_of`."""
        import numpy as np

        numbers = np.concatenate([wanted.int64, wanted.decimal_text])
        rows = np.full(len(wanted), -1, np.int64)
        part = rows[: numbers.size]
        for column, begin in ((self.int64, 0), (self.decimal_text, self.int64.size)):
            if column.size and numbers.size:
                at = np.minimum(column.searchsorted(numbers), column.size - 1)
                hit = column[at] == numbers
                part[hit] = begin + at[hit]
        if len(wanted.texts) and len(self.texts):
            found = self._find_texts(wanted)
            begin = self.int64.size + self.decimal_text.size
            rows[numbers.size :] = np.where(found < 0, -1, begin + found)
        return rows

    def find_one(self, uid: int | str) -> int:
        """Return the row of a UID, -1 if it is not known."""
        key = key_of(uid)
        if isinstance(key, bytes):
            row = self._find_text(key) if len(self.texts) else -1
            return row if row < 0 else self.int64.size + self.decimal_text.size + row
        for column, begin in ((self.int64, 0), (self.decimal_text, self.int64.size)):
            at = int(column.searchsorted(key))
            if at < column.size and int(column[at]) == key:
                return begin + at
        return -1

    def _find_texts(self, wanted: Columns) -> Int64:
        import numpy as np

        if self._is_searched(len(wanted.texts)):
            return np.array([self._find_text(text) for text in wanted.texts.to_list()], np.int64)
        return self.index().find(self.texts, wanted.texts, wanted.hashes)

    def _find_text(self, text: bytes) -> int:
        if not self._is_searched(1):
            return self.index().find_one(self.texts, text, mix_text(text)[0])
        row = bisect_left(self.texts, text)
        return row if row < len(self.texts) and self.texts[row] == text else -1

    def _is_searched(self, count: int) -> bool:
        """Say whether to search by halves: what was read from a file needs no index for a few texts."""
        return self.ascends and not self._index and count <= _FEW

    def pick(self, rows: Int64) -> tuple[Int64, Int64, Texts]:
        """Return the UIDs in `rows`, which ascend, in columns."""
        first = self.int64.size
        second = first + self.decimal_text.size
        a, b = rows.searchsorted((first, second)).tolist()
        return (
            self.int64[rows[:a]],
            self.decimal_text[rows[a:b] - first],
            self.texts.take(rows[b:] - second),
        )


# an index of ten million texts takes 0.5 s and 85 MB; a search 20 us
_FEW: Final = 4096
_INDEXING = threading.Lock()  # of a rare and short thing: one for all bases will do


def set_bits(bits: Bits, rows: Int64) -> None:
    """Set the bits of `rows`; O(number of rows)."""
    import numpy as np

    np.bitwise_or.at(bits, rows >> 3, (1 << (rows & 7)).astype(np.uint8))


def clear_bits(bits: Bits, rows: Int64) -> None:
    """Clear the bits of `rows`; O(number of rows)."""
    import numpy as np

    np.bitwise_and.at(bits, rows >> 3, ~(1 << (rows & 7)).astype(np.uint8))


def has_bits(bits: Bits | None, rows: Int64) -> Bools:
    """Say for each row whether its bit is set."""
    import numpy as np

    if bits is None or not bits.size:  # an empty base has no rows
        return np.zeros(rows.size, bool)
    set_: Bools = (bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 != 0
    return set_


def rows_of(bits: Bits | None) -> Int64:
    """Return the rows whose bits are set, ascending; one look at each byte."""
    import numpy as np

    if bits is None:
        return np.empty(0, np.int64)
    filled = np.flatnonzero(bits != 0)  # of bool: forty times faster than of uint8
    each = np.unpackbits(bits[filled], bitorder="little").reshape(-1, 8)
    at, bit = np.nonzero(each)
    rows: Int64 = filled[at] * 8 + bit
    return rows
