"""Many texts in one buffer: UTF-8 bytes and where each begins; a tenth of what a list of str takes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

    Int64 = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]
    Bools = npt.NDArray[np.bool_]
    Bounds = npt.NDArray[np.uint32] | npt.NDArray[np.int64]

__all__ = ["PADDING", "Texts", "text_bounds"]

PADDING: Final = 8  # bytes behind the last text: a word read anywhere stays inside the buffer
_BLOCK: Final = 1 << 14
_WIDE: Final = 256  # longer texts are compared as Python bytes, not as rows of a matrix


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in UTF-8.

    Attributes:
        data: uint8, the texts one after the other, `gap` bytes between two, `PADDING` behind.
        bounds: uint32 or int64 [n + 1]; text i is `data[bounds[i] : bounds[i + 1] - gap]`.
        gap: 0, or 1 where a separator was left in.
    """

    data: Bytes
    bounds: Bounds
    gap: int = 0

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Put `texts` into one buffer."""
        import numpy as np

        items = texts if isinstance(texts, list) else list(texts)
        data = np.frombuffer(b"".join([*items, bytes(PADDING)]), np.uint8)
        return cls(data, text_bounds(np.fromiter(map(len, items), np.int64, len(items))))

    def __len__(self) -> int:
        return self.bounds.size - 1

    def __getitem__(self, row: int) -> bytes:
        return self.data[int(self.bounds[row]) : int(self.bounds[row + 1]) - self.gap].tobytes()

    def spans(self, low: int, high: int) -> tuple[Int64, Int64]:
        """Return where the texts of rows `low` to `high` begin, and their sizes in bytes, int64.

        For a block at a time: of ten million texts these are 160 MB.
        """
        import numpy as np

        bounds = self.bounds[low : high + 1].astype(np.int64)
        return bounds[:-1], np.diff(bounds) - self.gap

    def spans_of(self, rows: Int64) -> tuple[Int64, Int64]:
        """Return the same for any rows."""
        import numpy as np

        starts = self.bounds[rows].astype(np.int64)
        return starts, self.bounds[rows + 1].astype(np.int64) - starts - self.gap

    def to_list(self, low: int = 0, high: int | None = None) -> list[bytes]:
        """Return the texts from row `low` to `high` as bytes."""
        ends = self.bounds[low : (len(self) if high is None else min(high, len(self))) + 1].tolist()
        if len(ends) < 2:  # noqa: PLR2004 - two bounds make a text
            return []
        first, gap = ends[0], self.gap
        whole = self.data[first : ends[-1]].tobytes()
        return [whole[a - first : b - first - gap] for a, b in itertools.pairwise(ends)]

    def take(self, rows: Int64) -> Texts:
        """Return the texts of `rows`, in that order, in a buffer of their own."""
        import numpy as np

        _, lengths = self.spans_of(rows)
        bounds = text_bounds(lengths)
        data = np.empty(int(bounds[-1]) + PADDING, np.uint8)
        data[int(bounds[-1]) :] = 0
        for at in range(0, rows.size, _BLOCK):  # the index takes 8 bytes a byte: a block at a time
            size = lengths[at : at + _BLOCK]
            low, high = int(bounds[at]), int(bounds[at + size.size])
            begin = self.bounds[rows[at : at + _BLOCK]].astype(np.int64)
            shift = begin - bounds[at : at + size.size].astype(np.int64)
            data[low:high] = self.data[np.repeat(shift, size) + np.arange(low, high)]
        return Texts(data, bounds)

    @classmethod
    def join(cls, parts: list[Texts]) -> Texts:
        """Return the texts of all parts, in order, in one buffer."""
        import numpy as np

        parts = [part.packed() for part in parts if len(part)] or [cls.of([])]
        ends = np.cumsum([0, *(part.joined().size for part in parts)]).tolist()
        data = np.zeros(ends[-1] + PADDING, np.uint8)
        bounds = [np.zeros(1, np.int64)]
        for part, begin, end in zip(parts, ends, ends[1:], strict=False):
            data[begin:end] = part.joined()
            bounds.append(part.bounds[1:].astype(np.int64) - int(part.bounds[0]) + begin)
        whole = np.concatenate(bounds)
        return cls(data, whole.astype(np.uint32) if ends[-1] < 1 << 32 else whole)

    def packed(self) -> Texts:
        """Return the same texts without gaps."""
        import numpy as np

        return self.take(np.arange(len(self))) if self.gap else self

    def joined(self) -> Bytes:
        """Return the bytes of all texts, uint8 [size_bytes]; needs texts without gaps."""
        assert not self.gap, "the separators are no part of the texts"
        return self.data[int(self.bounds[0]) : int(self.bounds[-1])]

    def equal(self, rows: Int64, other: Texts, other_rows: Int64) -> Bools:
        """Say for each pair (row of this, row of `other`) whether the texts are the same."""
        import numpy as np

        (begin, size), (other_begin, other_size) = self.spans_of(rows), other.spans_of(other_rows)
        same: Bools = size == other_size
        for at in np.flatnonzero(same).tolist() if rows.size <= _SMALL else ():
            a, b, n = int(begin[at]), int(other_begin[at]), int(size[at])
            same[at] = bool((self.data[a : a + n] == other.data[b : b + n]).all())
        if rows.size > _SMALL:
            _compare(same, (self.data, begin), (other.data, other_begin), size)
        return same

    def is_ascending(self) -> bool:
        """Say whether the texts ascend strictly by their bytes; so none is there twice."""
        step = _BLOCK
        return all(
            self._block_ascends(at, min(at + step, len(self) - 1))
            for at in range(0, len(self) - 1, step)
        )

    def _block_ascends(self, low: int, high: int) -> bool:
        matrix = self._matrix(low, high + 1)
        if matrix is not None:
            return bool((matrix[1:] > matrix[:-1]).all())
        items = self.to_list(low, high + 1)
        return all(a < b for a, b in itertools.pairwise(items))

    def ascending(self) -> Texts:
        """Return the texts in the order of their bytes, without gaps; O(n log n) if they are not."""
        import numpy as np

        if self.is_ascending():
            return self.packed()
        matrix = self._matrix(0, len(self))
        if matrix is not None:
            return self.take(np.argsort(matrix, kind="stable"))
        items = self.to_list()
        return self.take(np.array(sorted(range(len(items)), key=items.__getitem__), np.int64))

    def _matrix(self, low: int, high: int) -> npt.NDArray[np.bytes_] | None:
        """Return rows `low` to `high` as fixed-width byte strings, which numpy compares quickly.

        None where that would be large, or where a text ends with NUL, which numpy does not see.
        """
        import numpy as np

        begin, size = self.spans(low, high)
        width = int(size.max(initial=0))
        if not 0 < width <= _WIDE or bool((self.data[begin + size - 1][size > 0] == 0).any()):
            return None
        out = np.empty((high - low, width), np.uint8)
        columns = np.arange(width)
        for at in range(0, high - low, _BLOCK):
            n = size[at : at + _BLOCK, None]
            where = np.minimum(begin[at : at + _BLOCK, None] + columns, self.data.size - 1)
            out[at : at + _BLOCK] = np.where(columns < n, self.data[where], 0)
        return out.view(f"S{width}").reshape(-1)


_SMALL: Final = 8  # pairs: fewer are compared one by one


def text_bounds(lengths: Int64) -> Bounds:
    """Return the bounds of texts of these lengths; 32 bits each where they suffice."""
    import numpy as np

    small = int(lengths.sum()) < 1 << 32
    bounds = np.zeros(lengths.size + 1, np.uint32 if small else np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def _compare(
    same: Bools, left: tuple[Bytes, Int64], right: tuple[Bytes, Int64], size: Int64
) -> None:
    """Clear `same` where the bytes of a pair of equal size differ; a word of each at a time."""
    import numpy as np

    rows = np.flatnonzero(same & (size > 0))
    a, b = (np.ndarray((d.size - 7,), "<u8", d, 0, (1,)) for d, _ in (left, right))
    masks = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
    k = 0
    while rows.size:
        rest = size[rows] - k
        differ = a[left[1][rows] + k] ^ b[right[1][rows] + k]
        wrong = (differ & masks[np.minimum(rest, 8)]) != 0
        same[rows[wrong]] = False
        rows = rows[~wrong & (rest > PADDING)]
        k += 8
