"""Finding a text among millions: tables of rows by hash, made and asked in whole arrays.

A row that finds its place taken goes on to the next, smaller table. A hit counts only if the bytes
are the same, so membership and repetitions are exact, whatever the hash does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from weightslab.engine.identity.repetitions import slot_of, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from weightslab.engine.identity.texts import Texts

    Int64 = npt.NDArray[np.int64]
    Words = npt.NDArray[np.uint64]
    Rows = npt.NDArray[np.int32] | npt.NDArray[np.int64]

__all__ = ["TextIndex", "index_texts"]

_TABLES: Final = 24  # each takes at least a third; only texts of one hash reach the last
_FEW: Final = 256  # texts for which a dict is quicker than a table
_BLOCK: Final = 1 << 14


@dataclass(slots=True)
class TextIndex:
    """Rows of texts by the first lane of their mix.

    Attributes:
        tables: int32 or int64 [2^k] each, -1 where nothing is.
        rest: what no table took: text -> row.
    """

    tables: list[Rows] = field(default_factory=list)
    rest: dict[bytes, int] = field(default_factory=dict)

    def find(self, texts: Texts, wanted: Texts, hashes: Words) -> Int64:
        """Return the row in `texts`, which are indexed, of each of `wanted`; -1 if it is not there.

        Args:
            texts: what the index was made of.
            wanted: m texts.
            hashes: uint64 [m], lane 0 of each.
        """
        import numpy as np

        found = np.full(len(wanted), -1, np.int64)
        asking = np.arange(len(wanted))
        for number, table in enumerate(self.tables):
            rows = table[slots_of(hashes[asking], number, table.size)].astype(np.int64)
            asking, rows = asking[rows >= 0], rows[rows >= 0]  # an empty place: nowhere else either
            hit = texts.equal(rows, wanted, asking)
            found[asking[hit]] = rows[hit]
            asking = asking[~hit]
            if not asking.size:
                return found
        for at in asking.tolist():
            found[at] = self.rest.get(wanted[at], -1)
        return found

    def find_one(self, texts: Texts, wanted: bytes, hashed: int) -> int:
        """Return the row of one text, -1 if it is not there."""
        for number, table in enumerate(self.tables):
            row = int(table[slot_of(hashed, number, table.size)])
            if row < 0 or texts[row] == wanted:
                return row
        return self.rest.get(wanted, -1)

    def renumber(self, new_rows: Int64) -> None:
        """Replace each row by `new_rows[row]`."""
        for table in self.tables:
            used = table >= 0
            table[used] = new_rows[table[used]]
        self.rest = {text: int(new_rows[row]) for text, row in self.rest.items()}


def index_texts(texts: Texts, hashes: Words) -> tuple[TextIndex, Int64]:
    """Index texts, and find those that are repeated.

    Args:
        texts: n texts.
        hashes: uint64 [n], lane 0 of each.
    Returns: the index, and the rows of repetitions, which are not in it; sorted.
    """
    import numpy as np

    index, repeated = TextIndex(), [np.empty(0, np.int64)]
    kind = np.int32 if len(texts) < 1 << 31 else np.int64
    rows: Rows = np.arange(len(texts), dtype=kind)
    while rows.size > _FEW and len(index.tables) < _TABLES:
        lost = _fill(index, rows, hashes)
        number, table = len(index.tables) - 1, index.tables[-1]
        winners = table[slots_of(hashes[lost], number, table.size)]
        alike = np.flatnonzero(hashes[lost] == hashes[winners])
        pairs = lost[alike].astype(np.int64), winners[alike].astype(np.int64)
        same = texts.equal(pairs[0], texts, pairs[1])
        repeated.append(pairs[0][same])
        left = np.ones(lost.size, bool)
        left[alike[same]] = False
        rows = lost[left]
    few = rows.tolist()
    known = texts.to_list() if len(few) == len(texts) else [texts[row] for row in few]
    for row, text in zip(few, known, strict=True):
        if index.rest.setdefault(text, row) != row:
            repeated.append(np.array([row]))
    return index, np.sort(np.concatenate(repeated))


def _fill(index: TextIndex, rows: Rows, hashes: Words) -> Rows:
    """Add a table that holds as many of `rows` as find a place; return the others."""
    import numpy as np

    table = np.full(1 << (rows.size - 1).bit_length(), -1, rows.dtype)
    number, whole = len(index.tables), rows.size == hashes.size
    index.tables.append(table)

    def blocks() -> Iterator[tuple[Rows, Int64]]:
        for at in range(0, rows.size, _BLOCK):
            end = at + _BLOCK
            own = hashes[at:end] if whole else hashes[rows[at:end]]
            yield rows[at:end], slots_of(own, number, table.size)

    for part, slots in blocks():
        table[slots] = part
    losers = [  # no slot lies outside: `wrap` only spares the look
        np.compress(table.take(slots, mode="wrap") != part, part) for part, slots in blocks()
    ]
    return np.concatenate(losers)
