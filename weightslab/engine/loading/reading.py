"""Loading: files mapped and verified, state put together; no live object is touched here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError, UnsupportedVersionError
from weightslab.engine.jsonform import decode
from weightslab.engine.loading.options import FULL
from weightslab.engine.repository.catalog import map_file
from weightslab.engine.tensors.check import FileCheck, verify_together
from weightslab.engine.tensors.image import tensor_view
from weightslab.engine.tensors.tree import join

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import FileRecord

__all__ = ["LoadedModel", "LoadedState", "read_state", "read_tensors"]

TRAINING = "training"
CODEC = "safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """State of one model as it was saved.

    Attributes:
        tensors: state_dict key -> tensor over the mapped file; must not be written to.
        extra: state_dict key -> value that is not a tensor.
        aliases: key of a tied tensor -> key of the stored one.
    """

    tensors: dict[str, torch.Tensor]
    extra: dict[str, object] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedState:
    """A verified checkpoint: its models by part, and the training state (None if not saved)."""

    manifest: Manifest
    models: dict[str, LoadedModel]
    training: dict[str, Any] | None = None


def read_state(
    store: Store,
    manifest: Manifest,
    *,
    parts: Collection[str] | None = None,
    training: bool = True,
    verify: str = FULL,
) -> LoadedState:
    """Map and verify the files of a checkpoint.

    Every byte of the files that are needed is verified before this returns.

    Args:
        store: where the root lives.
        manifest: what to read.
        parts: the models to read; by default all.
        training: read optimizer and other training state too; without, their bytes are not touched.
        verify: `full`, or `size`: sizes and headers alone.
    Raises: MissingObjectError, TruncatedError, DigestMismatchError, FormatError.
    """
    chosen = [p for p in manifest.model_parts if parts is None or p in parts]
    wanted = [*chosen, *[TRAINING] * (training and TRAINING in manifest.parts)]
    keys = {key for key in manifest.tensors if key.partition("/")[0] in wanted}
    tensors: dict[str, dict[str, torch.Tensor]] = {part: {} for part in wanted}
    for key, tensor in read_tensors(store, manifest, keys, whole=wanted, verify=verify).items():
        part, _, name = key.partition("/")
        tensors[part][name] = tensor
    models = {
        part: LoadedModel(
            tensors=tensors[part],
            extra=_mapping(decode(manifest.state.get(part, {}), path=part), part),
            aliases=_aliases(manifest, part),
        )
        for part in chosen
    }
    tree = None
    if training and TRAINING in manifest.state:
        tree_tensors = tensors[TRAINING]
        for dropped, kept in _aliases(manifest, TRAINING).items():
            tree_tensors[dropped] = tree_tensors[kept]
        tree = _mapping(join(manifest.state[TRAINING], tree_tensors), TRAINING)
        for name, content in tree.items():
            _mapping(content, f"{TRAINING}.{name}")
    return LoadedState(manifest=manifest, models=models, training=tree)


def read_tensors(
    store: Store,
    manifest: Manifest,
    keys: Collection[str],
    *,
    whole: Collection[str] = (),
    verify: str = FULL,
) -> dict[str, torch.Tensor]:
    """Return key -> tensor over the mapped file in which it lies; other bytes stay unread.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        keys: keys of `manifest.tensors`.
        whole: parts whose own files are verified from the first byte to the last.
        verify: `full`, or `size`: sizes and headers alone.
    Raises: MissingObjectError, TruncatedError, DigestMismatchError, FormatError.
    """
    checks: list[FileCheck] = []
    wanted: list[list[str]] = []
    for file in manifest.files:
        records = manifest.tensors_in(file)
        needed = [key for key in records if key in keys]
        is_whole = file.part in whole
        if not needed and not is_whole:
            continue
        _check_codec(file)
        names: Collection[str] | None = needed
        if verify != FULL:
            names = ()
        elif is_whole:
            names = None
        data = map_file(store, manifest.name, file.name)
        checks.append(
            FileCheck(
                buffer=data, file=file, tensors=records, names=names, with_header=verify != FULL
            )
        )
        wanted.append(needed)
    verify_together(checks)
    return {
        key: tensor_view(check.buffer, check.tensors[key])
        for check, needed in zip(checks, wanted, strict=True)
        for key in needed
    }


def _check_codec(file: FileRecord) -> None:
    if file.codec != CODEC:
        raise UnsupportedVersionError(
            f"{file.name} has the codec {file.codec!r}; this package reads {CODEC!r}",
            hint="pip install --upgrade weightslab",
        )


def _mapping(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"the state of {path} is a {type(value).__name__}, not a mapping")
    return value


def _aliases(manifest: Manifest, part: str) -> dict[str, str]:
    start = len(part) + 1
    return {k[start:]: v[start:] for k, v in manifest.aliases.items() if k.startswith(f"{part}/")}
