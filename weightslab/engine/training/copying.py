"""Copying values into tensors that exist: plain memory in several threads, the rest by torch.

torch copies with its intra-op threads, which wait for each other by spinning. Where other processes
want the cores too that costs 5 x the time and 7 x the CPU of a plain copy (500 MB, 2 cores, load 9);
two threads that copy bytes do not need each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.tensors.workers import for_each

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["copy_tensors"]

_PARALLEL_BYTES: Final = 1 << 20  # 1 MiB: 0.1 ms of work, 50 times what handing it over costs
_CHUNK_BYTES: Final = 8 << 20  # 1 ms of work: the threads end at about the same time

Pair = tuple[torch.Tensor, torch.Tensor]  # where to, where from
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def copy_tensors(pairs: Iterable[Pair]) -> None:
    """Give each first tensor of a pair the values of the second, in place; autograd sees the change.

    Tensors that share memory are written one after the other, in the order of `pairs`.
    """
    jobs: dict[int, list[Pair]] = {}
    others: list[Pair] = []
    for target, source in pairs:
        if _is_plain(target) and _is_plain(source) and target.dtype == source.dtype:
            jobs.setdefault(target.untyped_storage().data_ptr(), []).append((target, source))
        else:
            others.append((target, source))
    _run(list(jobs.values()))
    for job in jobs.values():
        for target, _ in job:
            if not target.is_inference():
                torch.autograd.graph.increment_version(target)
    with torch.no_grad():
        for target, source in others:
            target.copy_(source)


def _run(jobs: list[list[Pair]]) -> None:
    """Copy big tensors in several threads, in pieces; small ones and shared memory in this one."""
    pieces: list[tuple[Bytes, Bytes]] = []
    for job in jobs:
        views = [(_bytes_of(target), _bytes_of(source)) for target, source in job]
        if len(views) == 1 and len(views[0][0]) >= _PARALLEL_BYTES:
            target, source = views[0]
            pieces += [
                (target[at : at + _CHUNK_BYTES], source[at : at + _CHUNK_BYTES])
                for at in range(0, len(target), _CHUNK_BYTES)
            ]
        else:
            for view in views:
                np.copyto(*view)
    for_each(lambda piece: np.copyto(*piece), pieces)  # numpy lets other threads run meanwhile


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether the items are plain bytes of host memory, one after the other."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.numel() > 0
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    # a contiguous tensor may have any stride along a dimension of size 1, and view() minds it
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    found: Bytes = flat.view(torch.uint8).numpy()
    return found
