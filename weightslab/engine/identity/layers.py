"""What a library layer is: its public name, constructor parameters and constants."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.library import is_library, public_class_name
from weightslab.engine.identity.wrappers import real_class, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["INFRASTRUCTURE", "class_name", "library_attributes", "outline_of", "walk"]

# entries of `module.__dict__` that nn.Module keeps for itself
INFRASTRUCTURE: Final = frozenset({
    "training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set",
    "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook", "_forward_hooks",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_compiled_call_impl",
    "_version", "call_super_init", "dump_patches",
})  # fmt: skip
_MISSING: Final = object()


def class_name(cls: type) -> str:
    """Return `torch.nn.Linear` for a library class, the bare name for a user's."""
    return public_class_name(cls) if is_library(cls.__module__) else cls.__name__


@functools.lru_cache(maxsize=4096)
def _constants(cls: type) -> tuple[tuple[str, Any], ...]:
    """Return (attribute, default or `_MISSING`) of the library part of a class."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if not is_library(base.__module__) or base.__qualname__ == "Module":
            continue
        init = base.__dict__.get("__init__")
        if init is not None:
            for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
                empty = parameter.default is inspect.Parameter.empty
                found.setdefault(name, _MISSING if empty else parameter.default)
        for name in base.__dict__.get("__constants__", ()):
            found.setdefault(name, _MISSING)
    return tuple(sorted(found.items(), key=lambda pair: pair[0]))


def library_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the constructor parameters and constants of the library part of a module.

    Values that equal the default are left out, so that a new parameter of a newer library does
    not change the description of old models.
    """
    own = vars(module)
    found: dict[str, Any] = {}
    for name, default in _constants(real_class(module)):
        value = own.get(name, _MISSING)
        if value is _MISSING or _is_default(value, default):
            continue
        found[name] = value
    return found


def _is_default(value: Any, default: Any) -> bool:
    if value is default:
        return True
    return (
        type(value) is type(default)
        and type(value) in (bool, int, float, str)
        and repr(value) == repr(default)
    )


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module | None, str | None]]:
    """Yield (clean path, module without wrappers, path it was first seen at or None), in order.

    Registered children that are None are yielded as None.
    """
    seen: dict[int, str] = {}
    stack: list[tuple[str, nn.Module | None]] = [("", model)]
    while stack:
        path, module = stack.pop()
        if module is None:
            yield path, None, None
            continue
        module = unwrap(module)
        first = seen.setdefault(id(module), path)
        if first != path:
            yield path, module, first
            continue
        yield path, module, None
        children = [
            (f"{path}.{name}" if path else name, child) for name, child in module._modules.items()
        ]
        stack.extend(reversed(children))


def outline_of(model: nn.Module) -> dict[str, str]:
    """Return clean path -> text of what a module is, cheaply; for noticing that a model changed."""
    seen: dict[int, str] = {}
    lines: dict[str, str] = {}
    for path, module, first in walk(model):
        if module is None or first is not None:
            lines[path] = "None" if module is None else f"same as {first}"
            continue
        parts = [class_name(real_class(module))]
        parts += [f"{name}={_short(value)}" for name, value in library_attributes(module).items()]
        for kind, tensors in (("param", module._parameters), ("buffer", module._buffers)):
            for name, tensor in tensors.items():
                if kind == "buffer" and name in module._non_persistent_buffers_set:
                    continue
                parts.append(_tensor_line(kind, name, tensor, seen, path))
        lines[path] = "; ".join(parts)
    return lines


def _short(value: Any) -> str:
    """Return stable text for plain values, the type alone for others (they are cheap to miss)."""
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(map(_short, value)) + "]"
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    return getattr(value, "__name__", type(value).__name__)


def _tensor_line(kind: str, name: str, tensor: Any, seen: dict[int, str], path: str) -> str:
    if tensor is None:
        return f"{kind} {name} None"
    first = seen.setdefault(id(tensor), f"{path}.{name}")
    if first != f"{path}.{name}":
        return f"{kind} {name} same as {first}"
    frozen = "" if tensor.requires_grad or kind == "buffer" else " frozen"
    if inner_shape(tensor) is None:
        return f"{kind} {name} uninitialised"
    return f"{kind} {name} {tensor.dtype} {inner_shape(tensor)}{frozen}"


def inner_shape(tensor: Any) -> list[int] | None:
    """Return the sizes of a tensor, None for a lazy one that has none yet."""
    from torch.nn.parameter import is_lazy

    return None if is_lazy(tensor) else list(tensor.shape)
