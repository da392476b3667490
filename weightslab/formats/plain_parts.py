"""What of a foreign dictionary can be stored: tensors, plain values, and a line about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightslab.engine.errors import FormatError, NotStorableError
from weightslab.engine.jsonform import encode
from weightslab.formats.pickles import plain_text

__all__ = ["plain_entries", "split_model"]


def split_model(found: Any, what: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Take a state_dict apart.

    Returns: key -> tensor, key -> plain value, and what was left out.
    Raises: FormatError if there is no tensor in it.
    """
    import torch

    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise FormatError(f"{what} is no state dict, but a {type(found).__name__}")
    tensors = {str(k): v.detach() for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise FormatError(f"{what} has no tensors")
    rest = {str(k): v for k, v in found.items() if not isinstance(v, torch.Tensor)}
    extra, omitted = plain_entries(rest, what)
    return tensors, extra, omitted


def plain_entries(found: Any, what: str) -> tuple[dict[str, Any], list[str]]:
    """Return the entries of a mapping that can be stored, and a line for each that cannot."""
    if not isinstance(found, Mapping):
        return {}, [f"{what}: a {type(found).__name__}, not a mapping"]
    plain: dict[str, Any] = {}
    omitted = []
    for key, value in found.items():
        inert = plain_text(value)
        try:
            encode(inert, path=f"{what}.{key!s:.60}")
        except NotStorableError as error:
            omitted.append(str(error))
        else:
            plain[str(key)] = inert
    return plain, omitted
