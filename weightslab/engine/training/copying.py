"""Copying values into tensors that exist: plain memory in several threads, the rest by torch.

torch copies with its intra-op threads, which wait for each other by spinning. Where other processes
want the cores too that costs 5 x the time and 7 x the CPU of a plain copy (500 MB, 2 cores, load 9);
two threads that copy bytes do not need each other.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.tensors.workers import num_workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["copy_tensors"]

_PARALLEL_BYTES: Final = 32 << 20  # below, one thread is done before a second has started

Pair = tuple[torch.Tensor, torch.Tensor]  # where to, where from


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
    _run(sorted(jobs.values(), key=_size_bytes, reverse=True))  # the last one to end is a short one
    for job in jobs.values():
        for target, _ in job:
            if not target.is_inference():
                torch.autograd.graph.increment_version(target)
    with torch.no_grad():
        for target, source in others:
            target.copy_(source)


def _run(jobs: Sequence[list[Pair]]) -> None:
    if sum(map(_size_bytes, jobs)) < _PARALLEL_BYTES:
        for job in jobs:
            _copy(job)
        return
    with ThreadPoolExecutor(num_workers(), thread_name_prefix="weightslab-copy") as pool:
        for _ in pool.map(_copy, jobs):
            pass


def _size_bytes(job: list[Pair]) -> int:
    return sum(target.numel() * target.itemsize for target, _ in job)


def _copy(job: list[Pair]) -> None:
    for target, source in job:
        np.copyto(_bytes_of(target), _bytes_of(source))  # lets other threads run meanwhile


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


def _bytes_of(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    # a contiguous tensor may have any stride along a dimension of size 1, and view() minds it
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    found: np.ndarray[Any, np.dtype[np.uint8]] = flat.view(torch.uint8).numpy()
    return found
