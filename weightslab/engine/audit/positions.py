"""Which samples a recorded sampler position proves to have been drawn, without torch.

Between two checkpoints of one set, the order of an epoch is a pure function of seed, epoch and UID, and
the samples behind the first place and up to the second one were drawn. That is claimed only where all
that is recorded fits together: see `docs/design/lineage.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from weightslab.engine.identity.mix import stir
from weightslab.engine.training.order import ActiveRows, epoch_key, spot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.training.order import Spot

__all__ = ["Place", "Segment", "place_of"]

_COUNTS: Final = (
    "seed",
    "num_samples",
    "batch_size",
    "num_replicas",
    "epoch",
    "position",
    "samples_seen",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A recorded sampler state: how far the loop was, in which order of which set."""

    seed: int
    shuffle: bool
    samples: str
    num_samples: int
    global_batch: int
    epoch: int
    after: int | str | None
    position: int
    samples_seen: int


def place_of(state: dict[str, Any]) -> Place | None:
    """Read a recorded sampler state; None for what is none, or of a later version."""
    counts = [state.get(name) for name in _COUNTS]
    is_whole = all(type(count) is int and 0 <= count < 1 << 64 for count in counts)
    after, samples, shuffle = state.get("after"), state.get("samples"), state.get("shuffle")
    if state.get("version") != 1 or not is_whole or type(shuffle) is not bool:
        return None
    if type(after) not in (int, str, type(None)) or type(samples) is not str:
        return None
    if (after is None) != (state["position"] == 0) or not _can_be_uid(after):
        return None
    return Place(
        seed=state["seed"],
        shuffle=shuffle,
        samples=samples,
        num_samples=state["num_samples"],
        global_batch=state["batch_size"] * state["num_replicas"],
        epoch=state["epoch"],
        after=after,
        position=state["position"],
        samples_seen=state["samples_seen"],
    )


def _can_be_uid(after: int | str | None) -> bool:
    if isinstance(after, int):
        return -(1 << 63) <= after < 1 << 63
    try:
        return after is None or after.encode() is not None
    except UnicodeEncodeError:
        return False


class Segment:
    """What was drawn between two places of one training, in the order of one set.

    Args:
        start: the place at the parent; None: a new model, with a sampler that had drawn nothing.
        end: the place at the checkpoint.
        num_steps: optimizer steps in between.
    """

    def __init__(self, start: Place | None, end: Place, num_steps: int) -> None:
        self._end = end
        if start is None:
            # a loop may begin with any epoch; nothing was drawn before what `samples_seen` counts
            epoch = end.epoch if end.samples_seen == end.position else 0
            start = _beginning(end, epoch)
        self._start = start
        self._per_epoch = self._drawn_per_epoch(num_steps)
        self._is_ranked: bool | None = None

    @property
    def is_consistent(self) -> bool:
        """All that is recorded fits together: one set, one order, as many samples as places passed, and
        no more than the steps can have used.
        """
        return self._per_epoch is not None

    def _drawn_per_epoch(self, num_steps: int) -> int | None:
        """Return how many samples each whole epoch used; None if something does not fit."""
        start, end, count = self._start, self._end, self._end.num_samples
        same = (start.seed, start.shuffle, start.samples, start.num_samples, start.global_batch)
        if same != (end.seed, end.shuffle, end.samples, count, end.global_batch):
            return None
        drawn = end.samples_seen - start.samples_seen
        if not 0 < drawn <= num_steps * end.global_batch:
            return None
        if end.epoch == start.epoch:
            return count if end.position - start.position == drawn else None
        between = end.epoch - start.epoch - 1
        for used in (count, count - count % end.global_batch):  # the last batch kept, or dropped
            if between >= 0 and used - start.position + between * used + end.position == drawn:
                return used
        return None

    def proves(self, uid: int | str, active: Callable[[], ActiveRows]) -> bool:
        """Tell whether a sample of the set was drawn.

        Args:
            uid: a sample that is in the set.
            active: returns the set; called only where the places alone do not refuse.
        """
        if self._per_epoch is None:
            return False
        start, end = self._start, self._end
        for epoch in self._epochs():
            spot, key = spot_of(uid, self._key(epoch)), self._key(epoch)
            low = start.after if epoch == start.epoch else None
            high = end.after if epoch == end.epoch else None
            if low is not None and spot <= spot_of(low, key):
                continue
            if epoch == end.epoch and (high is None or spot > spot_of(high, key)):
                continue
            if not self._fits(active()):
                return False
            if self._is_used(epoch, spot, active()):
                return True
        return False

    def _epochs(self) -> list[int]:
        """Return epochs that may hold a sample; of many whole ones the first two are as good as all."""
        first, last = self._start.epoch, self._end.epoch
        return sorted({first, *range(first + 1, min(last, first + 3)), last})

    def _key(self, epoch: int) -> int | None:
        return epoch_key(self._end.seed, epoch) if self._end.shuffle else None

    def _fits(self, active: ActiveRows) -> bool:
        """Tell whether the recorded positions are the ranks of the recorded samples in the set: else
        some were not active when their turn came.
        """
        if self._is_ranked is None:
            places = (place for place in (self._start, self._end) if place.after is not None)
            self._is_ranked = len(active) == self._end.num_samples and all(
                rank_of(active, spot_of(_uid_of(place), key), key) == place.position
                for place in places
                for key in [self._key(place.epoch)]
            )
        return self._is_ranked

    def _is_used(self, epoch: int, spot: Spot, active: ActiveRows) -> bool:
        """Tell whether the sample is not among those that were left out at the end of an epoch."""
        if epoch == self._end.epoch or self._per_epoch == self._end.num_samples:
            return True
        assert self._per_epoch is not None, "only what is consistent is asked"
        return rank_of(active, spot, self._key(epoch)) <= self._per_epoch


def _uid_of(place: Place) -> int | str:
    assert place.after is not None, "only a place behind a sample has a rank"
    return place.after


def _beginning(end: Place, epoch: int) -> Place:
    return Place(
        seed=end.seed,
        shuffle=end.shuffle,
        samples=end.samples,
        num_samples=end.num_samples,
        global_batch=end.global_batch,
        epoch=epoch,
        after=None,
        position=0,
        samples_seen=0,
    )


def rank_of(active: ActiveRows, spot: Spot, key: int | None) -> int:
    """Return how many samples stand up to a spot in the order of an epoch; O(n), 10 ms a million."""
    if key is None:
        known = spot[2]
        integers = active.integers()
        if isinstance(known, int):
            return int((integers <= known).sum())
        return integers.size + sum(text <= known for text in active.texts.to_list())
    keys = stir(active.words(), key)
    at = np.uint64(spot[0])
    count = int((keys < at).sum())
    equal = np.flatnonzero(keys == at).tolist()
    return count + sum(spot_of(active.uid(row), key) <= spot for row in equal)
