"""Which dtypes a tensor file can hold: those of safetensors, by the names safetensors gives them."""

from __future__ import annotations

from typing import Final

import torch

from weightslab.engine.errors import FormatError

__all__ = ["DTYPES", "dtype_name", "dtype_of"]

# safetensors 0.8, safetensors/torch.py; kept here because the format is ours to promise
DTYPES: Final[dict[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> str | None:
    """Return the safetensors name of `dtype`, None if a tensor file cannot hold it."""
    return _NAMES.get(dtype)


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype of a safetensors name.

    Raises: FormatError.
    """
    if name not in DTYPES:
        raise FormatError(f"unknown tensor dtype {name!r}", hint=f"known: {', '.join(DTYPES)}")
    return DTYPES[name]
