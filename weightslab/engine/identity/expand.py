"""One step of turning a value into plain form: what it is made of, without looking inside.

A `Shape` is one of

    ("leaf", plain value)      ("list", sequence)      ("set", sequence, to be sorted)
    ("dict", [(plain key, value), ...])                ("again", another value in its place)

Values are read through their type and their `__dict__`, never through `__repr__`, `__eq__` or
`__getattr__` of the user's classes.
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.library import (
    class_dict,
    class_mro,
    dotted_name,
    is_library,
    kinds,
    module_of,
    public_class_name,
    qualified_name,
)

__all__ = [
    "LEAF",
    "Shape",
    "Special",
    "Unordered",
    "expand",
    "mapping_shape",
    "object_state",
    "refuse",
    "tagged",
]

Shape = tuple[str, Any]
Special = Callable[[Any], "Shape | None"]
LEAF: Final = kinds(type(None), bool, int, float, str)  # of `id(type(value))`
_KEY: Final = (type(None), bool, int, float, str)
_FUNCTIONS: Final = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    type,
)
_FLAGS_OF: Final = type.__dict__["__flags__"].__get__
_REMEDY: Final = "write it as a number, text, list or dict, or exclude the key with config_exclude"


class Unordered:
    """Members that are sorted by content, so that their order does not count."""

    __slots__ = ("members",)

    def __init__(self, members: Iterable[Any]) -> None:
        self.members = list(members)


def refuse(value: object, *, remedy: str = _REMEDY) -> NotCanonicalError:
    """Return the error for a value that has no deterministic form."""
    kind = type(value)
    return NotCanonicalError(
        f"a {module_of(kind)}.{qualified_name(kind)} has no deterministic form", hint=remedy
    )


def expand(value: Any) -> Shape:
    """Return the shape of `value`.

    Raises: NotCanonicalError without a path (the caller knows it).
    """
    kind = type(value)
    if id(kind) in LEAF:
        return "leaf", value
    for rule in (_standard, _foreign, _structured):
        if (shape := rule(value, kind)) is not None:
            return shape
    if _derives(kind, collections.UserDict):
        return mapping_shape(list(dict.items(object_state(value)["data"])))
    # a mapping of the user's own would answer by running the user's code: its attributes count
    if _derives(kind, collections.abc.Mapping) and is_library(module_of(kind)):
        return mapping_shape(_read_mapping(value))
    if is_library(module_of(kind)):  # a thread, a logger, an optimizer: more than its attributes
        raise refuse(value)
    return object_shape(class_label(kind), object_state(value))


def _derives(kind: type, base: type) -> bool:
    """Say whether a class is written as a subclass; `issubclass` of an ABC would hash the class."""
    return any(one is base for one in class_mro(kind))


def tagged(kind: str, payload: Any) -> Shape:
    """Return the shape of `{"$kind": payload}`."""
    return "dict", [(f"${kind}", payload)]


def object_shape(label: str, state: dict[str, Any]) -> Shape:
    """Return the shape of an object: its class, and its attributes by name."""
    return "dict", [("$object", label), ("$state", state)]


# ---------------------------------------------------------------- the standard library
def _standard(value: Any, kind: type) -> Shape | None:
    if issubclass(kind, enum.Enum):
        return _enum_shape(value, kind)
    for base, rule in _BY_TYPE:
        if issubclass(kind, base):
            return rule(value)
    return None


def _enum_shape(value: Any, kind: type) -> Shape:
    raw = object.__getattribute__(value, "__dict__")
    name, content = raw.get("_name_"), raw.get("_value_")
    if issubclass(kind, (str, int)) and not issubclass(kind, enum.Flag):
        return "again", content
    shown = content if id(type(content)) in LEAF else None
    return tagged("enum", [f"{class_label(kind)}.{name}", shown])


def _ratio(value: Any) -> Shape:
    if isinstance(value, decimal.Decimal) and not value.is_finite():
        return "leaf", float(value) if not value.is_snan() else float("nan")
    if isinstance(value, decimal.Decimal) and abs(value.adjusted()) > 4000:  # noqa: PLR2004
        sign, digits, exponent = value.as_tuple()
        text = "".join(map(str, digits)).rstrip("0")
        scale = int(exponent) + len(digits) - len(text)
        return tagged("number", f"{'-' if sign else ''}{text}e{scale}")
    ratio = fractions.Fraction(value)
    if ratio.denominator == 1:
        return "leaf", int(ratio)
    return tagged("number", f"{ratio.numerator}/{ratio.denominator}")


def _partial(value: Any) -> Shape:
    return tagged("partial", [value.func, list(value.args), dict(value.keywords)])


def _regex(value: Any) -> Shape:
    return tagged("regex", [value.pattern, int(value.flags)])


def _method(value: Any) -> Shape:
    return tagged("method", [value.__func__, value.__self__])


def _deltas(value: dt.timedelta) -> Shape:
    return tagged("seconds", [value.days, value.seconds, value.microseconds])


def _elements(value: Any) -> Shape:
    return "list", list(value)


def _named(value: Any) -> Shape:
    name = dotted_name(value)
    if name is not None:
        return tagged("name", name)
    if issubclass(type(value), type):
        return tagged("class", class_label(value))
    raise refuse(value)


_BY_TYPE: Final[tuple[tuple[Any, Callable[[Any], Shape]], ...]] = (
    (str, lambda v: ("leaf", str.__str__(v))),
    (bool, lambda v: ("leaf", bool(v))),
    (int, lambda v: ("leaf", int.__pos__(v))),
    (float, lambda v: ("leaf", float.__pos__(v))),
    (complex, lambda v: tagged("complex", [v.real, v.imag])),
    ((bytes, bytearray, memoryview), lambda v: tagged("bytes", bytes(v).hex())),
    (list, lambda v: ("list", list.__getitem__(v, slice(None)))),
    (tuple, lambda v: ("list", tuple.__getitem__(v, slice(None)))),
    (set, lambda v: ("set", list(set.__iter__(v)))),
    (frozenset, lambda v: ("set", list(frozenset.__iter__(v)))),
    (Unordered, lambda v: ("set", v.members)),
    (dict, lambda v: mapping_shape(list(dict.items(v)))),
    ((range, collections.deque, collections.UserList), _elements),
    ((type({}.keys()), type({}.values()), type({}.items())), _elements),
    (types.MappingProxyType, lambda v: mapping_shape(list(v.items()))),
    (slice, lambda v: tagged("slice", [v.start, v.stop, v.step])),
    (pathlib.PurePath, lambda v: ("leaf", v.as_posix())),
    ((dt.date, dt.time), lambda v: ("leaf", v.isoformat())),
    (dt.timedelta, _deltas),
    (uuid.UUID, lambda v: ("leaf", str(uuid.UUID(int=v.int)))),
    ((decimal.Decimal, fractions.Fraction), _ratio),
    (functools.partial, _partial),
    (re.Pattern, _regex),
    (types.MethodType, _method),
    (type(Ellipsis), lambda _: tagged("name", "Ellipsis")),
    (_FUNCTIONS, _named),
)


# ---------------------------------------------------------------- numpy, torch, OmegaConf
def _foreign(value: Any, kind: type) -> Shape | None:
    top = {str(module_of(base)).partition(".")[0] for base in class_mro(kind)}
    if "numpy" in top:
        return _numpy_shape(value, kind)
    if "torch" in top:
        return _torch_shape(value, kind)
    if "omegaconf" in top:
        return _omegaconf_shape(value)
    return None


def _numpy_shape(value: Any, kind: type) -> Shape | None:
    np = sys.modules["numpy"]
    if issubclass(kind, np.dtype):
        return "leaf", str(value)
    if not issubclass(kind, (np.generic, np.ndarray)):
        return None
    if value.dtype.kind in "mM":
        texts = value.astype(str)
        return "leaf" if texts.ndim == 0 else "again", texts.tolist()
    if value.dtype.kind not in "?biufcSUO" or value.dtype in (np.longdouble, np.clongdouble):
        raise refuse(value)
    return "again", value.tolist()


def _torch_shape(value: Any, kind: type) -> Shape | None:
    torch = sys.modules["torch"]
    if issubclass(kind, torch.Tensor):
        if value.is_meta or value.is_sparse or value.is_quantized:
            raise refuse(value, remedy="pass its values as a list")
        return "again", value.detach().cpu().tolist()
    if any(kind is one for one in (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return "leaf", str(value)
    if issubclass(kind, torch.nn.Module):
        raise refuse(value, remedy="pass modules as `model`, not inside the config")
    return None


def _omegaconf_shape(value: Any) -> Shape | None:
    import omegaconf

    if not isinstance(value, (omegaconf.DictConfig, omegaconf.ListConfig)):
        return None
    try:
        return "again", omegaconf.OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except omegaconf.errors.OmegaConfBaseException as error:
        raise NotCanonicalError(
            f"OmegaConf cannot resolve {error.full_key}: {str(error).splitlines()[0]}",
            hint="give the missing value or correct the interpolation",
        ) from error


# ---------------------------------------------------------------- objects with fields
def _structured(value: Any, kind: type) -> Shape | None:
    if issubclass(kind, (argparse.Namespace, types.SimpleNamespace)):
        return mapping_shape(list(object.__getattribute__(value, "__dict__").items()))
    # not `is_dataclass`: it asks the metaclass for a name that most classes do not have
    if any("__dataclass_fields__" in class_dict(base) for base in class_mro(kind)):
        names = [field.name for field in dataclasses.fields(cast("Any", kind))]
    elif "__attrs_attrs__" in kind.__dict__:
        names = [field.name for field in kind.__dict__["__attrs_attrs__"]]
    elif "__pydantic_fields__" in kind.__dict__:
        extra = object.__getattribute__(value, "__pydantic_extra__") or {}
        return mapping_shape([*object.__getattribute__(value, "__dict__").items(), *extra.items()])
    else:
        return None
    return mapping_shape([(name, object.__getattribute__(value, name)) for name in names])


def _read_mapping(value: Any) -> list[tuple[Any, Any]]:
    try:
        return [(key, value[key]) for key in value]
    except Exception as error:  # a mapping of a library may raise anything
        raise NotCanonicalError(
            f"reading a {qualified_name(type(value))} failed: {type(error).__name__}",
            hint="pass a dict",
        ) from error


def mapping_shape(items: list[tuple[Any, Any]]) -> Shape:
    """Return the shape of a mapping; keys that YAML cannot hold make it a list of pairs."""
    plain: dict[Any, Any] = {}
    for key, value in items:
        short = key if id(type(key)) in LEAF else _plain_key(key)
        if short is NotImplemented:
            return tagged("dict", Unordered(items))
        if short in plain:
            raise NotCanonicalError(f"two keys are the same once written: {short!r}")
        plain[short] = value
    return "dict", list(plain.items())


def _plain_key(key: Any) -> Any:
    mode, content = expand(key)
    while mode == "again":
        mode, content = expand(content)
    return content if mode == "leaf" and isinstance(content, _KEY) else NotImplemented


def object_state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object of a pure Python class: `__dict__` and `__slots__`.

    Raises: NotCanonicalError if its class, or a base, keeps state where nobody can read it.
    """
    kind = type(value)
    state: dict[str, Any] = {}
    for base in class_mro(kind)[:-1]:
        if not _FLAGS_OF(base) & (1 << 9):  # Py_TPFLAGS_HEAPTYPE: written in Python
            raise refuse(value)
        for name, member in class_dict(base).items():
            if issubclass(type(member), types.MemberDescriptorType):
                try:
                    state[name] = member.__get__(value, kind)
                except AttributeError:  # a slot that was never set
                    continue
    own = _own_dict(value, kind)
    if own is None and not state and kind is not object:
        own = {} if "__slots__" in class_dict(kind) else None
    if own is None and not state:
        raise refuse(value)
    return {**state, **(own or {})}


def _own_dict(value: Any, kind: type) -> dict[str, Any] | None:
    """Return the `__dict__` of an object, past a class that answers for it by running code."""
    for base in class_mro(kind):
        member = class_dict(base).get("__dict__")
        if type(member) is types.GetSetDescriptorType:
            return member.__get__(value)  # type: ignore[no-any-return]
    return None


def class_label(kind: type) -> str:
    """Name a class: a library's in full, a user's without its module, so that it may move."""
    return public_class_name(kind) if is_library(module_of(kind)) else qualified_name(kind)
