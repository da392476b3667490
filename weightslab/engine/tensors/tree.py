"""State trees: any nesting of values and tensors, taken apart into tensors and tagged JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weightslab.engine.errors import FormatError
from weightslab.engine.jsonform import decode, encode
from weightslab.engine.tensors.image import check_storable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["join", "split"]


def split(state: object) -> tuple[dict[str, torch.Tensor], Any]:
    """Take `state` apart.

    A tensor becomes `{"$tensor": name}`; its name tells where it was found. dtypes, devices and
    sizes of torch have tags of their own. One tensor object found twice is listed once.

    Returns: name -> tensor, and the rest as tagged JSON.
    Raises: NotStorableError naming the path of what has no place in the format.
    """
    tensors: dict[str, torch.Tensor] = {}
    names: dict[int, str] = {}

    def leaf(value: object, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in names:
                name = _unused(path.removeprefix("$").removeprefix("."), tensors)
                check_storable(value, name)
                names[id(value)] = name
                tensors[name] = value
            return {"$tensor": names[id(value)]}
        if isinstance(value, torch.dtype):
            return {"$dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"$device": str(value)}
        if isinstance(value, torch.Size):
            return {"$size": list(value)}
        return NotImplemented

    return tensors, encode(state, leaf=leaf)


def _unused(name: str, taken: Mapping[str, object]) -> str:
    """Return `name`, with a number behind it if two paths read the same."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}~{number}", number + 1
    return candidate


def join(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put the state back together; the inverse of `split`.

    Raises: FormatError for a tag that is malformed or names a tensor that is not there.
    """

    def leaf(tag: str, content: Any, path: str) -> Any:
        if tag == "$tensor":
            if content not in tensors:
                raise FormatError(f"{path} refers to the tensor {content!r}, which is not there")
            return tensors[content]
        if tag == "$dtype":
            found = getattr(torch, str(content), None)
            if not isinstance(found, torch.dtype):
                raise FormatError(f"{path} names the unknown dtype {content!r}")
            return found
        if tag == "$device":
            return torch.device(content)
        if tag == "$size":
            return torch.Size(content)
        return NotImplemented

    return decode(skeleton, leaf=leaf)
