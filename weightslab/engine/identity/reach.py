"""User code that a model reaches: functions and classes by label, each described once.

A label is the qualified name of the function; two different functions of one name get `#2`, `#3`.
Functions refer to each other by label, so recursion needs no special case, and a changed helper
changes one entry, which can be named to people.
"""

from __future__ import annotations

import contextlib
import dis
import enum
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.callables import (
    functions_of,
    library_bases,
    library_object,
    library_wrapper,
    members_of,
    plain_function,
    user_bases,
    wrapped_shape,
)
from weightslab.engine.identity.canonical import Tree, component_digest
from weightslab.engine.identity.changes import NOTHING, Changes, Written, changes_itself
from weightslab.engine.identity.codecache import remembered_code
from weightslab.engine.identity.codeform import CodeForm, Facts
from weightslab.engine.identity.declared import MARKS, check_included, declared_by
from weightslab.engine.identity.effects import Effects
from weightslab.engine.identity.expand import Shape, Unordered, object_shape, object_state
from weightslab.engine.identity.globalnames import GlobalsOf, imported_values
from weightslab.engine.identity.library import (
    bare_name,
    dotted_name,
    home_of,
    is_library,
    module_of,
    qualified_name,
)
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
        effects: what it changes.
        changed: attributes of its first parameter that functions change to which it hands them.
    """

    digest: str
    source: str
    weak: bool
    facts: Facts
    effects: Effects
    changed: frozenset[str]


class CodeTable:
    """Label -> entry for everything reached so far; grows while values are described."""

    def __init__(self, special: Special | None = None, changes: Changes | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self.reads: set[str] = set()
        self.uses_super = False
        self.known_classes: frozenset[int] = frozenset()  # ids: a metaclass may hash
        self._special = special
        self.changes = changes or Changes()
        self.values: dict[str, dict[str, Any]] = {}  # label -> what its text does not show
        self._labels: dict[Any, str] = {}
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
        if issubclass(kind, dict) and module_of(kind) in ("builtins", "collections"):
            if all(type(key) is str for key in value):
                return "dict", list(value.items())
            return "dict", [("$dict", Unordered(value.items()))]
        if kind is Unordered:
            return None
        if kind is types.ModuleType and not is_library(value.__name__):
            return "dict", [("$names", self.space(vars(value)))]
        if (
            kind is set or kind is frozenset
        ):  # not a list here: what iterates over it sees another order
            return "dict", [("$set", Unordered(value))]
        if kind is types.FunctionType or issubclass(kind, type):
            return self._code_shape(value)
        return wrapped_shape(value) or self._object_shape(value) or library_object(value)

    def _code_shape(self, value: Any) -> Shape | None:
        if dotted_name(value) is not None:
            return None
        if issubclass(type(value), type):
            return "dict", [("$class", self.class_of(value))]
        function = plain_function(value)
        if is_library(home_of(function)):
            return library_wrapper(function)
        return "dict", [("$function", self.function(function))]

    def _object_shape(self, value: Any) -> Shape | None:
        """Return class code and state of an object of a user's class, None for other values."""
        kind = type(value)
        if is_library(module_of(kind)) or issubclass(kind, (type, enum.Enum)):
            return None
        try:
            state = object_state(value)
        except NotCanonicalError:  # a subclass of a built-in type: its content says more
            return None
        label = self.class_of(kind, constructed=False)
        declared = declared_by(kind)
        check_included(kind, declared.include, state)
        methods = [
            function
            for base in user_bases(kind)
            for _, member in members_of(base, constructed=False)
            for function in functions_of(member)
        ]
        written = self.written_by(methods)

        def counts(name: str, item: Any) -> bool:
            if name in declared.include or name in declared.exclude:
                return name in declared.include
            return not written.hides(name, item) and not self.changes.hides(name, item)

        constant = {name: item for name, item in state.items() if counts(name, item)}
        return object_shape(label, constant)

    # ------------------------------------------------------------ functions
    def function(self, function: types.FunctionType) -> str:
        """Describe a user's function and everything it reaches; return its label."""
        known = self._labels.get(id(function))
        if known is not None:
            return known
        label = self._new_label(function, function.__qualname__)
        names = GlobalsOf(function, self, label)
        own: set[str] = set()
        form = remembered_code(
            function.__code__, names, lambda e: own.update(self.changes.note(function, e))
        )
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
            *self._defaults(function, form, label),
            closure,
            self._imports(function, form.facts, label),
        ]
        self._store(label, tree, form, frozenset(own))
        self.values[label] = self._shown(function, names.constants)
        return label

    def _defaults(self, function: types.FunctionType, form: CodeForm, label: str) -> list[Tree]:
        """Describe the defaults; one that the code fills (`seen=[]; seen.append(1)`) is state."""
        code, defaults = function.__code__, function.__defaults__ or ()
        named = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
        filled = {chain[0] for chain in form.effects.changed if len(chain) == 1}
        path = f"defaults of {label}"

        def tree(name: str, value: Any) -> Tree:
            changing = name in filled and not changes_itself(value)
            return ["changing"] if changing else self.tree(value, path)

        return [
            [tree(name, value) for name, value in zip(named, defaults, strict=True)],
            [[n, tree(n, v)] for n, v in sorted((function.__kwdefaults__ or {}).items())],
        ]

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
        return [
            [origin, name, "absent"]
            if value is NOTHING
            else [origin, name, self.tree(value, f"{label} -> {origin}.{name}")]
            for origin, name, value in imported_values(function, facts.imports, label)
        ]

    def _cell(self, cell: Any, path: str) -> Tree:
        try:
            content = cell.cell_contents
        except ValueError:  # a name that was never bound
            return ["empty"]
        if issubclass(type(content), type) and path.endswith(".__class__"):
            return ["own class"]
        if self.changes.changes_object(content):
            return ["changing"]
        return ["cell", self.tree(content, path)]

    def entry_of(self, function: types.FunctionType) -> Entry | None:
        """Return the entry of a function that was reached, None for others."""
        label = self._labels.get(id(function))
        return self.entries[label] if label is not None else None

    def written_by(self, methods: Iterable[types.FunctionType]) -> Written:
        """Return what those of the methods that were reached change on their first parameter."""
        entries = [entry for m in methods if (entry := self.entry_of(m)) is not None]
        extra = {name for entry in entries for name in entry.changed}
        return Written([entry.effects for entry in entries], self.changes, extra)

    # ------------------------------------------------------------ classes
    def space(self, names: Mapping[str, Any]) -> Tree:
        """Describe all that a namespace of a file defines: what a computed name may mean."""
        key = ("space", id(names))
        known = self._labels.get(key)
        if known is not None:
            return known
        label = self._new_label(names, "names of a file", key=key)
        home, weak = names.get("__name__"), False
        members: list[Tree] = []
        for name, value in sorted(names.items()):
            if name.startswith("__") or type(value) is types.ModuleType:
                continue
            if dotted_name(value) is not None or not _is_at_home(value, home):
                continue
            if self.changes.changes_name(names, name) or self.changes.changes_object(value):
                continue
            try:
                members.append([name, self.tree(value, f"{home}.{name}")])
            except IdentityError:  # said by the weak mark: nobody knows whether it is used
                weak = True
                members.append([name, ["opaque", bare_name(type(value))]])
        self._store(label, members, CodeForm(members, Facts(), Effects(None), "", weak=weak))
        return label

    def class_of(self, cls: type, *, constructed: bool = True) -> str:
        """Describe all behaviour of a user's class; return its label.

        Args:
            constructed: code can make instances, so the constructor counts too.
        """
        if id(cls) in self.known_classes:
            return f"module class {bare_name(cls)}"
        key = ("class", id(cls), constructed)
        known = self._labels.get(key)
        if known is not None:
            return known
        label = self._new_label(cls, f"class {qualified_name(cls)}", key=key)
        tree: list[Tree] = ["class", bare_name(cls)]
        hidden = declared_by(cls).exclude | MARKS
        for base in user_bases(cls):
            members = []
            for name, member in sorted(members_of(base, constructed=constructed)):
                if name not in hidden:
                    members.append([name, self.tree(member, f"{qualified_name(cls)}.{name}")])
            tree.append([bare_name(base), members])
        tree.append(list[Tree](library_bases(cls)))
        self._store(label, tree, CodeForm(tree, Facts(), Effects(None), "", weak=False))
        return label

    # ------------------------------------------------------------ bookkeeping
    def _new_label(self, thing: Any, name: str, *, key: Any = None) -> str:
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

    def _store(
        self, label: str, tree: Tree, form: CodeForm, changed: frozenset[str] = frozenset()
    ) -> None:
        digest = component_digest("code", tree)
        self.entries[label] = Entry(
            digest, form.source, form.weak, form.facts, form.effects, changed
        )


_PENDING: Final = Entry("", "", False, Facts(), Effects(None), frozenset())


def _is_at_home(value: Any, home: object) -> bool:
    """Say whether a function or class was written in this file; other values always are."""
    if type(value) is types.FunctionType:
        return home_of(value) == home
    return not issubclass(type(value), type) or module_of(value) == home


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
        if issubclass(kind, type):
            label, word = table.class_of(value), "class"
        else:
            label, word = table.function(value), "function"
    except IdentityError as error:
        raise NotCanonicalError(error.message, hint=error.hint) from error
    digests = {name: entry.digest for name, entry in table.entries.items()}
    return "dict", [(f"${word}", [label, component_digest("code", plain_tree(digests))])]
