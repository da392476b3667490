"""Following torch's DataLoader: which batches it has handed over, and drawing again what it has not.

A DataLoader with workers draws `num_workers * prefetch_factor` batches before it hands over the first
one, and tells the sampler nothing more. What the loop has got is known to the loader's iterator alone.
So when such an iterator asks a sampler for batches, it is made one of the classes below: the same
iterator, which reports each batch that it hands over. docs/design/data_order.md gives the reasons,
and what was rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch.utils.data import BatchSampler
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Followed", "follow", "refuse_hidden_workers"]

_FRAMES: Final = 12  # from a worker loader's draw to ours: torch 4, Accelerate 2


class Followed(Protocol):
    """A loop over a sampler that can be followed; `Batches` says what its parts mean."""

    begins: bool
    is_followed: bool

    def require_current(self) -> None: ...
    def is_outdated(self) -> bool: ...
    def hand_over(self, num_left: int | None = None) -> None: ...


class _Single(_SingleProcessDataLoaderIter):
    """An iterator without workers: draws a batch when it is asked for one."""

    followed: Followed
    quiet: _Quiet | None

    def __next__(self) -> Any:
        if self.quiet is not None:
            self.quiet.give_back()
            self.quiet = None
        batch = super().__next__()
        self.followed.hand_over()
        return batch


class _Multi(_MultiProcessingDataLoaderIter):
    """An iterator with workers: draws ahead."""

    followed: Followed
    quiet: _Quiet | None
    is_redrawing = False

    def __next__(self) -> Any:
        self.followed.require_current()
        if self.followed.is_outdated():
            self._redraw()
        batch = super().__next__()
        self.followed.hand_over(self._rcvd_idx)
        return batch

    def _redraw(self) -> None:
        """Forget what was drawn ahead and draw anew, as torch itself does between two epochs.

        Waits for the batches that workers are fetching. `_reset` asks its argument for what the
        iterator knows itself; the loader may be gone by now.
        """
        self.is_redrawing = True
        try:
            self._reset(self)
        finally:
            self.is_redrawing = False


def follow(made: Followed, caller: FrameType, *, continues: bool) -> None:
    """Let `made` be told which batches are handed over, if a DataLoader of torch asked for it.

    Args:
        made: a `Followed`.
        caller: the frame that asked.
        continues: the loop goes on in the middle of an epoch.
    Raises: TypeError, ValueError for a loader that cannot be followed.
    """
    asking = caller.f_locals.get("self")
    if isinstance(asking, BatchSampler):
        raise TypeError(
            "a ResumableSampler makes batches: pass it as batch_sampler, not as sampler"
        )
    if not isinstance(asking, _BaseDataLoaderIter) or _keeps_own_state(asking):
        return
    loader = caller.f_locals.get("loader")
    iterator: Any = asking
    if not isinstance(iterator, (_Single, _Multi)):
        try:
            iterator.__class__ = _followed_class(type(iterator), loader)
        except (TypeError, ValueError):
            iterator._shutdown = True  # there are no workers yet; its `__del__` asks for that
            raise
        iterator.quiet = None
    if caller.f_code.co_name == "__init__" and (continues or _persists(loader)):
        iterator.quiet = _Quiet(getattr(loader, "generator", None) or torch.default_generator)
    elif iterator.quiet is not None:
        iterator.quiet.give_back()
        iterator.quiet = None
    made.is_followed = True
    made.begins = not getattr(iterator, "is_redrawing", False)
    iterator.followed = made


def _persists(loader: Any) -> bool:
    """Tell whether one iterator of the loader serves all epochs."""
    return bool(getattr(loader, "persistent_workers", False))


def _keeps_own_state(iterator: Any) -> bool:
    """Tell an iterator of torchdata's StatefulDataLoader.

    It asks the sampler for its state at each draw, and finds out by itself which one is due.
    """
    return callable(getattr(iterator, "state_dict", None))


def _followed_class(kind: type, loader: Any) -> type:
    if not getattr(loader, "in_order", True) and getattr(loader, "num_workers", 0) > 0:
        raise ValueError("in_order=False hands batches over as they come; no order can be resumed")
    if kind is _SingleProcessDataLoaderIter:
        return _Single
    if kind is _MultiProcessingDataLoaderIter:
        return _Multi
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} hands over batches in a way that is not known here;"
        " use torch.utils.data.DataLoader, or torchdata's StatefulDataLoader"
    )


def refuse_hidden_workers(frame: FrameType | None) -> None:
    """Refuse a loader with workers that draws through something else: what it has got is not known.

    Raises: TypeError.
    """
    through: object = None
    for _ in range(_FRAMES):
        if frame is None:
            return
        asking = frame.f_locals.get("self")
        if isinstance(asking, _MultiProcessingDataLoaderIter):
            raise TypeError(
                f"a loader with workers draws batches through a {type(through).__name__}, so nobody"
                " knows which of them the loop has got; pass the ResumableSampler itself to the"
                " DataLoader as batch_sampler"
            )
        through = asking if asking is not None else through
        frame = frame.f_back


class _Quiet:
    """Gives back what making an iterator takes from a generator: one number, the workers' base seed.

    A loop that goes on in the middle of an epoch makes an iterator where the uninterrupted run made
    none; it must not find other random numbers for that. Nothing is given back if anyone else took
    numbers in between.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._before = generator.get_state()
        same = torch.Generator(generator.device)
        same.set_state(self._before)
        torch.empty((), dtype=torch.int64).random_(generator=same)  # as _BaseDataLoaderIter does
        self._after = same.get_state()

    def give_back(self) -> None:
        """Set the generator to what it was."""
        if torch.equal(self._generator.get_state(), self._after):
            self._generator.set_state(self._before)
