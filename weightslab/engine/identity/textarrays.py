"""Reading texts in bulk into one buffer, from lists and arrays. Never item by item in Python.

Each reader returns None where its quick way does not apply (another type inside, half a character,
bytes that are not UTF-8); the caller then goes item by item and names what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.parallel import in_parts
from weightslab.engine.identity.texts import PADDING, Texts, text_bounds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]

__all__ = ["from_arrow_texts", "from_bytes_list", "from_numpy_texts", "from_str_list", "is_utf8"]

_BLOCK: Final = 1 << 14  # rows: of 16 characters, 1 MiB in UCS-4, 256 KiB in UTF-8
_STRIDE: Final = 1 << 18  # bytes looked at at a time


def from_str_list(items: list[Any]) -> Texts | None:
    """Read a list of str.

    One join and a look for the separators: with millions of strings strewn over the memory, each
    further pass over the objects themselves (their types, their lengths) would cost a second.
    """
    import numpy as np

    try:
        data = ("\0".join(items) + "\0" * (PADDING + 1)).encode()
    except (TypeError, UnicodeEncodeError):
        return None
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw[: raw.size - PADDING] == 0)
    if ends.size != len(items):  # a text has a NUL inside
        return from_bytes_list([text.encode() for text in items])
    bounds = np.zeros(len(items) + 1, np.uint32 if raw.size < 1 << 32 else np.int64)
    np.add(ends, 1, out=bounds[1:], casting="unsafe")
    return Texts(raw, bounds, gap=1)


def from_bytes_list(items: list[Any]) -> Texts | None:
    """Read a list of bytes that are UTF-8."""
    if set(map(type, items)) != {bytes}:
        return None
    texts = Texts.of(items)
    return texts if is_utf8(texts) else None


def is_utf8(texts: Texts) -> bool:
    """Say whether each of the texts is UTF-8 by itself."""
    if not _has_high_bit(texts):
        return True
    try:
        texts.data.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    # the whole is in order; so is each text, unless one begins in the middle of a character
    starts, lengths = texts.spans(0, len(texts))
    begins_inside = (texts.data[starts] & 0xC0) == 0x80  # noqa: PLR2004 - RFC 3629, section 3
    return not bool((begins_inside & (lengths > 0)).any())


def _has_high_bit(texts: Texts) -> bool:
    return any(
        bool(texts.data[at : at + _STRIDE].max() & 0x80)
        for at in range(int(texts.bounds[0]), int(texts.bounds[-1]), _STRIDE)
    )


def from_arrow_texts(array: Any) -> Texts | None:
    """Read a pyarrow large_string or large_binary array without missing values."""
    import numpy as np

    _, offsets, data = array.buffers()
    if not len(array):
        return Texts.of([])
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    low, high = int(ends[0]), int(ends[-1])
    own = np.zeros(high - low + PADDING, np.uint8)  # a copy: the array may be part of a large table
    if high > low:
        own[: high - low] = np.frombuffer(data, np.uint8)[low:high]
    bounds = np.empty(ends.size, np.uint32 if high - low < 1 << 32 else np.int64)
    np.subtract(ends, low, out=bounds, casting="unsafe")
    texts = Texts(own, bounds)
    return texts if str(array.type) == "large_string" or is_utf8(texts) else None


def from_numpy_texts(array: Any) -> Texts | None:
    """Read a numpy array of `U` (as long as it is ASCII) or `S`, one-dimensional."""
    import numpy as np

    if not array.size or not array.dtype.itemsize:
        return Texts.of([b""] * array.size)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    unit = np.uint32 if array.dtype.kind == "U" else np.uint8
    matrix = array.view(unit).reshape(array.size, -1)
    out = np.empty(matrix.size + PADDING, np.uint8)
    out[matrix.size :] = 0
    rows = out[: matrix.size].reshape(matrix.shape)

    def narrow(low: int, high: int, step: int) -> bool:
        for at in range(low, high, step):
            block = matrix[at : min(at + step, high)]
            if unit is np.uint32 and int(block.max()) > 0x7F:  # noqa: PLR2004 - the last of ASCII
                return False
            np.copyto(rows[at : at + len(block)], block, casting="unsafe")
        return True

    if not all(in_parts(array.size, narrow)):
        return from_str_list(array.tolist())
    texts = _without_padding(rows, out)
    return texts if unit is np.uint32 or is_utf8(texts) else None


def _without_padding(rows: Bytes, out: Bytes) -> Texts:
    """Return the texts of a matrix uint8 [n, width], cut at the NULs that fill each row up."""
    import numpy as np

    count, width = rows.shape
    short = np.flatnonzero(rows[:, -1] == 0)
    if not short.size:
        ends = count * width
        kind = np.dtype(np.uint32 if ends < 1 << 32 else np.int64)
        return Texts(out, np.arange(0, ends + 1, width, dtype=kind))
    lengths = np.full(count, width, np.int64)
    for at in range(0, short.size, _BLOCK):
        part = short[at : at + _BLOCK]
        filled = rows[part, ::-1] != 0
        lengths[part] = np.where(filled.any(axis=1), width - filled.argmax(axis=1), 0)
    bounds = text_bounds(lengths)
    kept = np.empty(int(bounds[-1]) + PADDING, np.uint8)
    kept[int(bounds[-1]) :] = 0
    for at in range(0, count, _BLOCK):
        size = lengths[at : at + _BLOCK]
        inside = np.arange(width) < size[:, None]
        kept[int(bounds[at]) : int(bounds[at + size.size])] = rows[at : at + _BLOCK][inside]
    return Texts(kept, bounds)
