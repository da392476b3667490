"""A file of `torch.save` that `torch.load(weights_only=True)` reads: a state_dict, or all of a training."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import DigestMismatchError, NotStorableError, ObjectNotFoundError
from weightslab.engine.export.parts import require_part
from weightslab.engine.jsonform import decode
from weightslab.engine.loading.reading import read_state
from weightslab.engine.storage.new_file import new_file

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.engine.loading.reading import LoadedModel, LoadedState
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["ALL", "write_torch"]

ALL: Final = "all"
_TRAINING: Final = "training"


def write_torch(store: Store, manifest: Manifest, target: Path, *, part: str) -> None:
    """Write one part of a checkpoint, or all of it as one dictionary, into one new file.

    `model` is a plain state_dict, in which tied tensors are one; `training` the training state as it is
    kept; `all` a dictionary with `model_state_dict`, `optimizer_state_dict`, `tracked`, `step`, `epoch`,
    `exp_hash`, `metrics` and `metadata`. The file is read again by the weights-only loader and compared
    before it gets its name.

    Raises: ObjectNotFoundError (no such part), AlreadyExistsError, IntegrityError; NotStorableError if
        the state holds what that loader refuses; StorageError.
    """
    content = _content(store, manifest, part)
    with new_file(target) as file:
        torch.save(content, file)
        file.flush()
        _read_back(file, content, target)


def _content(store: Store, manifest: Manifest, part: str) -> Any:
    if part == ALL:
        return _dictionary(read_state(store, manifest))
    require_part(manifest, part)
    parts = () if part == _TRAINING else (part,)
    state = read_state(store, manifest, parts=parts, training=part == _TRAINING)
    if part == _TRAINING:
        return _plain(state.training, _TRAINING)
    return _state_dict(state.models[part], part)


def _state_dict(model: LoadedModel, part: str) -> dict[str, Any]:
    tensors = dict(model.tensors)
    tensors |= {dropped: tensors[kept] for dropped, kept in model.aliases.items()}
    return {**tensors, **_plain(model.extra, part)}


def _dictionary(state: LoadedState) -> dict[str, Any]:
    manifest, training = state.manifest, state.training or {}
    models = {
        part.removeprefix("model."): _state_dict(model, part)
        for part, model in state.models.items()
    }
    if not models:
        raise ObjectNotFoundError(f"checkpoint {manifest.name.stem} holds no model")
    optimizers = _states(training.get("optimizer"))
    progress = training.get("progress")
    found = {
        "model_state_dict": models["model"] if [*models] == ["model"] else models,
        "optimizer_state_dict": next(iter(optimizers.values()))
        if len(optimizers) == 1
        else optimizers or None,
        "tracked": _states(training.get("tracked")),
        "step": manifest.name.step,
        "epoch": progress.get("epoch") if isinstance(progress, dict) else None,
        "exp_hash": manifest.name.exp_hash,
        "metrics": manifest.metric_values(),
        "metadata": decode(manifest.metadata, path="metadata"),
    }
    return _plain(found, "the checkpoint")  # type: ignore[no-any-return] # a dict stays one


def _states(items: Any) -> dict[str, Any]:
    """Return name -> `state_dict()` of optimizers, or of what is tracked."""
    if not isinstance(items, dict):
        return {}
    return {name: item["state"] for name, item in items.items() if isinstance(item, dict)}


def _plain(value: Any, path: str) -> Any:
    """Return a value in which numbers of numpy and enums are those of Python."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        raise NotStorableError(f"{path} is an array of numpy, which torch.load would refuse")
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{path}.{n}") for n, item in enumerate(value))
    if isinstance(value, dict):
        plain = {_plain(k, f"a key of {path}"): _plain(v, f"{path}.{k}") for k, v in value.items()}
        return plain if type(value) is dict else type(value)(plain)
    return value


# ---------------------------------------------------------------- reading back
def _read_back(file: IO[bytes], content: Any, target: Path) -> None:
    try:
        found = torch.load(file.name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise NotStorableError(
            f"{target} could not be read by torch.load(weights_only=True): {error}",
            hint="export the part 'model' alone",
        ) from error
    _require_same(content, found, target.name)


def _require_same(value: Any, found: Any, path: str) -> None:
    if isinstance(value, torch.Tensor):
        is_same = isinstance(found, torch.Tensor) and _token(value) == _token(found)
    elif isinstance(value, Mapping):
        is_same = isinstance(found, Mapping) and [*value] == [*found]
        for key in value if is_same else ():
            _require_same(value[key], found[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        is_same = type(value) is type(found) and len(value) == len(found)
        for number, item in enumerate(value if is_same else ()):
            _require_same(item, found[number], f"{path}.{number}")
    else:
        is_same = type(value) is type(found) and repr(value) == repr(found)
    if not is_same:
        raise DigestMismatchError(f"{path} does not read back as it was written")


def _token(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, str]:
    flat = tensor.detach().contiguous().reshape(-1)
    data: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return tensor.dtype, tensor.shape, digest_bytes(memoryview(data))
