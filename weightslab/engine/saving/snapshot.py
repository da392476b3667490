"""The snapshot: captured state laid out as the files it will become, not yet written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import NotStorableError
from weightslab.engine.jsonform import encode
from weightslab.engine.tensors.image import FileImage, build_image
from weightslab.engine.tensors.tree import split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightslab.engine.training.state import ModelState

__all__ = ["Snapshot", "take_snapshot"]

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
            _add(snapshot, TRAINING, build_image(tensors))
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
