"""The file image: tensors laid out as a safetensors file, byte for byte, before it is written.

    8 bytes   length of the header, little endian
    header    JSON: {"name": {"dtype", "shape", "data_offsets"}, ..., "__metadata__": {...}}, padded
              with spaces so that the data begins at a multiple of 64
    data      tensors without gaps, widest items first, so that each is aligned to its item size

The layout is that of https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import torch
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from weightslab.engine.digests import digest_parts
from weightslab.engine.errors import InvalidManifestError, NotStorableError, TruncatedError
from weightslab.engine.jsonform import parse_json
from weightslab.engine.tensors.dtypes import DTYPES, dtype_name, dtype_of
from weightslab.engine.values import FileRecord, TensorRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FileImage",
    "HeaderEntry",
    "build_image",
    "check_storable",
    "read_header",
    "tensor_view",
]

_ALIGNMENT: Final = 64  # one cache line; more than the widest item (8 bytes) asks for
_MAX_HEADER_BYTES: Final = 100_000_000  # the limit of safetensors itself
_METADATA: Final = "__metadata__"


@dataclass(slots=True)
class FileImage:
    """One tensor file in memory.

    Attributes:
        parts: the buffers of the file in order: header, then the bytes of each tensor.
        aliases: name of a tied tensor that is not stored -> name of the stored one.
        size_bytes: length of the file.
    """

    parts: list[memoryview]
    aliases: dict[str, str]
    size_bytes: int
    _layout: dict[str, TensorRecord]
    _keep: list[torch.Tensor] = field(repr=False)
    _digests: tuple[str, list[str]] | None = None

    def records(self, file_name: str, part: str) -> tuple[FileRecord, dict[str, TensorRecord]]:
        """Return the records of the file and its tensors under the given name.

        The digests are computed at the first call, in one walk over the bytes.
        """
        if self._digests is None:
            self._digests = digest_parts(self.parts)
        whole, (header, *each) = self._digests
        tensors = {
            name: replace(record, file=file_name, digest=digest)
            for (name, record), digest in zip(self._layout.items(), each, strict=True)
        }
        file = FileRecord(
            name=file_name,
            part=part,
            size_bytes=self.size_bytes,
            digest=whole,
            header_size_bytes=len(self.parts[0]),
            header_digest=header,
        )
        return file, tensors


def build_image(
    tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None
) -> FileImage:
    """Lay out `tensors` as a safetensors file.

    Contiguous tensors in host memory are looked at, not copied: the image has to be written before
    they change. Others are copied. Tensors that are the same memory in the same shape are stored
    once; `__metadata__` names the others as `safetensors.torch.save_model` does.

    Raises: NotStorableError naming the tensor that has no place in the format.
    """
    stored: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        check_storable(tensor, name)
        if name == _METADATA:
            raise NotStorableError(f"a tensor cannot be named {_METADATA!r}", hint="rename it")
        kept = seen.setdefault(_memory_of(tensor, name), name)
        if kept == name:
            stored[name] = _host_bytes(tensor)
        else:
            aliases[name] = kept
    names = sorted(stored, key=lambda name: (-tensors[name].itemsize, name))
    start = 0
    entries: dict[str, Any] = {}
    for name in names:
        end = start + stored[name].numel()
        entries[name] = {
            "dtype": dtype_name(tensors[name].dtype),
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
        start = end
    header = _header({_METADATA: {**aliases, **(metadata or {}), "format": "pt"}, **entries})
    layout = {name: _record(entries[name], len(header)) for name in names}
    parts = [memoryview(header), *(memoryview(cast("Any", stored[name].numpy())) for name in names)]
    return FileImage(
        parts=parts,
        aliases=aliases,
        size_bytes=len(header) + start,
        _layout=layout,
        _keep=[stored[name] for name in names],
    )


def check_storable(tensor: torch.Tensor, name: str) -> None:
    """Raise if a tensor file cannot hold `tensor`.

    Raises: NotStorableError naming the tensor, what it is, and what to do.
    """
    kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
    if isinstance(tensor, UninitializedTensorMixin):
        raise NotStorableError(
            f"{name} is not initialised yet", hint="run one forward pass first, then save"
        )
    if tensor.is_meta:
        raise NotStorableError(
            f"{name} is on the meta device and has no values", hint="materialise the model first"
        )
    if type(tensor).__module__.startswith("torch.distributed") or hasattr(tensor, "device_mesh"):
        raise NotStorableError(
            f"{name} is a sharded tensor ({kind})",
            hint="sharded models are not supported yet; gather a full state dict first",
        )
    if hasattr(tensor, "__tensor_flatten__") or tensor.layout is not torch.strided:
        raise NotStorableError(
            f"{name} is a {kind} of layout {tensor.layout}, not a dense tensor",
            hint="convert it with to_dense() or dequantize()",
        )
    if tensor.is_quantized or tensor.is_nested or dtype_name(tensor.dtype) is None:
        raise NotStorableError(
            f"{name} has the dtype {tensor.dtype}, which a tensor file cannot hold",
            hint=f"known: {', '.join(str(d).partition('.')[2] for d in DTYPES.values())}",
        )


def _memory_of(tensor: torch.Tensor, name: str) -> tuple[Any, ...]:
    """Return what two tensors share if they are tied: the same elements in the same order."""
    if tensor.numel() == 0:
        return ("empty", name)
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _host_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of `tensor` in host memory: uint8 [n], without a copy where possible."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if sys.byteorder != "little":  # the format is little endian
        raise NotStorableError("tensor files can only be written on little-endian machines")
    size_bytes = plain.numel() * plain.itemsize
    start = plain.storage_offset() * plain.itemsize
    view = torch.empty(0, dtype=torch.uint8)
    return view.set_(plain.untyped_storage(), start, (size_bytes,), (1,))


def _header(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    length = -(-(8 + len(text)) // _ALIGNMENT) * _ALIGNMENT - 8
    if length > _MAX_HEADER_BYTES:
        raise NotStorableError(f"the tensor names take {length} bytes; the limit is 100 MB")
    return length.to_bytes(8, "little") + text.ljust(length)


def _record(entry: dict[str, Any], header_size_bytes: int) -> TensorRecord:
    start, end = entry["data_offsets"]
    return TensorRecord(
        file="",
        dtype=entry["dtype"],
        shape=tuple(entry["shape"]),
        offset=header_size_bytes + start,
        size_bytes=end - start,
        digest="",
    )


# ---------------------------------------------------------------- reading
@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEntry:
    """One tensor as the header of a file tells it; offsets count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_header(
    buffer: memoryview, *, what: str
) -> tuple[dict[str, HeaderEntry], dict[str, str], int]:
    """Parse the header of a safetensors file that may be hostile.

    Returns: entries by name, the metadata, and the size of the header in bytes (with its length).
    Raises: TruncatedError, InvalidManifestError.
    """
    length = int.from_bytes(buffer[:8], "little")
    if len(buffer) < 8 or 8 + length > len(buffer):  # noqa: PLR2004
        raise TruncatedError(f"{what} has {len(buffer)} bytes, too few for its header")
    if length > _MAX_HEADER_BYTES:
        raise InvalidManifestError(f"{what} has a header of {length} bytes; the limit is 100 MB")
    document = parse_json(bytes(buffer[8 : 8 + length]), what=f"header of {what}")
    metadata = document.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidManifestError(f"{what} has metadata that is not text")
    entries = {name: _entry(entry, 8 + length, what, name) for name, entry in document.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda e: (e[1].offset, e[1].size_bytes)):
        if entry.offset != end:
            raise InvalidManifestError(f"{what} has a gap or an overlap before {name!r:.60}")
        end += entry.size_bytes
    if end != len(buffer):
        raise TruncatedError(f"{what} has {len(buffer)} bytes; its tensors end at {end}")
    return entries, metadata, 8 + length


