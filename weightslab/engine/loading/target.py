"""What a checkpoint is loaded into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch

__all__ = ["RestoreTarget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreTarget:
    """The live objects of a load.

    Attributes:
        models: part -> module; each takes the values on the device where it is.
        optimizers: name -> optimizer; None if there is none.
        tracked: name -> whatever else is saved with the optimizers.
        found: names in `tracked` that nobody asked for by name (they come from the ledger), so that a
            checkpoint without any tracked object is no error for them.
        load_optimizer: False leaves optimizers and tracked objects alone.
        given: the caller named the optimizer, so its state has to be there.
        rank: of this process among those that train together; 0 saves.
        world_size: how many these are.
    """

    models: Mapping[str, torch.nn.Module]
    optimizers: Mapping[str, Any] | None = None
    tracked: Mapping[str, Any] = field(default_factory=dict)
    found: Collection[str] = ()
    load_optimizer: bool = True
    given: bool = False
    rank: int = 0
    world_size: int = 1
