"""Parameters that FSDP1 took out of their modules and laid end to end in one flat parameter.

Without `use_orig_params` the modules keep none of their own; the flat parameter remembers whose
parts it is made of.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightslab.engine.identity.wrappers import own_parts

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FlatPart", "flat_parts"]


@dataclass(frozen=True, slots=True)
class FlatPart:
    """One parameter inside a flat one.

    Attributes:
        name: as its module called it.
        spec: [dtype, shape].
        trains: whether it is trained.
        tied_to: (id of module, name) of the parameter that it shares, None for one of its own.
    """

    name: str
    spec: list[Any]
    trains: bool
    tied_to: tuple[int, str] | None = None


def flat_parts(model: nn.Module) -> dict[int, list[FlatPart]]:
    """Return id of a module -> its parameters that are parts of a flat one, in order."""
    home = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    found: dict[int, list[FlatPart]] = {}
    if home is None:
        return found
    wrapper = home.FullyShardedDataParallel
    stack, seen = [model], set[int]()
    while stack:
        module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if issubclass(type(module), wrapper):
            _read(module, found)
        stack.extend(m for m in own_parts(module, "_modules").values() if m is not None)
    return found


def _read(wrapper: Any, found: dict[int, list[FlatPart]]) -> None:
    handle = wrapper._handle
    if handle is None or handle._use_orig_params:
        return
    flat = handle.flat_param
    dtype = str(flat.dtype).removeprefix("torch.")
    for info, shape in zip(flat._param_infos, flat._shapes, strict=True):
        part = FlatPart(info.param_name, [dtype, list(shape)], flat.requires_grad)
        found.setdefault(id(info.module), []).append(part)
    for shared in flat._shared_param_infos:
        tied_to = (id(shared.prim_module), shared.prim_param_name)
        part = FlatPart(shared.param_name, [], flat.requires_grad, tied_to)
        found.setdefault(id(shared.module), []).append(part)
