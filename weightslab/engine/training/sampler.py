"""A batch sampler that knows which samples training has used, and goes on after them.

docs/design/data_order.md says what is exact, and why.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import StateMismatchError, UnsupportedVersionError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.training.course import Batch, Course, Place, Plan
from weightslab.engine.training.dataset_index import UidIsIndex, index_of
from weightslab.engine.training.torch_loaders import follow, refuse_hidden_workers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from weightslab.engine.training.order import Order

__all__ = ["Batches", "ResumableSampler"]

_VERSION: Final = 1
_MAY_DIFFER: Final = ("num_replicas", "samples")
_FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    "version": (int,),
    "seed": (int,),
    "shuffle": (bool,),
    "samples": (str,),
    "num_samples": (int,),
    "batch_size": (int,),
    "num_replicas": (int,),
    "epoch": (int,),
    "position": (int,),
    "samples_seen": (int,),
    "after": (int, str, type(None)),
}


class ResumableSampler:
    """Batches of a data set in an order that can be resumed at any moment.

    sampler = ResumableSampler(samples, batch_size=32, seed=0)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2)
    for epoch in range(sampler.epoch, 10):
        for batch in loader:
            ...

    Each loop over the loader is what is left of an epoch; the loop after it is the next epoch. The
    place is that of the loop: a batch counts as used when the loader hands it over, whatever workers
    fetched ahead. Samples that are discarded, restored or added count from the next batch on.

    One loop at a time; the loop and `state_dict` in one thread. `samples` may be changed by others.

    Args:
        samples: the active samples: a `SampleSet`, which is watched; any collection of UIDs; or the
            number of samples n, for UIDs 0 to n - 1.
        batch_size: samples in a batch, of each rank; may differ at resume.
        seed: of the order, 0 to 2^64 - 1.
        shuffle: False: integers by value, then texts by their bytes, in every epoch.
        drop_last: leave out the last samples of an epoch that make no whole batch for every rank.
        dataset_uids: `dataset[i]` is the sample `dataset_uids[i]`; None: `dataset[uid]`.
        num_replicas, rank: of the ranks that share the samples; None: those of torch.distributed if
            it is initialised, else one rank.
        accept: what may differ from a saved state: `samples` (go on with those that are here),
            `num_replicas` (go on with another number of samples a step).
    Raises: ValueError, TypeError for arguments that make no sense; IdentityError for what cannot be
        a UID.
    """

    def __init__(  # noqa: PLR0913 - each is one word of a data loader's own
        self,
        samples: Any,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        dataset_uids: Any = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        accept: Collection[str] = (),
    ) -> None:
        replicas, own = _ranks(num_replicas, rank)
        _check_whole("batch_size", batch_size, 1, 1 << 32)
        _check_whole("seed", seed, 0, 1 << 64)
        if unknown := sorted(set(accept) - set(_MAY_DIFFER)):
            raise ValueError(f"accept has {unknown[0]!r}; it may name {', '.join(_MAY_DIFFER)}")
        plan = Plan(
            seed=int(seed),
            shuffle=bool(shuffle),
            batch_size=int(batch_size),
            drop_last=bool(drop_last),
            num_replicas=replicas,
            rank=own,
        )
        index = UidIsIndex() if dataset_uids is None else index_of(dataset_uids)
        self._course = Course(_samples_of(samples), plan, index)
        self._course.active()  # a sample without a place in the data set is told here
        self._accept = frozenset(accept)
        self._batches: Batches | None = None

    # ------------------------------------------------------------ where we are
    @property
    def epoch(self) -> int:
        """The epoch of the next batch; with the last batch of an epoch it is the next one."""
        return self._course.at()[0]

    @property
    def position(self) -> int:
        """Samples used in `epoch`, by all ranks; each counts once, also where it fills up a batch."""
        return self._course.at()[1]

    @property
    def samples_seen(self) -> int:
        """Samples used in all epochs, by all ranks."""
        return self._course.place.samples_seen

    @property
    def last_batch_uids(self) -> tuple[int | str, ...]:
        """UIDs of the batch that this rank got last; empty before the first one since a load."""
        last = self._course.last
        return () if last is None else last.uids()

    @property
    def last_batch(self) -> Batch | None:
        """The batch that this rank got last, which tells its UIDs later, too; None before the first."""
        return self._course.last

    @property
    def samples(self) -> SampleSet:
        """The samples; discarding from it here or there is the same."""
        return self._course.samples

    @property
    def plan(self) -> Plan:
        """`seed`, `shuffle`, `batch_size`, `drop_last`, `num_replicas`, `rank`."""
        return self._course.plan

    @property
    def batch_size(self) -> int:
        """Samples in a batch of one rank; other libraries ask for it."""
        return self._course.plan.batch_size

    @property
    def drop_last(self) -> bool:
        """True if samples that make no whole batch are left out; other libraries ask for it."""
        return self._course.plan.drop_last

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch of the samples that are active now."""
        plan, count = self._course.plan, len(self._course.samples)
        spare = 0 if plan.drop_last else plan.global_batch - 1
        return (count + spare) // plan.global_batch

    def __repr__(self) -> str:
        epoch, position = self._course.at()
        return f"ResumableSampler({len(self.samples)} samples, epoch {epoch}, position {position})"

    # ------------------------------------------------------------ going on
    def __iter__(self) -> Iterator[list[int]]:
        """Begin a loop over what is left of the epoch, or over the next one if nothing is left.

        Yields positions in the data set. Nothing changes before the first batch is drawn.
        """
        made = self._batches = Batches(self)
        follow(made, sys._getframe(1), continues=self._course.at()[1] > 0)
        return made

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch, unless it is the present one; never needed.

        For loops that call it before each epoch: in the middle of `epoch` it changes nothing.
        """
        _check_whole("epoch", epoch, 0, 1 << 63)
        if epoch != self.epoch:
            self._go_to(self._course.place.begin(int(epoch)))

    def discard(self, uids: Any) -> None:
        """Take samples out, from the next batch on; as `SampleSet.discard`.

        The order of the others stays. What was used stays used.
        """
        self.samples.discard(uids)

    def restore(self, uids: Any) -> None:
        """Bring discarded samples back, from the next batch on; as `SampleSet.restore`.

        Those whose turn in this epoch has passed come in the next epoch.
        """
        self.samples.restore(uids)

    def add(self, uids: Any) -> None:
        """Put in new samples; as `SampleSet.add` and, in the epoch, as `restore`."""
        self.samples.add(uids)

    def _go_to(self, place: Place) -> None:
        self._course.place, self._course.last, self._batches = place, None, None

    # ------------------------------------------------------------ saving
    def state_dict(self) -> dict[str, Any]:
        """Return where the loop is, in integers and texts; a few microseconds."""
        plan, place = self._course.plan, self._course.place
        return {
            "version": _VERSION,
            "seed": plan.seed,
            "shuffle": plan.shuffle,
            "samples": _text_of(self.samples),
            "num_samples": len(self.samples),
            "batch_size": plan.batch_size,
            "num_replicas": plan.num_replicas,
            "epoch": place.epoch,
            "position": place.position,
            "samples_seen": place.samples_seen,
            "after": place.after,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where the loop was when `state` was taken; begin a new loop after it.

        `batch_size`, `drop_last` and the number of workers may differ. Another number of ranks may do
        the same number of samples in a step together.

        Raises: StateMismatchError naming what differs; nothing is changed then.
        """
        self.check_state_dict(state)
        names = ("epoch", "after", "position", "samples_seen")
        self._go_to(Place(**{name: state[name] for name in names}))

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise unless `load_state_dict` would take the state; nothing is changed.

        Raises: StateMismatchError naming what differs.
        """
        _check_form(state)
        differing = {
            name: f"{there} -> {here}"
            for name, (there, here) in self._compared(state).items()
            if there != here
        }
        if differing:
            told = ", ".join(f"{name} ({change})" for name, change in differing.items())
            raise StateMismatchError(
                f"the checkpoint has another order of samples: {told}; nothing was changed",
                shape_changes=differing,
                hint=_HINTS.get(next(iter(differing)), "make the sampler as it was"),
            )

    def _compared(self, state: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return what has to be equal: name -> (saved, here)."""
        plan = self._course.plan
        pairs: dict[str, tuple[Any, Any]] = {
            name: (state[name], getattr(plan, name)) for name in ("seed", "shuffle")
        }
        if "samples" not in self._accept:
            here = _text_of(self.samples)
            pairs["number of samples"] = state["num_samples"], len(self.samples)
            pairs["samples"] = state["samples"], here
            if pairs["number of samples"][0] != pairs["number of samples"][1]:
                del pairs["samples"]  # said already
        step = state["batch_size"] * state["num_replicas"]
        if "num_replicas" not in self._accept and step != plan.global_batch:
            pairs["num_replicas"] = state["num_replicas"], plan.num_replicas
        return pairs


