"""What the globals and imports of one function are, not how they are called."""

from __future__ import annotations

import argparse
import builtins
import enum
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.changes import NOTHING, Changes, changes_itself, step
from weightslab.engine.identity.expand import LEAF
from weightslab.engine.identity.library import class_dict, class_mro, is_library, kinds, module_of
from weightslab.engine.identity.plain import plain_tree

if TYPE_CHECKING:
    from weightslab.engine.identity.canonical import Tree
    from weightslab.engine.identity.reach import CodeTable

__all__ = ["GlobalsOf", "imported_values"]

_ANYTHING: Final = frozenset({"globals", "eval", "exec"})  # any global of the file may be meant
_NAMESPACES: Final = kinds(types.SimpleNamespace, argparse.Namespace)
_DATA: Final = LEAF | kinds(tuple, list, dict, set, frozenset, bytes, complex)


class GlobalsOf:
    """Resolves the globals of one function; `constants` collects the values found, by name."""

    def __init__(self, function: types.FunctionType, table: CodeTable, label: str) -> None:
        self._globals = function.__globals__
        self._table = table
        self._label = label
        self.constants: dict[str, Any] = {}

    def __call__(self, chain: tuple[str, ...]) -> tuple[Tree, int]:
        """Return the tree of a dotted global, and how many of its names that tree stands for."""
        first = chain[0]
        changes = self._table.changes
        if changes.changes_name(self._globals, first):
            return ["global", first], 1
        if first not in self._globals:
            return self._builtin(first), 1
        value, used = self._globals[first], 1
        while used < len(chain):
            name = chain[used]
            if type(value) is types.ModuleType and changes.changes_name(vars(value), name):
                return ["global", name], used + 1
            found = _inside(value, name, changes)
            if found is NOTHING:
                break
            value, used = found, used + 1
        return self._tree(value, chain[:used]), used

    def _builtin(self, name: str) -> Tree:
        if name not in vars(builtins):
            return ["unbound", name]
        if name in _ANYTHING:
            return ["builtin", name, self._table.space(self._globals)]
        return ["builtin", name]

    def _tree(self, value: Any, chain: tuple[str, ...]) -> Tree:
        name = ".".join(chain)
        if self._table.changes.changes_object(value):
            return ["global", chain[-1]]
        if type(value) is types.ModuleType and is_library(value.__name__):
            return ["module", value.__name__]
        if value is sys.modules:
            return ["modules", self._table.space(self._globals)]
        plain = self.constants[name] = self._table.plain(value, f"{self._label} -> {name}")
        return ["value", plain_tree(plain, strict=True)]


def _inside(value: Any, name: str, changes: Changes) -> Any:
    """Follow one dot to what is certain to be there: in a module, an enum, a class, a namespace."""
    kind = type(value)
    if kind is types.ModuleType:
        return step(value, name)
    if issubclass(kind, enum.EnumMeta):
        return class_dict(value).get("_member_map_", {}).get(name, NOTHING)
    found = _stored(value, kind, name)
    if found is NOTHING or id(type(found)) not in _DATA or changes.hides(name, found):
        return NOTHING
    return found


def _stored(value: Any, kind: type, name: str) -> Any:
    """Return what is stored under a name of a user's class or object, NOTHING if code may answer."""
    if issubclass(kind, type):
        bodies = [class_dict(base) for base in class_mro(value)] if _is_plain_class(value) else []
        return next((body[name] for body in bodies if name in body), NOTHING)
    if id(kind) not in _NAMESPACES and not changes_itself(value):
        return NOTHING
    bodies = [class_dict(base) for base in class_mro(kind)[:-1]]
    if any("__getattribute__" in body for body in bodies):
        return NOTHING
    if any(hasattr(type(body[name]), "__set__") for body in bodies if name in body):
        return NOTHING
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return NOTHING
    return own.get(name, NOTHING)


def _is_plain_class(cls: type) -> bool:
    """Say whether a class is a user's, and its metaclass answers nothing itself."""
    return type(cls) is type and not is_library(module_of(cls))


def imported_values(
    function: types.FunctionType, imports: set[tuple[str, tuple[str, ...]]], label: str
) -> list[tuple[str, str, Any]]:
    """Return (module as written, dotted name in it, value) of what a function takes from users'
    modules that it imports while it runs; NOTHING for a module that is not installed.

    Raises: IdentityError for a module that was not imported yet: importing it would run code.
    """
    found = []
    for origin, names in sorted(imports):
        module = origin
        if origin.startswith("."):
            package = str(function.__globals__.get("__package__") or "")
            module = importlib.util.resolve_name(origin, package) if package else origin
        if is_library(module):
            continue
        value = _follow(sys.modules.get(module, NOTHING), names)
        dotted = ".".join(names)
        if value is NOTHING and not _is_absent(module):
            raise IdentityError(
                f"{label} imports {origin}{f' ({dotted})' if dotted else ''} while it runs, so what"
                " it uses cannot be described",
                hint="import it at the top of the file",
            )
        found.append((origin, dotted, value))
    return found


def _follow(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if type(value) is not types.ModuleType:
            break
        inner = vars(value).get(name, NOTHING)
        value = sys.modules.get(f"{value.__name__}.{name}", NOTHING) if inner is NOTHING else inner
    return value


def _is_absent(module: str) -> bool:
    top = module.partition(".")[0]
    try:
        return bool(top) and top not in sys.modules and importlib.util.find_spec(top) is None
    except (ImportError, ValueError):  # a finder that cannot tell
        return False
