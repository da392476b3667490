"""What a library layer is: its public name, constructor parameters and constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.declared import declared_by
from weightslab.engine.identity.defaults import is_default, parameters_of
from weightslab.engine.identity.library import (
    bare_name,
    class_mro,
    is_library,
    module_of,
    public_class_name,
)
from weightslab.engine.identity.wrappers import own_parts, real_class, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

__all__ = [
    "INFRASTRUCTURE",
    "class_name",
    "constants_of",
    "inner_shape",
    "library_attributes",
    "outline_of",
    "walk",
]

# entries of `module.__dict__` that nn.Module keeps for itself
INFRASTRUCTURE: Final = frozenset({
    "training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set",
    "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook", "_forward_hooks",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_compiled_call_impl",
    "_version", "call_super_init", "dump_patches",
})  # fmt: skip


def class_name(cls: type) -> str:
    """Return `torch.nn.Linear` for a library class, the bare name for a user's."""
    return public_class_name(cls) if is_library(module_of(cls)) else bare_name(cls)


def constants_of(cls: type) -> list[tuple[str, Any]]:
    """Return (attribute, default) of the library part of a class, by name."""
    found: dict[str, Any] = {}
    for base in class_mro(cls):
        if is_library(module_of(base)):
            for name, default in parameters_of(base):
                found.setdefault(name, default)
    return sorted(found.items())


def library_attributes(
    own: Mapping[str, Any], constants: list[tuple[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield the constructor parameters and constants that are kept on a module.

    Values that equal the default are left out, so that a new parameter of a newer library does
    not change the description of old models. A whole number where the default is a float is that
    float: `ELU(1)` computes what `ELU(1.0)` computes.

    Args:
        own: attributes of the module.
        constants: from `constants_of` its class.
    """
    for name, default in constants:
        if name in own:
            value = own[name]
            if type(default) is float and type(value) is int:
                value = float(value)
            if not is_default(value, default):
                yield name, value


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module | None, str | None]]:
    """Yield (clean path, module without wrappers, path it was first seen at or None), in order.

    Registered children that are None are yielded as None; those that a class excludes are not.
    """
    seen: dict[int, str] = {}
    excluded: dict[int, frozenset[str]] = {}
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
        cls = real_class(module)
        if id(cls) not in excluded:
            excluded[id(cls)] = declared_by(cls).exclude
        hidden = excluded[id(cls)]
        children = [
            (f"{path}.{name}" if path else name, child)
            for name, child in own_parts(module, "_modules").items()
            if name not in hidden
        ]
        stack.extend(reversed(children))


def outline_of(model: nn.Module) -> dict[str, str]:
    """Return clean path -> text of what a module is, cheaply; for noticing that a model changed."""
    seen: dict[int, str] = {}
    lines: dict[str, str] = {}
    classes: dict[int, tuple[str, list[tuple[str, Any]], frozenset[str]]] = {}
    for path, module, first in walk(model):
        if module is None or first is not None:
            lines[path] = "None" if module is None else f"same as {first}"
            continue
        cls = real_class(module)
        if id(cls) not in classes:
            classes[id(cls)] = class_name(cls), constants_of(cls), declared_by(cls).exclude
        name_of_class, constants, hidden = classes[id(cls)]
        own = object.__getattribute__(module, "__dict__")
        parts = [name_of_class]
        parts += [f"{n}={_short(v)}" for n, v in library_attributes(own, constants)]
        unsaved = own.get("_non_persistent_buffers_set", ())
        for kind, table in (("param", "_parameters"), ("buffer", "_buffers")):
            for name, tensor in own_parts(module, table).items():
                if name not in hidden and (kind == "param" or name not in unsaved):
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
    shape = inner_shape(tensor)
    if shape is None:
        return f"{kind} {name} uninitialised"
    return f"{kind} {name} {tensor.dtype} {shape}{frozen}"


def inner_shape(tensor: Any) -> list[int] | None:
    """Return the sizes of a tensor, None for a lazy one that has none yet."""
    from torch.nn.parameter import is_lazy

    return None if is_lazy(tensor) else list(tensor.shape)