_HINTS: Final[Mapping[str, str]] = {
    "number of samples": "give the sampler the samples of the checkpoint,"
    " or accept=('samples',) to go on with those that are here",
    "samples": "give the sampler the samples of the checkpoint,"
    " or accept=('samples',) to go on with those that are here",
    "num_replicas": "choose batch_size so that all ranks together take as many samples in a step,"
    " or pass accept=('num_replicas',)",
}


class Batches:
    """One loop over a sampler: draws batches, and is told which of them were handed over.

    Attributes:
        begins: the first draw may go on to the next epoch.
        is_followed: `hand_over` is called; else a batch that is drawn counts as handed over.
        is_finished: the epoch ended with a batch that was handed over.
    """

    def __init__(self, sampler: ResumableSampler) -> None:
        self.begins = True
        self.is_followed = False
        self.is_finished = False
        self._sampler = sampler
        self._course = sampler._course
        self._drawn: deque[Batch] = deque()
        self._num_left = 0
        self._order: Order | None = None
        self._next = 0

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> list[int]:
        """Draw a batch."""
        self.require_current()
        if self.is_finished:
            raise StopIteration
        order = self._order_now()
        batch = self._course.draw(order, self._next)
        if batch is None:
            raise StopIteration
        self._next = batch.end
        self._drawn.append(batch)
        if not self.is_followed:
            self.hand_over()
        return batch.indices()

    def _order_now(self) -> Order:
        course = self._course
        if self._order is None:
            if not self.is_followed:
                refuse_hidden_workers(sys._getframe(2))
            if self.begins:
                course.begin()
            self._order, self._next = course.order(), course.offset()
        elif not self._drawn and not course.is_of_now(self._order):
            self._order, self._next = course.order(), course.offset()
        return self._order

    def require_current(self) -> None:
        """Refuse to go on after the place was set, or another loop was begun.

        Raises: RuntimeError.
        """
        if self._sampler._batches is not self:
            raise RuntimeError(
                "this loop is over: the sampler was set to another place, or another loop over it was"
                " begun; begin a new loop"
            )

    def is_outdated(self) -> bool:
        """Tell whether batches were drawn ahead from samples that have changed since."""
        if self.is_finished or self._order is None:
            return False
        return not self._course.is_of_now(self._order)

    def hand_over(self, num_left: int | None = None) -> None:
        """Count a batch as used.

        Args:
            num_left: how many batches have left the loader so far; the last one was handed over, those
                before it that were not failed to load. None: all that were drawn.
        """
        count = len(self._drawn) if num_left is None else num_left - self._num_left
        self._num_left += count
        batch = None
        for _ in range(count):
            batch = self._drawn.popleft()
        assert batch is not None, "a loader hands over what was drawn"
        self.is_finished = self._course.use(batch)


