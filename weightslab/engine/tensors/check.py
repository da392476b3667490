"""Verification of tensor files against their records. Free of torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import DigestMismatchError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["verify_file"]

_PARALLEL_BYTES: Final = 32 << 20  # below, starting threads costs more than hashing (28 GB/s)
_THREADS: Final = 2


def verify_file(
    buffer: memoryview,
    file: FileRecord,
    tensors: Mapping[str, TensorRecord],
    *,
    names: Collection[str] | None = None,
) -> None:
    """Check the bytes of a file against the digests it was committed with.

    Args:
        buffer: the whole file.
        file: its record.
        tensors: key -> record of every tensor in the file.
        names: check only these tensors; None checks every byte of the file.
    Raises: TruncatedError if the size differs, DigestMismatchError naming file and tensor.
    """
    if len(buffer) != file.size_bytes:
        raise TruncatedError(
            f"{file.name} has {len(buffer)} bytes, not {file.size_bytes}: cut or replaced"
        )
    if names is not None:
        _verify(buffer, file, [(name, tensors[name]) for name in names])
    elif _covers(file, tensors.values()):
        header = buffer[: file.header_size_bytes]
        if digest_bytes(header) != file.header_digest:
            raise DigestMismatchError(f"the header of {file.name} is damaged")
        _verify(buffer, file, list(tensors.items()))
    elif digest_bytes(buffer) != file.digest:
        raise DigestMismatchError(f"{file.name} is damaged: its bytes do not have its digest")


def _covers(file: FileRecord, tensors: Iterable[TensorRecord]) -> bool:
    """Tell whether header and tensors together are all bytes of the file, without gap or overlap."""
    end = file.header_size_bytes
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.size_bytes)):
        if tensor.offset != end:
            return False
        end += tensor.size_bytes
    return end == file.size_bytes


def _verify(buffer: memoryview, file: FileRecord, tensors: list[tuple[str, TensorRecord]]) -> None:
    total = sum(record.size_bytes for _, record in tensors)
    if total < _PARALLEL_BYTES:
        for name, record in tensors:
            _verify_tensor(buffer, file, name, record)
        return
    with ThreadPoolExecutor(_THREADS) as pool:  # xxhash releases the GIL
        jobs = [pool.submit(_verify_tensor, buffer, file, n, r) for n, r in tensors]
        for job in jobs:
            job.result()


def _verify_tensor(buffer: memoryview, file: FileRecord, name: str, record: TensorRecord) -> None:
    end = record.offset + record.size_bytes
    if end > len(buffer):
        raise TruncatedError(f"{name} ends at byte {end} of {file.name}, which has {len(buffer)}")
    if digest_bytes(buffer[record.offset : end]) != record.digest:
        raise DigestMismatchError(
            f"{name} in {file.name} is damaged: its {record.size_bytes} bytes do not have the "
            f"digest {record.digest}",
            context={"key": file.name},
        )
