"""The tensors of one part of a checkpoint, verified, whatever files they lie in. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.repository.catalog import map_file
from weightslab.engine.tensors.check import FileCheck, verify_together
from weightslab.engine.tensors.packing import PackedTensor

if TYPE_CHECKING:
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["aliases_of", "read_part", "require_part"]


def require_part(manifest: Manifest, part: str) -> None:
    """Raise unless a checkpoint has a part.

    Raises: ObjectNotFoundError that names the parts it has.
    """
    if part not in manifest.parts:
        raise ObjectNotFoundError(
            f"checkpoint {manifest.name.stem} has no part {part!r:.80}",
            hint=f"it has {', '.join(manifest.parts)}",
        )


def read_part(store: Store, manifest: Manifest, part: str) -> dict[str, PackedTensor]:
    """Return key -> tensor of a part; views on the files, every byte of them verified.

    Raises: ObjectNotFoundError (no such part); MissingObjectError, TruncatedError, DigestMismatchError.
    """
    require_part(manifest, part)
    prefix = f"{part}/"
    checks = []
    for file in manifest.files:
        records = manifest.tensors_in(file)
        wanted = [key for key in records if key.startswith(prefix)]
        if wanted:
            data = map_file(store, manifest.name, file.name)
            checks.append(FileCheck(buffer=data, file=file, tensors=records, names=wanted))
    verify_together(checks)
    return {
        key.removeprefix(prefix): PackedTensor(
            dtype=at.dtype,
            shape=at.shape,
            data=memoryview(check.buffer)[at.offset : at.offset + at.size_bytes],
        )
        for check in checks
        for key in check.names or ()
        for at in (check.tensors[key],)
    }


def aliases_of(manifest: Manifest, part: str) -> dict[str, str]:
    """Return key of a tied tensor -> key of the stored one, of a part."""
    prefix = f"{part}/"
    return {
        k.removeprefix(prefix): v.removeprefix(prefix)
        for k, v in manifest.aliases.items()
        if k.startswith(prefix)
    }
