"""Export: one self-contained safetensors file of a checkpoint, whatever files it lies in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weightslab.engine.errors import AlreadyExistsError, ObjectNotFoundError
from weightslab.engine.repository.catalog import map_file
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.tensors.check import verify_file
from weightslab.engine.tensors.packing import PackedTensor, pack

if TYPE_CHECKING:
    import os

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["export_part"]


def export_part(
    store: Store, manifest: Manifest, path: str | os.PathLike[str], *, part: str
) -> Path:
    """Write all tensors of one part of a checkpoint into one new safetensors file.

    Keys are those of the state_dict; tied tensors are stored once and named in the header's metadata,
    as `safetensors.torch.save_model` does. Every byte is verified on the way. The file appears
    whole, or not at all.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        path: the file to make; nothing is overwritten.
        part: `model`, `model.{name}` or `training`.
    Returns: its absolute path.
    Raises: ObjectNotFoundError if the checkpoint has no such part; AlreadyExistsError;
        IntegrityError; StorageError.
    """
    if part not in manifest.parts:
        raise ObjectNotFoundError(
            f"checkpoint {manifest.name.stem} has no part {part!r}",
            hint=f"it has {', '.join(manifest.parts)}",
        )
    target = Path(path).absolute()
    prefix = f"{part}/"
    image = pack(
        _read(store, manifest, prefix),
        aliases={
            k.removeprefix(prefix): v.removeprefix(prefix)
            for k, v in manifest.aliases.items()
            if k.startswith(prefix)
        },
        metadata={
            "weightslab.checkpoint": manifest.name.stem,
            "weightslab.manifest": manifest.digest,
        },
    )
    folder = LocalStore(target.parent)
    if not folder.put(target.name, image.buffers, if_absent=True):
        raise AlreadyExistsError(
            f"{target} exists", hint="choose another path; nothing is replaced"
        )
    folder.sync("")
    return target


def _read(store: Store, manifest: Manifest, prefix: str) -> dict[str, PackedTensor]:
    found = {}
    for file in manifest.files:
        records = manifest.tensors_in(file)
        wanted = [key for key in records if key.startswith(prefix)]
        if not wanted:
            continue
        data = map_file(store, manifest.name, file.name)
        verify_file(data, file, records, names=wanted)
        for key in wanted:
            at = records[key]
            found[key.removeprefix(prefix)] = PackedTensor(
                dtype=at.dtype, shape=at.shape, data=data[at.offset : at.offset + at.size_bytes]
            )
    return found
