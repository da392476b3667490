"""User code that a model reaches: functions and classes by label, each described once.

A label is the qualified name of the function; two different functions of one name get `#2`, `#3`.
Functions refer to each other by label, so recursion needs no special case, and a changed helper
changes one entry, which can be named to people.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import enum
import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.callables import (
    functions_of,
    library_object,
    library_wrapper,
    members_of,
    plain_function,
    user_bases,
    wrapped_shape,
)
from weightslab.engine.identity.canonical import Tree, component_digest
from weightslab.engine.identity.code import CodeForm, Facts
from weightslab.engine.identity.codecache import remembered_code
from weightslab.engine.identity.declared import MARKS, check_included, declared_by
from weightslab.engine.identity.expand import Shape, Unordered, object_shape, object_state
from weightslab.engine.identity.library import dotted_name, home_of, is_library, public_class_name
from weightslab.engine.identity.plain import plain_tree, to_plain

__all__ = ["CodeTable", "Entry", "function_shape"]

_REMEDY: Final = (
    "keep data that forward reads as numbers, text, tensors, modules or functions, or register it"
    " as a buffer"
)
Special = Callable[[Any], "Shape | None"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One described function or class.

    Attributes:
        digest: of its canonical tree; the functions it calls are in there by label.
        source: its text, for people; empty where there is none.
        weak: described by byte-code.
        facts: what it touches.
    """

    digest: str
    source: str
    weak: bool
    facts: Facts


