"""Which tensors have plain bytes: dense, of real memory, of a dtype that the format knows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.parameter import is_lazy

from weightslab.engine.errors import NotStorableError
from weightslab.engine.tensors.dtypes import dtype_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["find_obstacle", "require_storable", "tie_key"]


_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter})


def require_storable(tensor: torch.Tensor, name: str) -> None:
    """Raise unless `tensor` can be stored as plain bytes; no data is read.

    Args:
        tensor: any tensor, parameters and dense subclasses included.
        name: what the error message calls it.
    Raises: NotStorableError that says what is in the way and what to do.
    """
    found = find_obstacle(tensor)
    if found is not None:
        raise NotStorableError(f"{name} {found[0]}", hint=found[1])
    dtype_name(tensor.dtype, what=name)


def find_obstacle(tensor: torch.Tensor) -> tuple[str, str] | None:
    """Return what is in the way, and the remedy. The order matters: a lazy tensor has no layout."""
    if type(tensor) in _PLAIN and tensor.layout is torch.strided and not _is_special(tensor):
        return None  # nearly every tensor: one look at each
    kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
    for is_in_the_way, what, remedy in _OBSTACLES:
        if is_in_the_way(tensor):
            return what.format(kind=kind), remedy
    return None


def _is_sharded(tensor: torch.Tensor) -> bool:
    # found by name among what is imported: torch.distributed is not imported to find out
    for home, name in (
        ("torch.distributed.tensor", "DTensor"),
        ("torch.distributed._shard.sharded_tensor", "ShardedTensor"),
    ):
        kind: Any = getattr(sys.modules.get(home), name, None)
        if isinstance(kind, type) and isinstance(tensor, kind):
            return True
    return type(tensor).__module__.startswith("torch.distributed")


def _is_special(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or tensor.is_nested or tensor.is_quantized


def _is_wrapper(tensor: torch.Tensor) -> bool:
    own, plain = type(tensor).__torch_dispatch__, torch.Tensor.__torch_dispatch__
    return getattr(own, "__func__", own) is not getattr(plain, "__func__", plain)


_OBSTACLES: Final[tuple[tuple[Callable[[torch.Tensor], bool], str, str], ...]] = (
    (is_lazy, "is not initialised yet", "run one forward first"),
    (
        _is_sharded,
        "is sharded over processes ({kind})",
        "sharded models are not supported yet; gather the full state on one process",
    ),
    (lambda t: t.is_nested, "is a nested tensor", "store its values and offsets instead"),
    (lambda t: t.is_meta, "is on the meta device and has no data", "load or initialise it first"),
    (lambda t: t.layout != torch.strided, "is not dense", "call .to_dense() first"),
    (
        lambda t: t.is_quantized,
        "is quantised",
        "store .int_repr() with scale and zero point, or .dequantize() it",
    ),
    (
        _is_wrapper,
        "is a {kind}, a tensor without memory of its own",
        "store the tensors inside it",
    ),
)


def tie_key(tensor: torch.Tensor) -> Hashable:
    """Return what is equal exactly for tensors that are the same bytes seen the same way.

    Tensors without elements have no bytes to share; each is only itself. The key is good as long as
    the tensors live.
    """
    if not tensor.numel():
        return id(tensor)
    return (
        tensor.data_ptr(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor.is_conj(),
        tensor.is_neg(),
    )
