"""The order of the samples in an epoch: a pure function of seed, epoch and UID.

    K          = stir(stir(SALT, seed), epoch)             stir(word, key) = fmix[1](word ^ key)
    key(uid)   = stir(lane 0 of the mix of the UID, K)
    the order  = by key, as an unsigned number; equal keys: integers first, then texts by their bytes

The mix of a UID and fmix are those of docs/design/identity.md. A sample's key does not depend on the
other samples, so taking some out, or putting some in, leaves the order of the others as it is.
docs/design/data_order.md gives golden vectors.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from weightslab.engine.identity.facets import key_of
from weightslab.engine.identity.mix import (
    mix_int,
    mix_ints,
    mix_text,
    mix_texts,
    stir,
    stir_word,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.identity.texts import Texts

    Int64 = npt.NDArray[np.int64]
    Words = npt.NDArray[np.uint64]
    State = tuple[int, int, int]
    Spot = tuple[int, bool, int | bytes]

__all__ = ["ActiveRows", "Order", "epoch_key", "spot_of"]

# the first 64 bits of the fractional part of sqrt(5), as in SHA-512: chosen by nobody
SALT: Final = 0x3C6EF372FE94F82B


def epoch_key(seed: int, epoch: int) -> int:
    """Return K, which sets the order of one epoch apart from all others."""
    return stir_word(stir_word(SALT, seed), epoch)


def spot_of(uid: int | str, key: int | None) -> Spot:
    """Return what sorts as the samples of an epoch do; the definition of the order.

    Args:
        uid: a UID, an integer as itself or as decimal text.
        key: of the epoch; None: not shuffled, that is integers by value, then texts by their bytes.
    """
    known = key_of(uid)
    if isinstance(known, bytes):
        return (0 if key is None else stir_word(mix_text(known)[0], key)), True, known
    return (0 if key is None else stir_word(mix_int(known)[0], key)), False, known


@dataclass(frozen=True, eq=False)
class ActiveRows:
    """The active samples of a set as they were at one moment, in rows.

    Attributes:
        state: count and lane sums; equal for equal sets of UIDs.
        int64, decimal_text: int64 [n], [m].
        texts: all other UIDs.
    """

    state: State
    int64: Int64
    decimal_text: Int64
    texts: Texts
    _words: list[Words] = field(default_factory=list)

    @classmethod
    def of(cls, samples: SampleSet) -> ActiveRows:
        """Return what is active in `samples` now; O(n)."""
        overlay = samples.overlay()
        return cls((overlay.state.count, *overlay.state.sums), *overlay.active())

    def __len__(self) -> int:
        return self.state[0]

    def integers(self) -> Int64:
        """Return the integers of the first rows, however they were given."""
        if not self.decimal_text.size:
            return self.int64
        return np.concatenate([self.int64, self.decimal_text])

    def uid(self, row: int) -> int | str:
        """Return the UID of a row as it was given."""
        if row < self.int64.size:
            return int(self.int64[row])
        row -= self.int64.size
        if row < self.decimal_text.size:
            return str(int(self.decimal_text[row]))
        return self.texts[row - self.decimal_text.size].decode()

    def words(self) -> Words:
        """Return lane 0 of the mix of each row, uint64 [n]; computed once."""
        if not self._words:
            parts = [mix_ints(self.int64), mix_ints(self.decimal_text), mix_texts(self.texts)[0]]
            self._words.append(np.concatenate(parts))
        return self._words[0]

    def sorted_by(self, key: int | None) -> Int64:
        """Return the rows in the order of `spot_of`; 0.15 s for a million."""
        if key is None:
            num_integers = self.int64.size + self.decimal_text.size
            texts = self.texts.to_list()
            by_bytes = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
            return np.concatenate([np.argsort(self.integers()), num_integers + by_bytes])
        return self._shuffled(key)

    def _shuffled(self, key: int) -> Int64:
        """Sort keys whose low bits are replaced by the row: a fifth of the time of argsort.

        The few that are equal in the other bits are put in order by themselves.
        """
        bits = max(1, (len(self) - 1).bit_length())
        packed = stir(self.words(), key)
        packed >>= np.uint64(bits)
        packed <<= np.uint64(bits)
        packed |= np.arange(len(self), dtype=np.uint64)
        packed.sort()
        rows: Int64 = (packed & np.uint64((1 << bits) - 1)).view(np.int64)
        packed >>= np.uint64(bits)
        for at in np.flatnonzero(packed[1:] == packed[:-1]).tolist():
            end = int(packed.searchsorted(packed[at], "right"))
            rows[at:end] = sorted(
                rows[at:end].tolist(), key=lambda row: spot_of(self.uid(row), key)
            )
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Active samples in the order of one epoch.

    Attributes:
        active: the samples.
        key: of the epoch; None: not shuffled.
        rows: int64 [n], rows of `active`.
        indices: int64 [n], position in the data set of each row of `active`.
    """

    active: ActiveRows
    key: int | None
    rows: Int64
    indices: Int64

    def offset_after(self, uid: int | str) -> int:
        """Return how many samples stand up to the spot of `uid`, which need not be among them."""
        spot = spot_of(uid, self.key)
        return bisect_right(
            range(len(self.rows)),
            spot,
            key=lambda at: spot_of(self.active.uid(int(self.rows[at])), self.key),
        )
