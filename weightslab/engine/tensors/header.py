"""The safetensors header: a strict reader for files of strangers, and the writer. Free of torch.

Layout (https://github.com/huggingface/safetensors, README "Format"): 8 bytes little-endian length N,
N bytes of JSON, then the data. The JSON maps a name to dtype, shape and [start, end) counted from
the first data byte, and `__metadata__` to text -> text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import InvalidManifestError, NotStorableError, TruncatedError
from weightslab.engine.jsonform import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ITEM_BITS", "FileHeader", "HeaderEntry", "num_bytes", "read_header", "render_header"]

METADATA: Final = "__metadata__"
MAX_HEADER_BYTES: Final = 100_000_000  # safetensors/src/tensor.rs, MAX_HEADER_SIZE
MAX_DIMENSIONS: Final = 64  # c10/util/DimVector.h and at::MaxDims
MAX_BYTES: Final = 2**63 - 1  # file offsets are signed 64-bit numbers
DATA_ALIGNMENT: Final = 64  # a cache line, and the alignment of torch's own CPU allocator
_LENGTH_BYTES: Final = 8

# Every dtype of safetensors 0.8 (enum Dtype in safetensors/src/tensor.rs).
ITEM_BITS: Final[Mapping[str, int]] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEntry:
    """One tensor as the header describes it.

    Attributes:
        dtype: safetensors name (`F32`, ...).
        shape: sizes of the dimensions, in items of `dtype`.
        offset: first byte, counted from the start of the file.
        size_bytes: length of the tensor in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """What stands before the data of a file.

    Attributes:
        entries: name -> tensor, in the order of the bytes.
        metadata: text -> text; with tied tensors, dropped name -> kept name.
        size_bytes: offset of the first data byte.
    """

    entries: dict[str, HeaderEntry]
    metadata: dict[str, str] = field(default_factory=dict)
    size_bytes: int


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return how many bytes a tensor of `dtype` and `shape` takes.

    Raises: InvalidManifestError for an unknown dtype, more than 64 dimensions, a size above 2**63 - 1
        bytes, or 4- and 6-bit items that do not fill whole bytes.
    """
    bits = ITEM_BITS.get(dtype)
    if bits is None:
        raise InvalidManifestError(
            f"unknown dtype {dtype!r:.40}", hint=f"this version knows {', '.join(ITEM_BITS)}"
        )
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidManifestError(f"{len(shape)} dimensions; the limit is {MAX_DIMENSIONS}")
    if any(n > MAX_BYTES for n in shape):
        raise InvalidManifestError("a dimension is above 2**63 - 1")
    # stepwise, and zero first: sizes in hostile headers multiply to numbers of any length
    total = 0 if 0 in shape else bits
    for n in shape:
        total *= n
        if total > 8 * MAX_BYTES:
            raise InvalidManifestError("a tensor is above 2**63 - 1 bytes")
    if total % 8:
        raise InvalidManifestError(f"{dtype} items of shape {list(shape)} do not fill whole bytes")
    return total // 8


def render_header(entries: Mapping[str, HeaderEntry], metadata: Mapping[str, str]) -> bytes:
    """Return the length field and the JSON, padded with spaces to a multiple of 64 bytes.

    Args:
        entries: name -> tensor in the order of the bytes; `offset` counts from the first data byte.
        metadata: text -> text, goes under `__metadata__`.
    Raises: NotStorableError for a name that is reserved or not Unicode, or a header above 100 MB.
    """
    document: dict[str, Any] = {METADATA: dict(metadata)}
    for name, entry in entries.items():
        document[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.offset, entry.offset + entry.size_bytes],
        }
    try:
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise NotStorableError(f"a tensor name or metadata text is not Unicode: {error}") from error
    body += b" " * (-(_LENGTH_BYTES + len(body)) % DATA_ALIGNMENT)
    if len(body) > MAX_HEADER_BYTES:
        raise NotStorableError(
            f"the header of {len(entries)} tensors has {len(body)} bytes; the limit of the format "
            f"is {MAX_HEADER_BYTES}",
            hint="split the model into several named models",
        )
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


def read_header(buffer: bytes | bytearray | memoryview, *, what: str) -> FileHeader:
    """Read and check the header of a whole safetensors file.

    Every byte behind the header belongs to exactly one tensor, or this raises.

    Args:
        buffer: the whole file.
        what: name of the file in error messages.
    Raises: TruncatedError if the file is shorter than the header says; InvalidManifestError for
        everything else that is not in order.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < _LENGTH_BYTES:
        raise TruncatedError(f"{what} has {len(view)} bytes; a safetensors file has at least 8")
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidManifestError(
            f"{what} claims a header of {length} bytes; the limit is {MAX_HEADER_BYTES}"
        )
    start = _LENGTH_BYTES + length
    if start > len(view):
        raise TruncatedError(f"{what} has {len(view)} bytes, its header alone {start}")
    document = _parse(bytes(view[_LENGTH_BYTES:start]), what)
    metadata = _metadata(document.pop(METADATA, {}), what)
    entries = {name: _entry(name, value, start, what) for name, value in document.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size_bytes)))
    _check_gapless(ordered, start, len(view), what)
    return FileHeader(entries=ordered, metadata=metadata, size_bytes=start)


def _parse(body: bytes, what: str) -> dict[str, Any]:
    # json.loads guesses UTF-16 and UTF-32 from zero bytes and skips leading space; the format
    # allows neither
    if not body.startswith(b"{") or b"\0" in body:
        raise InvalidManifestError(f"the header of {what} does not start with a JSON object")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidManifestError(f"the header of {what} is not UTF-8: {error}") from error
    return parse_json(body, what=f"the header of {what}")


def _metadata(value: Any, what: str) -> dict[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise InvalidManifestError(f"{METADATA} of {what} is not an object of texts")
    return dict(value)


def _entry(name: str, value: Any, start: int, what: str) -> HeaderEntry:
    where = f"tensor {name!r:.100} of {what}"
    if type(value) is not dict or set(value) != {"dtype", "shape", "data_offsets"}:
        raise InvalidManifestError(f"{where} has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(dtype) is not str or not _are_counts(shape) or not _are_counts(offsets):
        raise InvalidManifestError(f"{where} has a dtype, shape or offsets of the wrong kind")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= MAX_BYTES - start:  # noqa: PLR2004
        raise InvalidManifestError(f"{where} has the offsets {str(offsets)[:80]}")
    try:
        needed = num_bytes(dtype, tuple(shape))
    except InvalidManifestError as error:
        raise InvalidManifestError(f"{where}: {error.message}", hint=error.hint) from error
    if offsets[1] - offsets[0] != needed:
        raise InvalidManifestError(
            f"{where} takes {offsets[1] - offsets[0]} bytes; {dtype} {str(shape)[:80]} needs {needed}"
        )
    return HeaderEntry(
        dtype=dtype, shape=tuple(shape), offset=start + offsets[0], size_bytes=needed
    )


def _are_counts(value: Any) -> bool:
    return type(value) is list and all(type(n) is int and n >= 0 for n in value)


def _check_gapless(entries: Mapping[str, HeaderEntry], start: int, end: int, what: str) -> None:
    position = start
    for name, entry in entries.items():
        if entry.offset != position:
            kind = "overlaps the one before it" if entry.offset < position else "leaves a gap"
            raise InvalidManifestError(f"tensor {name!r:.100} of {what} {kind}")
        position += entry.size_bytes
    if position > end:
        raise TruncatedError(f"{what} has {end} bytes; its tensors end at {position}")
    if position < end:
        raise InvalidManifestError(f"{what} has {end - position} bytes that belong to no tensor")