class CodeTable:
    """Label -> entry for everything reached so far; grows while values are described."""

    def __init__(self, special: Special | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.reads: set[str] = set()
        self.uses_super = False
        self.known_classes: frozenset[int] = frozenset()  # ids: a metaclass may hash
        self._special = special
        self.values: dict[str, dict[str, Any]] = {}  # label -> what its text does not show
        self._labels: dict[int, str] = {}
        self._keep: list[Any] = []  # a label is found by id: the object must live as long

    # ------------------------------------------------------------ values
    def plain(self, value: Any, path: str) -> Any:
        """Return the JSON-able plain form of a value that code reads.

        Raises: IdentityError naming `path`, type and remedy.
        """
        try:
            return to_plain(value, root=path, special=self.shape_of, json=True)
        except NotCanonicalError as error:
            raise IdentityError(error.message, hint=_REMEDY) from error

    def tree(self, value: Any, path: str) -> Tree:
        """Return the canonical tree of a value."""
        return plain_tree(self.plain(value, path), strict=True)

    def shape_of(self, value: Any) -> Shape | None:  # noqa: PLR0911  one rule per kind
        """Return the shape of what is code, or what the owner of the table knows; else None."""
        if self._special is not None and (shape := self._special(value)) is not None:
            return shape
        kind = type(value)
        if issubclass(kind, dict) and kind.__module__ in ("builtins", "collections"):
            if all(type(key) is str for key in value):
                return "dict", list(value.items())
            return "dict", [("$dict", Unordered(value.items()))]
        if kind is Unordered:
            return None
        if kind in (set, frozenset):  # not a list here: what iterates over it sees another order
            return "dict", [("$set", Unordered(value))]
        if kind is types.FunctionType or issubclass(kind, type):
            return self._code_shape(value)
        return wrapped_shape(value) or self._object_shape(value) or library_object(value)

    def _code_shape(self, value: Any) -> Shape | None:
        if dotted_name(value) is not None:
            return None
        if isinstance(value, type):
            return "dict", [("$class", self.class_of(value))]
        function = plain_function(value)
        if is_library(home_of(function)):
            return library_wrapper(function)
        return "dict", [("$function", self.function(function))]

    def _object_shape(self, value: Any) -> Shape | None:
        """Return class code and state of an object of a user's class, None for other values."""
        kind = type(value)
        if is_library(kind.__module__) or issubclass(kind, (type, enum.Enum)):
            return None
        try:
            state = object_state(value)
        except NotCanonicalError:  # a subclass of a built-in type: its content says more
            return None
        label = self.class_of(kind, constructed=False)
        written = set[str]()
        for base in user_bases(kind):
            for _, member in members_of(base, constructed=False):
                for function in functions_of(member):
                    entry = self.entry_of(function)
                    written |= entry.facts.writes if entry is not None else set()
        declared = declared_by(kind)
        check_included(kind, declared.include, state)
        hidden = (written - declared.include) | declared.exclude
        constant = {name: item for name, item in state.items() if name not in hidden}
        return object_shape(label, constant)

    # ------------------------------------------------------------ functions
    def function(self, function: types.FunctionType) -> str:
        """Describe a user's function and everything it reaches; return its label."""
        known = self._labels.get(id(function))
        if known is not None:
            return known
        label = self._new_label(function, function.__qualname__)
        names = _GlobalsOf(function, self, label)
        form = remembered_code(function.__code__, names)
        self._note(form.facts)
        changing = _stored_names(function.__code__, "STORE_DEREF")
        closure = [
            [name, ["changing"] if name in changing else self._cell(cell, f"{label}.{name}")]
            for name, cell in sorted(
                zip(function.__code__.co_freevars, function.__closure__ or (), strict=True),
                key=lambda pair: pair[0],
            )
        ]
        tree = [
            "function",
            form.tree,
            self.tree(list(function.__defaults__ or ()), f"defaults of {label}"),
            self.tree(dict(function.__kwdefaults__ or {}), f"defaults of {label}"),
            closure,
            self._imports(function, form.facts, label),
        ]
        self._store(label, tree, form)
        self.values[label] = self._shown(function, names.constants)
        return label

    def _shown(self, function: types.FunctionType, constants: dict[str, Any]) -> dict[str, Any]:
        """Return the values that the function uses, by name, so that a change of one can be told."""
        code, defaults = function.__code__, function.__defaults__ or ()
        last = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
        given = dict(zip(last, defaults, strict=False)) | (function.__kwdefaults__ or {})
        cells: dict[str, Any] = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a name that was never bound
                if name != "__class__" and name not in _stored_names(code, "STORE_DEREF"):
                    cells[name] = self.plain(cell.cell_contents, name)
        shown = {"constants": constants, "defaults": self.plain(given, "defaults")}
        return {kind: found for kind, found in (shown | {"closure": cells}).items() if found}

    def _imports(self, function: types.FunctionType, facts: Facts, label: str) -> Tree:
        """Describe what a function imports from user modules while it runs."""
        found: list[Tree] = []
        for origin, name in sorted(facts.imports, key=str):
            module = origin
            if origin.startswith("."):
                package = str(function.__globals__.get("__package__") or "")
                module = importlib.util.resolve_name(origin, package) if package else origin
            if is_library(module):
                continue
            content = (
                vars(sys.modules[module]).get(name) if name and module in sys.modules else None
            )
            if content is None:
                raise IdentityError(
                    f"{label} imports {origin}{f' ({name})' if name else ''} while it runs, so what"
                    " it uses cannot be described",
                    hint="import it at the top of the file",
                )
            found.append([origin, name, self.tree(content, f"{label} -> {origin}.{name}")])
        return found

    def _cell(self, cell: Any, path: str) -> Tree:
        try:
            content = cell.cell_contents
        except ValueError:  # a name that was never bound
            return ["empty"]
        if isinstance(content, type) and path.endswith(".__class__"):
            return ["own class"]
        return ["cell", self.tree(content, path)]

    def entry_of(self, function: types.FunctionType) -> Entry | None:
        """Return the entry of a function that was reached, None for others."""
        label = self._labels.get(id(function))
        return self.entries[label] if label is not None else None

    # ------------------------------------------------------------ classes
    def class_of(self, cls: type, *, constructed: bool = True) -> str:
        """Describe all behaviour of a user's class; return its label.

        Args:
            constructed: code can make instances, so the constructor counts too.
        """
        if id(cls) in self.known_classes:
            return f"module class {cls.__name__}"
        key = id(cls) * 2 + constructed
        known = self._labels.get(key)
        if known is not None:
            return known
        label = self._new_label(cls, f"class {cls.__qualname__}", key=key)
        facts = Facts()
        tree: list[Tree] = ["class", cls.__name__]
        hidden = declared_by(cls).exclude | MARKS
        for base in user_bases(cls):
            members = []
            for name, member in sorted(members_of(base, constructed=constructed)):
                if name in hidden:
                    continue
                members.append([name, self.tree(member, f"{cls.__qualname__}.{name}")])
            tree.append([base.__name__, members])
        tree.append([public_class_name(b) for b in cls.__mro__ if is_library(b.__module__)])
        self._store(label, tree, CodeForm(tree, facts, "", weak=False))
        return label

    # ------------------------------------------------------------ bookkeeping
    def _new_label(self, thing: Any, name: str, *, key: int | None = None) -> str:
        name = name.rpartition("<locals>.")[2]
        label, number = name, 1
        while label in self.entries:
            number += 1
            label = f"{name}#{number}"
        self._labels[id(thing) if key is None else key] = label
        self._keep.append(thing)
        self.entries[label] = _PENDING
        return label

    def _note(self, facts: Facts) -> None:
        self.reads |= facts.reads
        self.uses_super |= facts.uses_super

    def _store(self, label: str, tree: Tree, form: CodeForm) -> None:
        digest = component_digest("code", tree)
        self.entries[label] = Entry(digest, form.source, form.weak, form.facts)


_PENDING: Final = Entry("", "", False, Facts())


class _GlobalsOf:
    """Resolves the globals of one function to what they are, not to how they are called."""

    def __init__(self, function: types.FunctionType, table: CodeTable, label: str) -> None:
        self._globals = function.__globals__
        self._table = table
        self._label = label
        self._changing = _stored_names(function.__code__, "STORE_GLOBAL")
        self.constants: dict[str, Any] = {}

    def __call__(self, chain: tuple[str, ...]) -> tuple[Tree, int]:
        first = chain[0]
        if first in self._changing:
            return ["global", first], 1
        if first not in self._globals:
            kind = "builtin" if first in vars(builtins) else "unbound"
            return [kind, first], 1
        value, used = self._globals[first], 1
        while used < len(chain) and (found := _step(value, chain[used])) is not _NOTHING:
            value, used = found, used + 1
        if isinstance(value, types.ModuleType):
            return self._module(value, chain), used
        name = ".".join(chain[:used])
        plain = self.constants[name] = self._table.plain(value, f"{self._label} -> {name}")
        return ["value", plain_tree(plain, strict=True)], used

    def _module(self, module: types.ModuleType, chain: tuple[str, ...]) -> Tree:
        if not is_library(module.__name__):
            raise IdentityError(
                f"{self._label} uses {'.'.join(chain)}, and what it takes from the module"
                f" {module.__name__} cannot be told",
                hint="name the function or value itself: module.name, or from module import name",
            )
        return ["module", module.__name__]


_NOTHING: Final = object()


def _step(value: Any, name: str) -> Any:
    """Follow one dot through a module or to an enum member."""
    if isinstance(value, types.ModuleType):
        return vars(value).get(name, _NOTHING)
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return value.__members__.get(name, _NOTHING)
    return _NOTHING


@functools.lru_cache(maxsize=4096)
def _stored_names(code: types.CodeType, opname: str) -> frozenset[str]:
    """Return the names that a code object, or one inside it, stores with this instruction."""
    names: set[str] = set()
    stack = [code]
    while stack:
        one = stack.pop()
        names.update(i.argval for i in dis.get_instructions(one) if i.opname == opname)
        stack.extend(const for const in one.co_consts if isinstance(const, types.CodeType))
    return frozenset(names)


def function_shape(value: Any) -> Shape | None:
    """Return the shape of a user's function or class inside a config: its name and its code."""
    kind = type(value)
    if kind is not types.FunctionType and not issubclass(kind, type):
        return None
    if dotted_name(value) is not None:
        return None
    table = CodeTable()
    try:
        if isinstance(value, type):
            label, word = table.class_of(value), "class"
        else:
            label, word = table.function(value), "function"
    except IdentityError as error:
        raise NotCanonicalError(error.message, hint=error.hint) from error
    digests = {name: entry.digest for name, entry in table.entries.items()}
    return "dict", [(f"${word}", [label, component_digest("code", plain_tree(digests))])]
