"""Torch tensors to a file image, and views back on its bytes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from weightslab.engine.errors import (
    FormatError,
    InvalidManifestError,
    NotStorableError,
    TruncatedError,
)
from weightslab.engine.tensors.dtypes import dtype_name, torch_dtype
from weightslab.engine.tensors.header import (
    METADATA,
    FileHeader,
    HeaderEntry,
    num_bytes,
    read_header,
)
from weightslab.engine.tensors.packing import DeviceBytes, FileImage, PackedTensor, pack
from weightslab.engine.tensors.storable import require_storable, tie_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from weightslab.engine.values import TensorRecord

__all__ = [
    "FileHeader",
    "FileImage",
    "HeaderEntry",
    "build_distinct",
    "build_image",
    "read_header",
    "tensor_view",
]

_NUMPY_DTYPES: Final = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float32,
        torch.float64,
    }
)


def build_image(
    tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None
) -> FileImage:
    """Lay out tensors as one safetensors file.

    The image looks at the live tensors where these are contiguous and on the CPU: write it, or copy
    it, before training goes on.
    Contiguous CPU tensors are not copied; others are copied to contiguous host memory, those of CUDA
    devices when the image is `placed`. Tensors that
    are the same bytes seen the same way are stored once, under the first name in sorted order, and
    the file's metadata names the others as `safetensors.torch.save_model` does (dropped -> kept).

    Args:
        tensors: name -> tensor of any shape and of a dtype that safetensors knows.
        metadata: text -> text to put into the header beside `{"format": "pt"}`.
    Raises: NotStorableError naming the tensor that has no place in the format.
    """
    _require_little_endian()
    kept, aliases = _find_ties(tensors)
    packed = {name: _packed(tensor, name) for name, tensor in kept.items()}
    return pack(packed, aliases=aliases, metadata=metadata)


def build_distinct(tensors: Mapping[str, torch.Tensor]) -> FileImage:
    """Do as `build_image` for tensors that are known to be storable, and to be different ones."""
    _require_little_endian()
    return pack({name: _packed(tensor, name) for name, tensor in tensors.items()})


def _require_little_endian() -> None:
    if sys.byteorder != "little":
        raise NotStorableError("tensor files are little-endian; this machine is not")


def _find_ties(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    first: dict[Hashable, str] = {}
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        if name == METADATA:
            raise NotStorableError(f"a tensor cannot be called {METADATA}", hint="rename it")
        require_storable(tensor, f"tensor {name!r}")
        owner = first.setdefault(tie_key(tensor), name)
        if owner == name:
            kept[name] = tensor
        else:
            aliases[name] = owner
    return kept, aliases


def _packed(tensor: torch.Tensor, name: str) -> PackedTensor:
    dtype, shape = dtype_name(tensor.dtype), tuple(tensor.shape)
    if dtype == "F4":
        if not shape:
            raise NotStorableError(
                f"tensor {name!r} is a 0-d float4 tensor", hint="reshape it to 1"
            )
        shape = (*shape[:-1], shape[-1] * 2)
    return PackedTensor(dtype=dtype, shape=shape, data=_bytes_of(tensor))


def _bytes_of(tensor: torch.Tensor) -> memoryview | DeviceBytes:
    if not tensor.numel():
        return memoryview(b"")
    if _is_array_already(tensor):
        return memoryview(tensor.detach().numpy().reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    plain = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    # a contiguous tensor may have any stride along a dimension of size 1, and view() minds it
    if _is_copied_later(tensor):
        there = plain.contiguous().as_strided((plain.numel(),), (1,)).view(torch.uint8)
        return DeviceBytes(source=there, size_bytes=there.numel())
    flat = plain.cpu().contiguous().as_strided((plain.numel(),), (1,))
    array: Any = flat.view(torch.uint8).numpy()  # numpy's types do not say that arrays are buffers
    return memoryview(array)


def _is_copied_later(tensor: torch.Tensor) -> bool:
    """Tell whether the bytes are copied out of a device together with all others, see `DeviceBytes`."""
    return tensor.is_cuda


def _is_array_already(tensor: torch.Tensor) -> bool:
    """Tell whether NumPy sees the same bytes: nearly all tensors, for a sixth of the time."""
    return (
        tensor.dtype in _NUMPY_DTYPES
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


def tensor_view(
    buffer: bytes | bytearray | memoryview, record: TensorRecord | HeaderEntry
) -> torch.Tensor:
    """Return a tensor over the bytes of `buffer`, without a copy and without reading them.

    The tensor keeps the buffer alive. It must not be written to: the buffer may be read-only memory.
    An unaligned tensor is copied.

    Args:
        buffer: the whole file.
        record: where the tensor lies in it.
    Raises: TruncatedError if it ends behind the buffer; InvalidManifestError if dtype, shape and size
        do not fit each other; FormatError if torch has no such dtype.
    """
    if sys.byteorder != "little":
        raise FormatError("tensor files are little-endian; this machine is not")
    dtype, shape = torch_dtype(record.dtype), tuple(record.shape)
    needed = num_bytes(record.dtype, shape)
    if needed != record.size_bytes:
        raise InvalidManifestError(
            f"{record.dtype} {list(shape)} needs {needed} bytes; the record says {record.size_bytes}"
        )
    view = memoryview(buffer).cast("B")
    if record.offset + needed > len(view):
        raise TruncatedError(
            f"a tensor ends at byte {record.offset + needed} of a file of {len(view)} bytes"
        )
    if record.dtype == "F4":
        shape = _packed_shape(shape)
    if not needed:
        return torch.empty(shape, dtype=dtype)
    flat = torch.from_numpy(_writable_array(view[record.offset : record.offset + needed]))
    if flat.data_ptr() % dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype).reshape(shape)


def _packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape or shape[-1] % 2:
        raise InvalidManifestError(f"F4 {list(shape)} does not come in pairs")
    return (*shape[:-1], shape[-1] // 2)


class _Bytes:
    """Memory that claims to be writable and keeps its buffer alive.

    torch has no read-only tensors and warns, once a process, about an array that is not writable.
    Silencing warnings is not thread-safe, so the array says that it is.
    """

    def __init__(self, view: memoryview) -> None:
        readable = np.frombuffer(view, np.uint8)
        self._keep = readable
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": readable.shape,
            "typestr": "|u1",
            "data": (readable.__array_interface__["data"][0], False),
        }


def _writable_array(view: memoryview) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(_Bytes(view))