# ---------------------------------------------------------------- arguments and states
def _samples_of(samples: Any) -> SampleSet:
    if isinstance(samples, SampleSet):
        return samples
    if isinstance(samples, int) and not isinstance(samples, bool):
        _check_whole("the number of samples", samples, 0, 1 << 48)
        return SampleSet.from_uids(range(samples))
    return SampleSet.from_uids(samples)


def _ranks(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    if (num_replicas is None) != (rank is None):
        raise ValueError("pass both num_replicas and rank, or neither")
    if num_replicas is None or rank is None:
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            return 1, 0
        return dist.get_world_size(), dist.get_rank()
    _check_whole("num_replicas", num_replicas, 1, 1 << 32)
    _check_whole("rank", rank, 0, num_replicas)
    return int(num_replicas), int(rank)


def _check_whole(name: str, value: Any, low: int, end: int) -> None:
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise TypeError(f"{name} is a {type(value).__name__}, not a whole number")
    if not low <= value < end:
        raise ValueError(f"{name} is {value}; it has to be {low} to {end - 1}")


def _text_of(samples: SampleSet) -> str:
    """Return what tells sets of UIDs apart: count and lane sums; tags and labels do not order."""
    count, first, second = samples.state
    return f"{count}:{first:016x}{second:016x}"


def _check_form(state: Mapping[str, Any]) -> None:
    version = state.get("version") if hasattr(state, "get") else None
    if type(version) is int and version > _VERSION:
        raise UnsupportedVersionError(
            f"the state of the sampler has version {version}, this program knows {_VERSION}",
            hint="upgrade weightslab",
        )
    if version != _VERSION or set(state) != set(_FIELDS):
        raise StateMismatchError("the saved state is not that of a ResumableSampler")
    for name, kinds in _FIELDS.items():
        value = state[name]
        if type(value) not in kinds or (type(value) is int and value < 0 and name != "after"):
            raise StateMismatchError(f"the saved state of the sampler has {name} {value!r:.60}")
    if (state["after"] is None) != (state["position"] == 0):
        raise StateMismatchError("the saved state of the sampler contradicts itself")
