"""The data as a component: a set of sample UIDs, its additive state and its digest.

State = (count, two sums modulo 2^64 of a 128-bit mix per UID): adding or removing k samples changes
it in O(k), and equals a rebuild. The digest is SHA-256 over the state and the facets.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError, IdentityError
from weightslab.engine.identity.canonical import component_digest
from weightslab.engine.identity.mix import MASK, sum_ints, sum_texts
from weightslab.engine.identity.uids import Columns, as_int64, read_uids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]

__all__ = ["SampleSet"]


class SampleSet:
    """An immutable set of sample UIDs.

    A canonical decimal text in the int64 range is the same sample as that integer; how it was
    given is kept for storage and iteration. Integers outside int64 are kept as their decimal text.
    Safe to share between threads.
    """

    __slots__ = ("_all_ints", "_columns", "_digest", "_sums")

    def __init__(self, columns: Columns) -> None:
        import numpy as np

        self._columns = columns
        if columns.decimal_text.size and columns.int64.size:
            joined = np.concatenate([columns.int64, columns.decimal_text])
            joined.sort()
        else:
            joined = columns.int64 if columns.int64.size else columns.decimal_text
        self._all_ints: Int64 = joined
        for array in (columns.int64, columns.decimal_text, joined):
            array.flags.writeable = False
        ints, texts = sum_ints(joined), sum_texts(columns.texts)
        self._sums = ((ints[0] + texts[0]) & MASK, (ints[1] + texts[1]) & MASK)
        self._digest = component_digest(
            "data", ["samples", str(len(self)), str(self._sums[0]), str(self._sums[1]), []]
        )

    @classmethod
    def from_uids(cls, uids: Any, *, discarded: Any = None) -> SampleSet:
        """Return the set of active UIDs: `uids` without `discarded`.

        Args:
            uids: list, tuple, set, generator, dict view, range, numpy array, pandas Index or
                Series, torch tensor of integers, texts, bytes (UTF-8) or integral floats;
                duplicates count once, order does not count.
            discarded: the same; UIDs that are not in `uids` are left out of account.
        Raises: IdentityError for None, NaN, bool and other objects, naming position and type, and
            for a collection that holds both 1 and "1".
        """
        whole = uids if isinstance(uids, SampleSet) else cls(read_uids(uids))
        if discarded is None:
            return whole
        gone = discarded if isinstance(discarded, SampleSet) else cls(read_uids(discarded))
        return cls(whole._without(gone)) if len(gone) else whole

    @classmethod
    def from_columns(
        cls, *, int64: Any = (), decimal_text: Any = (), texts: Sequence[bytes] = ()
    ) -> SampleSet:
        """Return the set that has these storage columns.

        Raises: FormatError if a column is not sorted and unique, or two hold the same sample.
        """
        import numpy as np

        columns = Columns(
            np.array(int64, dtype=np.int64), np.array(decimal_text, dtype=np.int64), list(texts)
        )
        for name, array in (("int64", columns.int64), ("decimal_text", columns.decimal_text)):
            if array.ndim != 1 or not bool((array[1:] > array[:-1]).all()):
                raise FormatError(f"the column {name} of a sample set is not sorted and unique")
        if any(a >= b for a, b in zip(columns.texts, columns.texts[1:], strict=False)):
            raise FormatError("the column texts of a sample set is not sorted and unique")
        if np.intersect1d(columns.int64, columns.decimal_text).size:
            raise FormatError("one sample is in two columns of a sample set")
        try:
            misplaced = [t for t in columns.texts if as_int64(t.decode("utf-8")) is not None]
        except UnicodeDecodeError as error:
            raise FormatError("the column texts of a sample set is not UTF-8") from error
        if misplaced:
            raise FormatError(f"{misplaced[0]!r} belongs to the column decimal_text")
        return cls(columns)

    @property
    def digest(self) -> str:
        """`wl1:sha256:...` of the set as the component `data`."""
        return self._digest

    @property
    def state(self) -> tuple[int, int, int]:
        """Count and both lane sums."""
        return len(self), *self._sums

    @property
    def int64(self) -> Int64:
        """UIDs given as integers, int64 [n], sorted, read-only."""
        return self._columns.int64

    @property
    def decimal_text(self) -> Int64:
        """UIDs given as canonical decimal text, int64 [n], sorted, read-only."""
        return self._columns.decimal_text

    @property
    def texts(self) -> list[bytes]:
        """All other UIDs in UTF-8, sorted; do not change the list."""
        return self._columns.texts

    def __len__(self) -> int:
        return self._all_ints.size + len(self._columns.texts)

    def __contains__(self, uid: object) -> bool:
        """Say whether the sample is in the set, in O(log n); what cannot be a UID is not."""
        try:
            one = read_uids([uid])
        except IdentityError:
            return False
        if one.texts:
            texts, wanted = self._columns.texts, one.texts[0]
            at = bisect_left(texts, wanted)
            return at < len(texts) and texts[at] == wanted
        number = (one.int64 if one.int64.size else one.decimal_text)[0]
        at = int(self._all_ints.searchsorted(number))
        return at < self._all_ints.size and bool(self._all_ints[at] == number)

    def __iter__(self) -> Iterator[int | str]:
        """Yield the UIDs as they were given: integers by value, then decimal text, then text."""
        yield from self._columns.int64.tolist()
        yield from map(str, self._columns.decimal_text.tolist())
        for text in self._columns.texts:
            yield text.decode("utf-8")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleSet) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"SampleSet({len(self)} samples, {self._digest[:18]}...)"

    def difference(self, other: SampleSet) -> tuple[SampleSet, SampleSet]:
        """Return what changes on the way from this set to `other`: (added, removed)."""
        return SampleSet(other._without(self)), SampleSet(self._without(other))

    def _without(self, gone: SampleSet) -> Columns:
        import numpy as np

        drop = gone._all_ints
        texts = self._columns.texts
        if gone._columns.texts:
            hidden = set(gone._columns.texts)
            texts = [text for text in texts if text not in hidden]
        return Columns(
            np.setdiff1d(self._columns.int64, drop, assume_unique=True),
            np.setdiff1d(self._columns.decimal_text, drop, assume_unique=True),
            list(texts),
        )
