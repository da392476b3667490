"""Out of CUDA devices: host memory that the driver knows, and copies on a stream of their own."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator, Sequence

    from weightslab.engine.tensors.packing import DeviceBytes

__all__ = ["copy_from_devices", "pin"]

logger = logging.getLogger(__name__)
# device -> stream of the copies; one for the life of the process, as torch takes them from a small pool
_streams: dict[torch.device, Any] = {}


def copy_from_devices(pairs: Sequence[tuple[memoryview, DeviceBytes]]) -> None:
    """Copy bytes of devices into host memory; complete on return.

    The copies wait for what was queued on the current stream of their device, so they hold what the
    program has computed so far; nothing that is queued later can come before them, since the caller
    only goes on afterwards. All devices copy at the same time.

    Args:
        pairs: (destination, source) of equal lengths. Copies into memory that `pin` prepared run at
            the speed of the bus; others go through a small buffer of the driver.
    """
    by_device: dict[torch.device, list[tuple[memoryview, DeviceBytes]]] = {}
    for target, source in pairs:
        by_device.setdefault(source.source.device, []).append((target, source))
    waits = []
    for device, found in by_device.items():
        with _beside(device) as wait:
            for target, source in found:
                place = torch.frombuffer(target, dtype=torch.uint8)
                place.copy_(source.source, non_blocking=True)
        waits.append(wait)
    for wait in waits:
        wait()


@contextmanager
def _beside(device: torch.device) -> Iterator[Callable[[], None]]:
    """Have what is queued in the block run on the stream of the copies; gives what waits for it."""
    stream = _streams.get(device)
    if stream is None:
        stream = _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    inside: AbstractContextManager[Any] = torch.cuda.stream(stream)
    with inside:
        yield stream.synchronize


def pin(buffer: mmap.mmap) -> Callable[[], None]:
    """Have the CUDA driver keep the pages of `buffer` in place, so that devices copy into it directly.

    Memory that cannot be pinned (a limit of the system) is used all the same, and copies are slower.

    Returns: what undoes it; to be called before the memory is given back.
    """
    address = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    driver: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    status = int(driver.cudaHostRegister(address, len(buffer), 0))
    if status:
        logger.warning(
            "%d bytes of snapshot memory cannot be pinned (CUDA error %d); copies from the device are "
            "slower",
            len(buffer),
            status,
        )
        return lambda: None
    return lambda: _unpin(driver, address)


def _unpin(driver: Any, address: int) -> None:
    status = int(driver.cudaHostUnregister(address))
    if status:
        logger.warning("snapshot memory stays pinned: CUDA error %d", status)
