"""Callables that stand around other callables, and the entries of class bodies."""

from __future__ import annotations

import functools
import types
from typing import Any, Final

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.code import canonical_code
from weightslab.engine.identity.expand import Shape, class_label, expand, object_shape, object_state
from weightslab.engine.identity.library import (
    class_dict,
    class_mro,
    dotted_name,
    home_of,
    is_library,
    module_of,
    public_class_name,
)

__all__ = [
    "cached_names",
    "functions_of",
    "library_bases",
    "library_object",
    "library_wrapper",
    "members_of",
    "plain_function",
    "user_bases",
    "wrapped_shape",
]

_MARKERS: Final = frozenset({"typing.Generic", "typing.Protocol", "abc.ABC", "builtins.object"})
# run by Python or torch around a call, or never by forward: not what the class computes
_CONSTRUCTION: Final = frozenset({"__init__", "__new__", "__init_subclass__", "__post_init__"})
_NOT_BEHAVIOUR: Final = frozenset({
    "__repr__", "__str__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__",
    "__deepcopy__", "__copy__", "__del__", "extra_repr", "__module__", "__qualname__", "__doc__",
    "__dict__", "__weakref__", "__annotations__", "__firstlineno__", "__static_attributes__",
    "__slots__", "__match_args__", "__dataclass_fields__", "__dataclass_params__", "__hash__",
    "__annotate__", "__annotations_cache__", "__annotate_func__", "__abstractmethods__",
    "_abc_impl", "__parameters__", "__orig_bases__", "__conditional_annotations__",
})  # fmt: skip


def wrapped_shape(value: Any) -> Shape | None:  # noqa: PLR0911  one rule per kind
    """Return the shape of callables made by functools, operator and descriptors."""
    kind = type(value)
    if kind is staticmethod or kind is classmethod:
        return "dict", [(f"${kind.__name__}", value.__func__)]
    if kind is property:
        return "dict", [("$property", [value.fget, value.fset])]
    if module_of(kind) == "functools" and hasattr(value, "__wrapped__"):
        return "dict", [("$cached", value.__wrapped__)]
    if kind is functools.cached_property:
        return "dict", [("$cached_property", value.func)]
    if module_of(kind) == "operator":
        made = value.__reduce__()
        return "dict", [("$operator", [kind.__name__, list(made[1])])]
    if kind is types.BuiltinFunctionType and dotted_name(value) is None:
        return "dict", [("$method", [value.__self__, value.__name__])]
    return None


def functions_of(member: Any) -> list[types.FunctionType]:
    """Return the functions behind an entry of a class body."""
    kind = type(member)  # `isinstance` would ask the object, which may be a user's
    if issubclass(kind, (staticmethod, classmethod)):
        member = member.__func__
    elif issubclass(kind, functools.cached_property):
        member = member.func
    starts = (member.fget, member.fset) if issubclass(kind, property) else (member,)
    found: list[types.FunctionType] = []
    for start in starts:
        function = start
        while type(function) is types.FunctionType:
            function = plain_function(function)
            found.append(function)
            function = vars(function).get("__wrapped__")
    return found


def plain_function(function: types.FunctionType) -> types.FunctionType:
    """Return the function that torch.compile was put around: compiling changes speed alone."""
    inner = vars(function).get("_torchdynamo_orig_callable")
    return inner if type(inner) is types.FunctionType else function


def library_wrapper(function: types.FunctionType) -> Shape:
    """Return the shape of a function that a library made: its name, and what it closes over."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    content = [[name, cell.cell_contents] for name, cell in sorted(cells, key=lambda c: c[0])]
    name = f"{home_of(function)}.{function.__code__.co_name}"
    return "dict", [("$made_by_library", [name, content])]


def library_object(value: Any) -> Shape | None:
    """Return the shape of a library's object without what its methods change after construction."""
    kind: Any = type(value)
    try:
        return expand(value)
    except NotCanonicalError:
        if not is_library(module_of(kind)):
            raise
    changing = _late_writes(kind)
    state = {k: v for k, v in object_state(value).items() if k not in changing}
    return object_shape(class_label(kind), state)


@functools.lru_cache(maxsize=1024)
def _late_writes(cls: Any) -> frozenset[str]:
    names: set[str] = set()
    for base in class_mro(cls):
        for name, member in class_dict(base).items():
            if name in _CONSTRUCTION:
                continue
            for function in functions_of(member):
                form = canonical_code(function.__code__, lambda chain: (chain[0], 1))
                names |= form.effects.writes | form.effects.mutates
    return frozenset(names)


def user_bases(cls: type) -> list[type]:
    """Return the classes of the MRO that are a user's, most derived first."""
    return [base for base in class_mro(cls) if not is_library(module_of(base))]


def library_bases(cls: type) -> list[str]:
    """Return the library classes that a class is made of, markers for people and checkers aside."""
    names = [public_class_name(b) for b in class_mro(cls) if is_library(module_of(b))]
    return [name for name in names if name not in _MARKERS]


def cached_names(cls: type) -> frozenset[str]:
    """Return the attributes that a class computes once and then keeps on the object."""
    return frozenset(
        name
        for base in user_bases(cls)
        for name, member in class_dict(base).items()
        if _keeps_its_value(type(member))
    )


def _keeps_its_value(kind: type) -> bool:
    """Say whether a descriptor gives way to a value of its name (a `cached_property`, or alike)."""
    if kind is functools.cached_property:
        return True
    if is_library(module_of(kind)):
        return False
    names = {name for base in class_mro(kind) for name in class_dict(base)}
    return "__get__" in names and "__set__" not in names


def members_of(base: type, *, constructed: bool) -> list[tuple[str, Any]]:
    """Return the entries of a class body that are behaviour or data."""
    hidden = _NOT_BEHAVIOUR if constructed else _NOT_BEHAVIOUR | _CONSTRUCTION
    return [
        (name, member)
        for name, member in class_dict(base).items()
        if name not in hidden
        and not issubclass(type(member), (types.MemberDescriptorType, types.GetSetDescriptorType))
    ]
