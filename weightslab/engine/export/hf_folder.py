"""A folder as Hugging Face keeps models: weights in one file or in shards with an index, and a config.

    model.safetensors                          or  model-00001-of-00002.safetensors, ...
    model.safetensors.index.json               where there are shards
    config.json                                of the model, where its class is one of Transformers;
                                               else the config of the experiment
    weightslab-origin.json                            where it came from

Free of torch; `transformers` is imported for its models alone, whose config it writes.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, MissingExtraError
from weightslab.engine.export.parts import aliases_of, read_part
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.new_file import refuse_existing, temporary_beside
from weightslab.engine.storage.system import folder_sync, house_errors
from weightslab.engine.tensors.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.tensors.packing import PackedTensor

__all__ = ["MAX_SHARD_BYTES", "write_hf_folder"]

MAX_SHARD_BYTES: Final = 5_000_000_000  # the default of `save_pretrained` up to Transformers 4
SCHEMA: Final = "weightslab.export"
SCHEMA_VERSION: Final = 1


def write_hf_folder(
    store: Store,
    manifest: Manifest,
    target: Path,
    *,
    part: str,
    architecture: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write one model of a checkpoint into a new folder, which appears whole or not at all.

    Tied tensors are written under each of their names, so that every loader finds them.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        target: the folder to make.
        part: `model` or `model.{name}`.
        architecture: the stored description; None without one.
        config: of the experiment; None without one.
        max_shard_bytes: tensors beyond this go into a further file; one tensor is never split.
    Raises: ObjectNotFoundError (no such part); AlreadyExistsError; IntegrityError; MissingExtraError if
        it is a model of Transformers, and that is not installed; StorageError.
    """
    if part == "training":
        raise ValueError("a Hugging Face folder holds a model; export 'training' as torch")
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is at least 1, not {max_shard_bytes}")
    refuse_existing(target)
    tensors = read_part(store, manifest, part)
    tensors |= {dropped: tensors[kept] for dropped, kept in aliases_of(manifest, part).items()}
    own = None if architecture is None else _transformers_config(architecture, part)
    with _new_folder(target) as folder:
        _write_weights(folder, manifest, tensors, max_shard_bytes)
        _write_json(folder, "config.json", own or dict(config or {}))
        _write_json(folder, "weightslab-origin.json", _origin(manifest, part, config))


@contextmanager
def _new_folder(target: Path) -> Iterator[LocalStore]:
    """Yield a folder beside the final name, which it gets at the end of the block."""
    temporary = temporary_beside(target)
    with house_errors("written", target):
        try:
            temporary.mkdir(parents=True)
            folder = LocalStore(temporary)
            yield folder
            folder.sync("")
            refuse_existing(target)
            os.rename(temporary, target)  # noqa: PTH104 - `replace` means something else
        except BaseException:  # Ctrl-C, too, leaves no half folder behind
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        folder_sync(target.parent)


def _write_weights(
    folder: LocalStore, manifest: Manifest, tensors: dict[str, PackedTensor], limit: int
) -> None:
    shards = _shards(tensors, limit)
    names = ["model.safetensors"]
    if len(shards) > 1:
        total = len(shards)
        names = [f"model-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    metadata = {"weightslab.checkpoint": manifest.name.stem, "weightslab.manifest": manifest.digest}
    for name, keys in zip(names, shards, strict=True):
        image = pack({key: tensors[key] for key in keys}, metadata=metadata)
        folder.put(name, image.buffers)
    if len(shards) > 1:
        size = sum(len(tensor.data) for tensor in tensors.values())
        placed = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = {"metadata": {"total_size": size}, "weight_map": placed}
        _write_json(folder, "model.safetensors.index.json", index)


def _shards(tensors: Mapping[str, PackedTensor], limit: int) -> list[list[str]]:
    """Return the keys of each file: as many as fit, in the order of their names."""
    shards: list[list[str]] = [[]]
    filled = 0
    for key in sorted(tensors):
        size = len(tensors[key].data)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(key)
        filled += size
    return shards


def _write_json(folder: LocalStore, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, default=str) + "\n"
    folder.put(name, [text.encode()])


def _origin(manifest: Manifest, part: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "exp_hash": manifest.name.exp_hash,
        "experiment_digest": manifest.experiment_digest,
        "step": manifest.name.step,
        "revision": manifest.name.revision,
        "manifest": manifest.digest,
        "part": part,
        "config": None if config is None else dict(config),
        "metrics": manifest.metrics,
        "versions": manifest.versions,
    }


# ---------------------------------------------------------------- models of Transformers
def _transformers_config(document: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """Return the config of a model of Transformers; None if its class is of somebody else.

    It is made by the class of the config in the library, from the fields that the description holds;
    those that say nothing about the function, such as the names of labels, are at their defaults.
    """
    try:
        models = dict(document["identity"]["models"])
        model = models["" if part == "model" else part.removeprefix("model.")]
        top = next(module for module in model["modules"] if module["path"] == "")
        if not top["class"].startswith("transformers."):
            return None
        label, configs = top["attributes"]["config"]["$config"], model["configs"]
    except (KeyError, TypeError, StopIteration):
        return None
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "config.json of this model is written by Transformers, which is not installed",
            hint="pip install 'weightslab[transformers]'",
        ) from error
    made = _build(transformers, label, configs)
    made.architectures = [top["class"].rpartition(".")[2]]
    found: dict[str, Any] = json.loads(made.to_json_string(use_diff=True))
    return found


def _build(library: Any, label: str, configs: Mapping[str, Any], depth: int = 0) -> Any:
    kind = getattr(library, label.partition("#")[0], None)
    base = getattr(library, "PreTrainedConfig", None) or library.PretrainedConfig
    if not (isinstance(kind, type) and issubclass(kind, base)) or depth > _MAX_DEPTH:
        raise FormatError(f"the installed Transformers has no config {label!r:.80}")
    fields = {
        name: _build(library, value["$config"], configs, depth + 1).to_dict()
        if isinstance(value, dict) and [*value] == ["$config"]
        else value
        for name, value in configs[label].items()
    }
    return kind(**fields)


_MAX_DEPTH: Final = 8  # configs within configs; the library has three
