"""The snapshot: captured state laid out as the files it will become, not yet written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import NotStorableError
from weightslab.engine.jsonform import encode
from weightslab.engine.saving.buffers import PAGE_BYTES, copy_all
from weightslab.engine.saving.device import copy_from_devices, pin
from weightslab.engine.tensors.image import FileImage, build_distinct, build_image
from weightslab.engine.tensors.packing import DeviceBytes
from weightslab.engine.tensors.tree import split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weightslab.engine.saving.buffers import HostBuffers
    from weightslab.engine.training.state import ModelState

__all__ = ["Snapshot", "hold_still", "take_snapshot"]

TRAINING = "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of a checkpoint in memory.

    Attributes:
        images: part (`model`, `model.{name}`, `training`) -> file image.
        aliases: `{part}/{key}` of a tied tensor -> the one that is stored.
        state: part -> tagged JSON of what is not a tensor.
    """

    images: dict[str, FileImage] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def take_snapshot(
    models: Mapping[str, ModelState], training: Mapping[str, object] | None
) -> Snapshot:
    """Lay out the state of models and training.

    The images look at the live tensors: they have to be written before training goes on.

    Args:
        models: part -> captured model.
        training: tree of everything else (`optimizer`, ...); None for weights only.
    Raises: NotStorableError naming the tensor or value that has no place in the format.
    """
    snapshot = Snapshot()
    for part, model in models.items():
        image = build_image(model.tensors)
        _add(snapshot, part, image)
        snapshot.state[part] = encode(model.extra, leaf=_refuse_tensor, path=part)
    tree = dict(training or {})
    wrapper_state = {part: m.wrapper_state for part, m in models.items() if m.wrapper_state}
    if training is not None and wrapper_state:
        tree["wrappers"] = wrapper_state
    if tree:
        tensors, skeleton = split(tree)
        snapshot.state[TRAINING] = skeleton
        if tensors:
            _add(snapshot, TRAINING, build_distinct(tensors))  # `split` has looked at them
    return snapshot


def _refuse_tensor(value: object, path: str) -> Any:
    if isinstance(value, torch.Tensor):
        raise NotStorableError(
            f"{path} is a tensor inside the extra state of a module",
            hint="return the tensor itself from get_extra_state, or register it as a buffer",
        )
    return NotImplemented


def _add(snapshot: Snapshot, part: str, image: FileImage) -> None:
    snapshot.images[part] = image
    for dropped, kept in image.aliases.items():
        snapshot.aliases[f"{part}/{dropped}"] = f"{part}/{kept}"


def hold_still(
    images: Mapping[str, FileImage], buffers: HostBuffers
) -> tuple[dict[str, FileImage], Callable[[], None]]:
    """Copy images that look at live tensors, so that training may go on.

    All images of a checkpoint share one buffer; each starts at a page and lies there as it will lie
    in its file, so that it is written without a further copy.

    Returns: the copies, and the function that gives their buffer back.
    """
    sizes = {
        part: -(-image.size_bytes // PAGE_BYTES) * PAGE_BYTES for part, image in images.items()
    }
    from_device = any(image.device_parts for image in images.values())
    buffer = buffers.take(sum(sizes.values()), pin=pin if from_device else None)
    try:
        copies, start = {}, 0
        near: list[tuple[memoryview, memoryview]] = []
        far: list[tuple[memoryview, DeviceBytes]] = []
        for part, image in images.items():
            place = memoryview(buffer)[start : start + image.size_bytes]
            copies[part], todo = image.placed(place)
            for target, source in todo:
                if isinstance(source, DeviceBytes):
                    far.append((target, source))
                else:
                    near.append((target, source))
            start += sizes[part]
        if far:
            copy_from_devices(far)
        copy_all(near)
    except BaseException:  # Ctrl-C, too, gives the buffer back
        buffers.give(buffer)
        raise
    return copies, lambda: buffers.give(buffer)
