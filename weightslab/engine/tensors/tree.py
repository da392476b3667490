"""State trees: any nesting of values and tensors, taken apart into tensors and tagged JSON.

A tensor is named after its place: `optimizer/state/0/exp_avg`. Segments are list positions, integer
keys, and text keys in which `%` and `/` are escaped, as is the first digit of a key that reads like a
number; so different places never share a name.
"""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Final

import torch

from weightslab.engine.errors import FormatError, NotStorableError
from weightslab.engine.jsonform import MAX_DEPTH, decode, encode
from weightslab.engine.tensors.header import METADATA
from weightslab.engine.tensors.storable import require_storable, tie_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = ["join", "split"]

_TENSOR: Final = "$tensor"
_DTYPE: Final = "$torch.dtype"
_DEVICE: Final = "$torch.device"
_SIZE: Final = "$torch.Size"
_MAPPINGS: Final = (dict, OrderedDict, Counter)
_NO_TENSORS: Final = frozenset({type(None), bool, int, float, str, bytes})
_NO_LEAVES: Final = _NO_TENSORS | {dict, list, tuple}
_INTEGER: Final = re.compile(r"-?[0-9]")


def split(state: object, *, prefix: str = "") -> tuple[dict[str, torch.Tensor], Any]:
    """Take `state` apart; nothing is copied.

    A tensor becomes `{"$tensor": name}`; dtypes, devices and sizes of torch have tags of their own.
    Tensors that are the same bytes seen the same way are listed once, under the first place.

    Args:
        state: any nesting of what `jsonform.encode` knows, and of tensors as values.
        prefix: goes before every name, with a `/` between.
    Returns: name -> tensor, and the rest as tagged JSON.
    Raises: NotStorableError naming the place of what has no place in the format.
    """
    places: dict[int, str] = {}
    first: dict[Hashable, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    found: list[tuple[str, torch.Tensor]] = []
    _find(state, prefix, 0, found)
    for name, tensor in found:
        if id(tensor) in places:
            continue
        require_storable(tensor, name)
        kept = first.setdefault(tie_key(tensor), name)
        places[id(tensor)] = kept
        tensors.setdefault(kept, tensor)

    def leaf(value: object, path: str) -> Any:
        if type(value) in _NO_LEAVES:
            return NotImplemented
        if isinstance(value, torch.Tensor):
            if id(value) not in places:
                raise NotStorableError(
                    f"{path} is a tensor in a set", hint="keep tensors as values or items"
                )
            return {_TENSOR: places[id(value)]}
        return _encode_torch(value)

    return tensors, encode(state, leaf=leaf, path=prefix or "state")


def _find(value: Any, name: str, depth: int, found: list[tuple[str, torch.Tensor]]) -> None:
    """Append the name of each place that holds a tensor, and the tensor."""
    if isinstance(value, torch.Tensor):
        found.append((name or "tensor", value))
    elif depth > MAX_DEPTH:
        return  # `encode` refuses it, and says where
    elif type(value) in _MAPPINGS:
        for key, item in value.items():
            if type(item) not in _NO_TENSORS:  # most values; names are built for the others alone
                _find(item, _below(name, _segment(key)), depth + 1, found)
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            if type(item) not in _NO_TENSORS:
                _find(item, _below(name, str(position)), depth + 1, found)


def _below(name: str, segment: str) -> str:
    if not name:
        # the header of a tensor file has an entry of its own under this name
        return "%5F" + segment[1:] if segment == METADATA else segment
    return f"{name}/{segment}"


def _segment(key: object) -> str:
    """Return a text for a key; injective over all keys that can stand in one mapping."""
    if type(key) is int:
        return str(key)
    if type(key) is not str:
        # `%` is followed by two hex digits in escapes, so `%!` begins nothing else
        return "%!" + _escaped(json.dumps(encode(key, leaf=_key_leaf, path="a key")))
    if not key:
        return "%"
    text = _escaped(key)
    return f"%{ord(text[0]):02X}{text[1:]}" if _INTEGER.match(text) else text


def _escaped(text: str) -> str:
    # a lone surrogate is legal in a Python str and in no file
    if text.isascii() and "%" not in text and "/" not in text:
        return text
    plain = text.replace("%", "%25").replace("/", "%2F")
    return re.sub("[\ud800-\udfff]", lambda found: f"%u{ord(found[0]):04X}", plain)


def _key_leaf(value: object, path: str) -> Any:
    if isinstance(value, torch.Tensor):
        raise NotStorableError(f"{path} is a tensor", hint="keep tensors as values or items")
    return _encode_torch(value)


def _encode_torch(value: object) -> Any:
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {_DEVICE: str(value)}
    if isinstance(value, torch.Size):
        return {_SIZE: list(value)}
    return NotImplemented


def join(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put a state back together; the inverse of `split`.

    Args:
        skeleton: the tagged JSON.
        tensors: name -> tensor; a tensor that the skeleton names twice stands in both places.
    Raises: FormatError for a tag that is malformed or names a tensor that is not there.
    """

    def leaf(tag: str, content: Any, path: str) -> Any:
        if tag == _TENSOR:
            if type(content) is not str or content not in tensors:
                raise FormatError(f"{path} refers to tensor {content!r:.100}, which is not there")
            return tensors[content]
        try:
            return _decode_torch(tag, content)
        except (TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{path} has a malformed {tag} value: {error}") from error

    return decode(skeleton, leaf=leaf)


def _decode_torch(tag: str, content: Any) -> Any:
    if tag == _DTYPE:
        found = getattr(torch, content, None)
        if not isinstance(found, torch.dtype):
            raise ValueError(f"torch has no dtype {content!r:.40}")
        return found
    if tag == _DEVICE:
        if type(content) is not str:
            raise TypeError("a device is named by a text")
        return torch.device(content)
    if tag == _SIZE:
        if type(content) is not list or any(type(n) is not int or n < 0 for n in content):
            raise ValueError("a size is a list of numbers >= 0")
        return torch.Size(content)
    return NotImplemented
