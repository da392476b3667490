"""What a class says about its own identity: `__identity_include__`, `__identity_exclude__`, `__identity__`.

    class Net(nn.Module):
        __identity_include__ = ("temperature",)   counted, though no code reads it or forward writes it
        __identity_exclude__ = ("log_file",)      never counted
        def __identity__(self): ...               a plain value in place of attributes and code

Looked up in the classes themselves, never by asking the object; of one name the most derived class
decides. `__identity__` is the only code of a user that describing runs.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.expand import expand
from weightslab.engine.identity.library import (
    class_dict,
    class_mro,
    is_library,
    module_of,
    qualified_name,
)
from weightslab.engine.identity.plain import plain_bytes, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from weightslab.engine.identity.expand import Shape

__all__ = [
    "MARKS",
    "Declared",
    "check_included",
    "declared_by",
    "declared_fields",
    "declared_shape",
    "own_identity",
]

_INCLUDE: Final = "__identity_include__"
_EXCLUDE: Final = "__identity_exclude__"
_IDENTITY: Final = "__identity__"
MARKS: Final = frozenset({_INCLUDE, _EXCLUDE, _IDENTITY})


@dataclass(frozen=True, slots=True)
class Declared:
    """What the classes of an object declare.

    Attributes:
        include: attribute names that count in any case.
        exclude: attribute names that never count.
        identity: the `__identity__` method, None if there is none.
    """

    include: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    identity: Callable[[Any], Any] | None = None


_NOTHING: Final = Declared()


def declared_by(cls: type) -> Declared:
    """Return what a class and its bases declare; library classes declare nothing.

    Raises: IdentityError naming class and remedy if a declaration has the wrong form.
    """
    include: set[str] = set()
    exclude: set[str] = set()
    identity: types.FunctionType | None = None
    for base in class_mro(cls):
        members = class_dict(base)
        if not MARKS.isdisjoint(members) and not is_library(module_of(base)):
            counted, left_out = _names(base, _INCLUDE), _names(base, _EXCLUDE)
            if counted & left_out:
                name = min(counted & left_out)
                raise IdentityError(
                    f"{qualified_name(base)} both includes and excludes {name!r}",
                    hint=f"name it in {_INCLUDE} or in {_EXCLUDE}, not in both",
                )
            include |= counted - exclude
            exclude |= left_out - include
            identity = identity or _method(base)
    if not (include or exclude or identity):
        return _NOTHING
    return Declared(frozenset(include), frozenset(exclude), identity)


def _names(base: type, mark: str) -> frozenset[str]:
    value = class_dict(base).get(mark, ())
    if type(value) in (tuple, list, set, frozenset) and all(type(v) is str for v in value):
        return frozenset(value)
    raise IdentityError(
        f"{qualified_name(base)}.{mark} is a {qualified_name(type(value))}, not a sequence of names",
        hint=f'write {mark} = ("name", "other")',
    )


def _method(base: type) -> types.FunctionType | None:
    value = class_dict(base).get(_IDENTITY)
    if value is None or type(value) is types.FunctionType:
        return value
    raise IdentityError(
        f"{qualified_name(base)}.{_IDENTITY} is a {qualified_name(type(value))}, not a method",
        hint=f"write def {_IDENTITY}(self): return a number, text, list or dict",
    )


def own_identity(value: Any, method: Callable[[Any], Any]) -> Any:
    """Return the plain form of what `__identity__` returns for this object.

    Raises: IdentityError naming class and remedy if it raises or returns something else.
    """
    name = qualified_name(type(value))
    try:
        found = method(value)
    except Exception as error:  # it is the user's code and may raise anything
        raise IdentityError(
            f"{name}.{_IDENTITY}() raised {type(error).__name__}",
            hint="let it return a number, text, list or dict, or remove it",
        ) from error
    try:
        plain = to_plain(found, root=f"{name}.{_IDENTITY}()", json=True)
        plain_bytes(plain, strict=True)
    except NotCanonicalError as error:
        told = error.message if name in error.message else f"{name}.{_IDENTITY}(): {error.message}"
        raise IdentityError(told, hint="let it return a number, text, list or dict") from error
    return plain


def declared_shape(value: Any) -> Shape | None:
    """Return the shape of an object that has an `__identity__` of its own, None for others."""
    kind = type(value)
    if is_library(module_of(kind)):
        return None
    method = declared_by(kind).identity
    if method is None:
        return None
    return "dict", [("$object", qualified_name(kind)), ("$identity", own_identity(value, method))]


def check_included(cls: type, include: frozenset[str], *tables: Container[str]) -> None:
    """Raise IdentityError if an included name is in none of the tables and not in the class."""
    known = [*tables, *map(class_dict, class_mro(cls))] if include else []
    for name in sorted(include):
        if not any(name in table for table in known):
            raise IdentityError(
                f"{qualified_name(cls)} includes {name!r}, which it does not have",
                hint=f"correct the name in {_INCLUDE}, or set it in __init__",
            )


def declared_fields(value: Any) -> Shape | None:
    """Return the shape of an object without the attributes that its class excludes.

    None for objects whose class declares nothing: the common rules hold.
    Raises: IdentityError for an included name that the object does not have.
    """
    kind = type(value)
    if is_library(module_of(kind)):
        return None
    declared = declared_by(kind)
    if not (declared.include or declared.exclude):
        return None
    mode, content = expand(value)
    if mode != "dict":
        return None
    fields = dict(content)
    state = fields.get("$state", fields)
    check_included(kind, declared.include, state)
    kept = {name: item for name, item in state.items() if name not in declared.exclude}
    if "$state" in fields:
        return "dict", [("$object", fields["$object"]), ("$state", kept)]
    return "dict", list(kept.items())
