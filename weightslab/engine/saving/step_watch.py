"""Watching optimizers: are the weights still those of the step that was completed last?"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StepWatch"]


class StepWatch:
    """Counts optimizer steps that began and ended since `mark`. Optimizers are held weakly.

    Optimizers without the hooks of `torch.optim.Optimizer` are not seen: theirs count as unchanged.
    """

    def __init__(self) -> None:
        self._begun = 0
        self._ended = 0
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        self._handles: list[Any] = []

    def watch(self, optimizers: Iterable[Any]) -> None:
        """Watch these too; those that are watched already cost nothing more."""
        for optimizer in optimizers:
            before = getattr(optimizer, "register_step_pre_hook", None)
            after = getattr(optimizer, "register_step_post_hook", None)
            if before is None or after is None or optimizer in self._watched:
                continue
            self._watched.add(optimizer)
            self._handles += [before(self._begin), after(self._end)]

    def mark(self) -> None:
        """A step is complete."""
        self._begun = self._ended = 0

    def find_change(self) -> str | None:
        """Return in words how the weights differ from those at the last `mark`; None if they do not."""
        if self._begun != self._ended:
            return "an optimizer step was interrupted, so the weights are half old and half new"
        if self._begun:
            return f"{self._ended} optimizer step(s) came after it without a manager.step()"
        return None

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._watched = weakref.WeakSet()

    def _begin(self, *_: object) -> None:
        self._begun += 1

    def _end(self, *_: object) -> None:
        self._ended += 1
