"""How a checkpoint is loaded: what is verified, and what may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FULL", "SIZE", "LoadOptions", "check_verify"]

FULL: Final = "full"
SIZE: Final = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a load verifies and forgives.

    Attributes:
        verify: `full` hashes every byte that is needed; `size` looks at the size and the header of
            each file alone, so that a flipped bit in a tensor goes unnoticed.
        strict: refuse a model that differs; else what fits is loaded and the report names the rest.
        cast: convert a tensor of another dtype where torch calls that safe within kinds (float to
            float, int to float; never float to int); else another dtype does not fit.
        load_random: set the random state of this process to that of the checkpoint, last of all.
    """

    verify: str = FULL
    strict: bool = True
    cast: bool = False
    load_random: bool = False

    def __post_init__(self) -> None:
        check_verify(self.verify)


def check_verify(verify: object) -> None:
    """Refuse what is neither `full` nor `size`.

    Raises: ValueError.
    """
    if verify not in (FULL, SIZE):
        raise ValueError(f"verify is {FULL!r} or {SIZE!r}, not {verify!r:.40}")
