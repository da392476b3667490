"""Which code is a library's: named by its dotted name, where a user's is read and hashed.

The list is closed and versioned, because moving a package from one side to the other changes
hashes. The standard library is on the library side. A team adds packages of its own by argument.
"""

from __future__ import annotations

import functools
import sys
import types
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "LIBRARIES",
    "LIBRARY_LIST_VERSION",
    "bare_name",
    "checked_libraries",
    "class_dict",
    "class_mro",
    "dotted_name",
    "home_of",
    "is_library",
    "kinds",
    "module_of",
    "public_class_name",
    "qualified_name",
    "with_libraries",
]

LIBRARY_LIST_VERSION: Final = 1
LIBRARIES: Final = frozenset({
    "accelerate", "bitsandbytes", "diffusers", "einops", "fastai", "flash_attn", "functorch",
    "kornia", "lightning", "monai", "numpy", "omegaconf", "open_clip", "pandas", "peft",
    "pydantic", "pytorch_lightning", "scipy", "segmentation_models_pytorch", "sentence_transformers",
    "sklearn", "timm", "torch", "torch_geometric", "torchaudio", "torchmetrics", "torchtune",
    "torchvision", "transformers", "triton", "xformers",
})  # fmt: skip
# read past the metaclass, which may be a user's and answer by running code
_MRO_OF: Final = type.__dict__["__mro__"].__get__
_DICT_OF: Final = type.__dict__["__dict__"].__get__
_MODULE_OF: Final = type.__dict__["__module__"].__get__
_NAME_OF: Final = type.__dict__["__name__"].__get__
_QUALNAME_OF: Final = type.__dict__["__qualname__"].__get__
_added: ContextVar[frozenset[str]] = ContextVar("libraries", default=frozenset())
_PUBLIC_HOMES: Final = ("torch.nn", "torch.nn.functional", "torch", "torch.optim", "numpy")


def kinds(*classes: type) -> frozenset[int]:
    """Return a set to look up `id(type(value))` in: the metaclass of a user may hash or compare."""
    return frozenset(map(id, classes))


def is_library(module_name: object) -> bool:
    """Say whether code of this module is known by name; other code is described by its content."""
    if type(module_name) is not str:
        return False
    return _is_library(module_name) or module_name.partition(".")[0] in _added.get()


def checked_libraries(names: Iterable[str]) -> frozenset[str]:
    """Return names of packages to be counted as libraries.

    Raises: TypeError; ValueError for what is no top-level package.
    """
    if isinstance(names, str):
        raise TypeError("libraries is a sequence of package names, not one str")
    found = frozenset(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"the name of a package is a str, not {type(name).__name__}")
        if not name.isidentifier() or name == "__main__":
            raise ValueError(f"{name!r:.60} is no top-level package, which can be a library")
    return found


@contextmanager
def with_libraries(names: frozenset[str]) -> Iterator[None]:
    """Count the packages as libraries inside the block, in this thread."""
    token = _added.set(names)
    try:
        yield
    finally:
        _added.reset(token)


_DESCRIPTORS: Final = kinds(
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType
)


@functools.lru_cache(maxsize=4096)
def _is_library(module_name: str) -> bool:
    top = module_name.partition(".")[0]
    return top != "__main__" and (top in LIBRARIES or top in sys.stdlib_module_names)


def class_mro(cls: type) -> tuple[type, ...]:
    """Return the classes that a class is made of, itself first."""
    return _MRO_OF(cls)  # type: ignore[no-any-return]


def class_dict(cls: type) -> types.MappingProxyType[str, Any]:
    """Return the body of a class."""
    return _DICT_OF(cls)  # type: ignore[no-any-return]


def module_of(cls: type) -> object:
    """Return the name of the module that a class was made in; a text, unless somebody changed it."""
    return _MODULE_OF(cls)


def bare_name(cls: type) -> str:
    """Return the name of a class without its module."""
    return str(_NAME_OF(cls))


def qualified_name(cls: type) -> str:
    """Return the name of a class with the classes and functions around it."""
    return str(_QUALNAME_OF(cls))


def public_class_name(cls: type) -> str:
    """Return the shortest public dotted name of a library class (`torch.nn.Linear`)."""
    name = _NAME_OF(cls)
    for home in _PUBLIC_HOMES:
        module = sys.modules.get(home)
        if module is not None and module.__dict__.get(name) is cls:
            return f"{home}.{name}"
    return f"{_MODULE_OF(cls)}.{_QUALNAME_OF(cls)}"


def dotted_name(value: Any) -> str | None:  # noqa: PLR0911  one line per kind of value
    """Return the dotted name of a library function, class, built-in or module; None for others."""
    kind = type(value)  # `isinstance` would ask the object, which may be a user's
    if issubclass(kind, type):
        return public_class_name(value) if is_library(module_of(value)) else None
    if kind is types.ModuleType:
        return str(value.__name__) if is_library(value.__name__) else None
    if kind is types.FunctionType:
        return _function_name(value)
    if kind is types.BuiltinFunctionType:
        return _builtin_name(value)
    if id(kind) in _DESCRIPTORS:
        return f"{public_class_name(value.__objclass__)}.{value.__name__}"
    if type(value).__module__ == "numpy" and type(value).__name__ == "ufunc":
        return f"numpy.{value.__name__}"
    if type(value).__module__ == "torch._ops":
        return f"torch.ops.{value!s}"
    return None


def home_of(function: types.FunctionType) -> str:
    """Return the module that the code of a function lives in.

    `functools.wraps` copies `__module__` from the wrapped function, so that one does not say.
    """
    return str(function.__globals__.get("__name__", ""))


def _function_name(value: types.FunctionType) -> str | None:
    """Return the name of a library function, None where the name does not say which one it is."""
    home = home_of(value)
    if not is_library(home):
        return None
    for place in (value.__module__, home):
        module = sys.modules.get(place or "")
        if not is_library(place):  # copied by functools.wraps from what is wrapped
            continue
        if module is not None and module.__dict__.get(value.__name__) is value:
            return f"{place}.{value.__name__}"
    made_at_run_time = "<" in value.__qualname__ or "__wrapped__" in value.__dict__
    return None if made_at_run_time else f"{home}.{value.__qualname__}"


def _builtin_name(value: types.BuiltinFunctionType) -> str | None:
    name = value.__name__
    for home in ("torch.nn.functional", "torch"):  # `torch._C._nn.gelu` is nobody's word for it
        module = sys.modules.get(home)
        if module is not None and module.__dict__.get(name) is value:
            return f"{home}.{name}"
    owner = value.__self__
    if owner is None:
        return f"{value.__module__ or 'builtins'}.{value.__qualname__}"
    if isinstance(owner, types.ModuleType):
        return f"{owner.__name__}.{name}"
    if isinstance(owner, type):
        return f"{public_class_name(owner)}.{name}"
    return None  # a bound method of some object: the object counts too
