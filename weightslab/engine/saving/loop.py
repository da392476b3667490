"""The loop: how far the training loop is, and how much of that is saved. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.saving.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from weightslab.engine.saving.trail import StepRecord

__all__ = ["LoopProgress"]


class LoopProgress:
    """The last completed step of a loop, and its last save.

    Args:
        clock: monotonic seconds.
    Attributes:
        step: the step completed or loaded last; None before the first.
        exp_hash: the experiment it was completed in.
        is_loaded: it was loaded, so there is nothing of it to save.
        facts: what the loop said about it: the arguments for its save.
        saved: (exp_hash, step) of the last save that was accepted and has not failed.
        saved_at: when the last save returned; before the first, when this object was made.
        commit_seconds: how long the last commit took; 0.0 before the first.
        trail: what the loop said about the first steps since the last checkpoint.
        clock: as given.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.step: int | None = None
        self.exp_hash: str | None = None
        self.is_loaded = False
        self.facts: dict[str, Any] = {}
        self.saved: tuple[str, int] | None = None
        self.saved_at = clock()
        self.commit_seconds = 0.0
        self.trail = Trail()

    def complete(self, exp_hash: str, step: int, facts: dict[str, Any]) -> None:
        """Note that the loop completed `step`."""
        self.exp_hash, self.step, self.facts, self.is_loaded = exp_hash, step, facts, False

    def note_loaded(self, exp_hash: str, step: int, trail: Iterable[StepRecord] = ()) -> None:
        """Note that the live objects hold a checkpoint, with its trail: the loop goes on from there."""
        self.exp_hash, self.step, self.facts, self.is_loaded = exp_hash, step, {}, True
        self.trail.begin(trail, exp_hash)

    def note_saved(self, exp_hash: str, step: int) -> None:
        """Note that a save was accepted."""
        self.saved, self.saved_at = (exp_hash, step), self.clock()
        self.trail.note_saved()

    def note_failed(self, exp_hash: str, step: int) -> None:
        """Note that a save that was accepted has failed."""
        if self.saved == (exp_hash, step):
            self.saved = None

    def is_saved(self) -> bool:
        """Tell whether there is nothing left to save."""
        return self.step is None or self.is_loaded or self.saved == (self.exp_hash, self.step)
