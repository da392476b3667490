"""One self-contained safetensors file. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.errors import AlreadyExistsError
from weightslab.engine.export.parts import aliases_of, read_part
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.tensors.packing import pack

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["write_safetensors"]


def write_safetensors(store: Store, manifest: Manifest, target: Path, *, part: str) -> None:
    """Write all tensors of one part of a checkpoint into one new file.

    Keys are those of the state_dict; tied tensors are stored once and named in the header's metadata,
    as `safetensors.torch.save_model` does.

    Raises: ObjectNotFoundError (no such part), AlreadyExistsError, IntegrityError, StorageError.
    """
    image = pack(
        read_part(store, manifest, part),
        aliases=aliases_of(manifest, part),
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
