"""Torch dtypes and their safetensors names, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from weightslab.engine.errors import FormatError, NotStorableError
from weightslab.engine.tensors.header import ITEM_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["dtype_name", "item_size_bytes", "torch_dtype"]

# safetensors name -> attribute of torch. Older versions of torch lack some of the attributes.
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",  # one torch item is a byte with two values
}
_DTYPES: Final[Mapping[str, torch.dtype]] = {
    name: getattr(torch, attribute)
    for name, attribute in _ATTRIBUTES.items()
    if hasattr(torch, attribute)
}
_NAMES: Final[Mapping[torch.dtype, str]] = {dtype: name for name, dtype in _DTYPES.items()}
_REMEDIES: Final[Mapping[str, str]] = {
    "complex128": "keep it as two float64 tensors (torch.view_as_real), or as complex64",
    "complex32": "keep it as two float16 tensors (torch.view_as_real), or as complex64",
}


def dtype_name(dtype: torch.dtype, *, what: str = "the tensor") -> str:
    """Return the safetensors name of a torch dtype.

    Args:
        dtype: any torch dtype.
        what: name of the tensor in the error message.
    Raises: NotStorableError naming the dtype if the format has no name for it.
    """
    name = _NAMES.get(dtype)
    if name is None:
        text = str(dtype).removeprefix("torch.")
        remedy = _REMEDIES.get(text, "convert it to a plain dtype first")
        raise NotStorableError(
            f"{what} has the dtype {text}, for which safetensors has no name", hint=remedy
        )
    return name


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of a safetensors name.

    Raises: FormatError if the name is unknown or the installed torch has no such dtype.
    """
    dtype = _DTYPES.get(name)
    if dtype is None:
        known = name in ITEM_BITS
        raise FormatError(
            f"torch {torch.__version__} has no dtype {name}"
            if known
            else f"unknown dtype {name!r}",
            hint=f"this installation reads {', '.join(_DTYPES)}",
        )
    return dtype


def item_size_bytes(dtype: torch.dtype) -> int:
    """Return the size of one torch item in bytes; a `float4_e2m1fn_x2` item is one byte."""
    return dtype.itemsize
