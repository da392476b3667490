"""Where a sampler is in its samples, and the batches that come next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightslab.engine.training.order import ActiveRows, Order, epoch_key

if TYPE_CHECKING:
    import numpy.typing as npt

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.training.dataset_index import DatasetIndex

    Int64 = npt.NDArray[np.int64]

__all__ = ["Batch", "Course", "Place", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far training has come; never changed, only replaced.

    Attributes:
        epoch: the epoch of the last batch, or of the next one where `after` is None.
        after: UID of the last sample used in this epoch, of all ranks; None: none yet.
        position: number of samples used in this epoch, by all ranks.
        samples_seen: the same over all epochs.
    """

    epoch: int = 0
    after: int | str | None = None
    position: int = 0
    samples_seen: int = 0

    def begin(self, epoch: int) -> Place:
        """Return the place before the first sample of an epoch."""
        return Place(epoch=epoch, samples_seen=self.samples_seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How samples are ordered, cut into batches and shared out; all that is not a place.

    Attributes:
        seed: of the order; 64 bits.
        shuffle: False: in the order of the UIDs, every epoch.
        batch_size: samples of one batch of one rank.
        drop_last: leave out the samples that make no whole batch for every rank.
        num_replicas, rank: number of ranks, and which one this is.
    """

    seed: int
    shuffle: bool
    batch_size: int
    drop_last: bool
    num_replicas: int
    rank: int

    @property
    def global_batch(self) -> int:
        """Samples that all ranks together use in one step."""
        return self.batch_size * self.num_replicas

    def needed(self) -> int:
        """Return how many samples a next batch takes at the least."""
        return self.global_batch if self.drop_last else 1

    def share(self, rows: Int64) -> Int64:
        """Return this rank's part of a global batch.

        All ranks get equally many: the last batch of an epoch is filled up with its own first samples.
        """
        if spare := -len(rows) % self.num_replicas:
            rows = np.resize(rows, len(rows) + spare)  # repeats from the beginning
        return rows[self.rank :: self.num_replicas]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that was drawn.

    Attributes:
        order: what it was drawn from.
        start, end: the global batch in `order`.
        rows: this rank's part.
    """

    order: Order
    start: int
    end: int
    rows: Int64

    def indices(self) -> list[int]:
        """Return the positions in the data set."""
        found: list[int] = self.order.indices[self.rows].tolist()
        return found

    def uids(self) -> tuple[int | str, ...]:
        """Return the UIDs."""
        return tuple(self.order.active.uid(row) for row in self.rows.tolist())


class Course:
    """A plan, the samples it is for, and the place that was reached.

    Which samples come next follows from the place and the samples that are active now, and from
    nothing else: so a restored place goes on as the original would have.
    """

    def __init__(self, samples: SampleSet, plan: Plan, index: DatasetIndex) -> None:
        self.samples = samples
        self.plan = plan
        self.place = Place()
        self.last: Batch | None = None
        self._index = index
        self._active: ActiveRows | None = None
        self._indices: Int64 = np.empty(0, np.int64)
        self._order: tuple[int, Order] | None = None
        self._offset: tuple[Order, int | str, int] | None = None

    # ------------------------------------------------------------ the order
    def order(self) -> Order:
        """Return the order of the samples that are active now, in the epoch of the place.

        O(n log n) after the epoch or the samples changed: 0.15 s for a million.
        """
        active, epoch = self.active(), self.place.epoch
        if self._order is None or self._order[0] != epoch or self._order[1].active is not active:
            self._order = epoch, self._made(active, epoch)
        return self._order[1]

    def active(self) -> ActiveRows:
        """Return the samples that are active now; O(n) after they changed.

        Raises: ValueError for a sample that has no place in the data set.
        """
        if self._active is None or self._active.state != self.samples.state:
            active = ActiveRows.of(self.samples)
            self._indices = self._index.find(active)
            self._active = active
        return self._active

    def _made(self, active: ActiveRows, epoch: int) -> Order:
        if self.plan.shuffle:
            key = epoch_key(self.plan.seed, epoch)
            return Order(active, key, active.sorted_by(key), self._indices)
        if self._order is not None and self._order[1].active is active:
            return self._order[1]  # every epoch has this order
        return Order(active, None, active.sorted_by(None), self._indices)

    def offset(self) -> int:
        """Return where in `order()` the next sample stands."""
        after = self.place.after
        if after is None:
            return 0
        order = self.order()
        if self._offset is None or self._offset[0] is not order or self._offset[1] != after:
            self._offset = order, after, order.offset_after(after)
        return self._offset[2]

    def is_of_now(self, order: Order) -> bool:
        """Tell whether no sample was taken out or put in since `order` was made."""
        return order.active.state == self.samples.state

    # ------------------------------------------------------------ the place
    def at(self) -> tuple[int, int]:
        """Return epoch and position of what comes next: after the end of an epoch, the next at 0."""
        place = self.place
        return (place.epoch + 1, 0) if self._is_over() else (place.epoch, place.position)

    def _is_over(self) -> bool:
        if self.place.after is None:
            return False
        return len(self.order().rows) - self.offset() < self.plan.needed()

    def begin(self) -> None:
        """Go on to the next epoch if this one is over.

        Raises: ValueError if an epoch of the active samples has no batch.
        """
        count, needed = len(self.samples), self.plan.needed()
        if self._is_over():
            self.place = self.place.begin(self.place.epoch + 1)
        if self.place.after is None and count < needed:
            whole = f"; a whole batch of all ranks takes {needed}" if self.plan.drop_last else ""
            raise ValueError(f"an epoch of {count} active samples has no batch{whole}")

    # ------------------------------------------------------------ batches
    def draw(self, order: Order, start: int) -> Batch | None:
        """Return the batch from `start` on, or None at the end of the epoch; the place stays."""
        rows = order.rows[start : start + self.plan.global_batch]
        if len(rows) < self.plan.needed():
            return None
        return Batch(order, start, start + len(rows), self.plan.share(rows))

    def use(self, batch: Batch) -> bool:
        """Move the place behind a batch; returns True if the epoch ends with it."""
        size, order = batch.end - batch.start, batch.order
        after = order.active.uid(int(order.rows[batch.end - 1]))
        self.last = batch
        self.place = Place(
            epoch=self.place.epoch,
            after=after,
            position=self.place.position + size,
            samples_seen=self.place.samples_seen + size,
        )
        self._offset = order, after, batch.end
        is_end = len(order.rows) - batch.end < self.plan.needed()
        if is_end:
            self.place = self.place.begin(self.place.epoch + 1)
        return is_end
