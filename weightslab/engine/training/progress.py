"""Progress: how far a training had come when it was saved, in plain numbers."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from weightslab.engine.errors import FormatError

__all__ = ["Progress", "check_count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training had come.

    Attributes:
        step: optimizer steps.
        epoch: the epoch it was in, counted as the user counts; None if not told.
        samples_seen: samples trained on so far, over all processes; None if not told.
        world_size: processes that trained together.
    """

    step: int
    epoch: int | None = None
    samples_seen: int | None = None
    world_size: int = 1

    @property
    def is_told(self) -> bool:
        """True if there is more in it than the step."""
        return self.epoch is not None or self.samples_seen is not None

    def to_tree(self) -> dict[str, Any]:
        """Return it as a dict of numbers and None."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_tree(cls, tree: Any, *, step: int) -> Progress:
        """Read what `to_tree` returned; None stands for a checkpoint that has nothing of it.

        Raises: FormatError.
        """
        if tree is None:
            return cls(step=step)
        names = {"epoch", "samples_seen", "world_size"}
        if not isinstance(tree, dict) or not all(_is_count(tree.get(name)) for name in names):
            raise FormatError(f"the progress of a checkpoint is {tree!r:.80}, which is no progress")
        return cls(
            step=step,
            epoch=tree.get("epoch"),
            samples_seen=tree.get("samples_seen"),
            world_size=tree.get("world_size") or 1,
        )


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)


def check_count(value: object, *, what: str) -> int | None:
    """Return an int >= 0, or None, as it is given.

    Raises: TypeError for anything else (bool too), ValueError below 0; both name `what`.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} is an int >= 0, not {value!r:.60} ({type(value).__name__})")
    if value < 0:
        raise ValueError(f"{what} is an int >= 0, not {value}")
    return int(value)