def _entry(document: Any, data_start: int, what: str, name: str) -> HeaderEntry:
    try:
        dtype, shape, (start, end) = (document[k] for k in ("dtype", "shape", "data_offsets"))
        lengths = all(type(n) is int and 0 <= n < 1 << 63 for n in [*shape, start, end])
        size_bytes = math.prod(shape) * dtype_of(dtype).itemsize if lengths else -1
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidManifestError(f"{what}: entry {name!r:.60} is wrong: {error}") from error
    if end - start != size_bytes:
        raise InvalidManifestError(
            f"{what}: entry {name!r:.60} has {end - start} bytes for {dtype!r:.20} {shape!r:.80}"
        )
    return HeaderEntry(
        dtype=dtype, shape=tuple(shape), offset=data_start + start, size_bytes=size_bytes
    )


class _Bytes:
    """Gives numpy the address of a read-only buffer and keeps the buffer alive.

    torch warns about every tensor over memory that is marked read-only; here the mark is left out,
    and the page protection of the mapping stays: writing into such a tensor ends the process.
    """

    __slots__ = ("__array_interface__", "_buffer")

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        address = np.frombuffer(buffer, np.uint8).ctypes.data
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (len(buffer),),
            "typestr": "|u1",
            "version": 3,
        }


def tensor_view(buffer: memoryview, record: TensorRecord) -> torch.Tensor:
    """Return the tensor over the bytes in `buffer`, without a copy; it must not be written to.

    Raises: TruncatedError, FormatError if the record does not fit the buffer or itself.
    """
    dtype, end = dtype_of(record.dtype), record.offset + record.size_bytes
    if end > len(buffer):
        raise TruncatedError(f"a tensor ends at byte {end} of {record.file} ({len(buffer)} bytes)")
    if math.prod(record.shape) * dtype.itemsize != record.size_bytes:
        raise InvalidManifestError(
            f"{record.size_bytes} bytes in {record.file} are no {record.dtype} {record.shape}"
        )
    if record.size_bytes == 0:
        return torch.empty(record.shape, dtype=dtype)
    data = np.asarray(_Bytes(buffer[record.offset : end]))
    if data.ctypes.data % dtype.itemsize:
        data = data.copy()
    return torch.from_numpy(data).view(dtype).reshape(record.shape)
