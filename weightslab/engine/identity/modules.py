"""Reading one model: an entry per module of the unwrapped tree, and the user code it reaches."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.callables import cached_names, functions_of, library_bases
from weightslab.engine.identity.changes import Changes, Written
from weightslab.engine.identity.declared import (
    MARKS,
    Declared,
    check_included,
    declared_by,
    own_identity,
)
from weightslab.engine.identity.flat import flat_parts
from weightslab.engine.identity.hooks import (
    global_hooks,
    hooks_of,
    is_machinery,
    patched_methods,
)
from weightslab.engine.identity.layers import (
    INFRASTRUCTURE,
    class_name,
    constants_of,
    library_attributes,
    walk,
)
from weightslab.engine.identity.library import (
    bare_name,
    class_dict,
    class_mro,
    is_library,
    module_of,
)
from weightslab.engine.identity.liveform import LiveForms, Places
from weightslab.engine.identity.plain import check_metaclass
from weightslab.engine.identity.reach import CodeTable
from weightslab.engine.identity.shown import shown_values
from weightslab.engine.identity.tensors import TensorSpecs, joined
from weightslab.engine.identity.wrappers import own_parts, real_class, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["ModelReader"]

_ENTRY_POINTS: Final = frozenset({
    "forward", "__call__", "__getattr__", "__getattribute__", "__getitem__", "__iter__", "__len__",
    "__contains__", "__torch_function__", "__enter__", "__exit__", "__bool__",
})  # fmt: skip
_NEVER: Final = frozenset({"__init__", "__new__", "__repr__", "extra_repr", "__init_subclass__"})
_CODE: Final = (types.FunctionType, staticmethod, classmethod, property)


@dataclass(slots=True)
class _Class:
    """What is known of one module class; `written` and `dynamic` grow while code is reached."""

    cls: type
    name: str
    library: bool
    derived: bool  # a library that makes its constants from its parameters: all but torch
    declared: Declared
    constants: list[tuple[str, Any]]
    patched: list[tuple[str, types.FunctionType]]
    user_bases: list[type]
    library_bases: list[str]
    caches: frozenset[str]
    written: Written
    dynamic: bool = False
    members: dict[tuple[int, str], Any] = field(default_factory=dict)  # described so far
    code: list[Any] | None = None

    @classmethod
    def of(cls, kind: type, changes: Changes) -> _Class:
        try:
            check_metaclass(kind)
        except NotCanonicalError as error:
            raise IdentityError(error.message, hint="use a metaclass without it") from error
        home = module_of(kind)
        library = is_library(home)
        return cls(
            cls=kind,
            name=class_name(kind),
            library=library,
            derived=library and not str(home).startswith("torch."),
            declared=declared_by(kind),
            constants=constants_of(kind),
            patched=list(patched_methods(kind)),
            user_bases=[b for b in class_mro(kind) if not is_library(module_of(b))],
            library_bases=library_bases(kind),
            caches=cached_names(kind),
            written=Written((), changes, ()),
        )


@dataclass(slots=True)
class _Row:
    """One place in the module tree."""

    path: str
    module: nn.Module
    kind: _Class
    own: dict[str, Any]
    described: dict[str, Any] = field(default_factory=dict)  # attributes described so far
    always: frozenset[str] = frozenset()  # those that count whatever user code reads
    parameters: list[Any] = field(default_factory=list)
    hooks: list[Any] = field(default_factory=list)


class ModelReader:
    """Describes one model; the result is computed once.

    The names that reached code reads decide which methods and attributes count, and those may
    reach more code, so the user's modules are read again until nothing new is reached.

    Args:
        label: stands for the tree where another tree refers to it.
        places: shared with the description that this one is a part of.
    """

    def __init__(
        self, model: nn.Module, *, label: str = "model", places: Places | None = None
    ) -> None:
        self._walked = list(walk(model))
        self._label = label
        self._places = Places() if places is None else places
        self._outside = dict(self._places.by_id), self._places.num_apart
        self._model = unwrap(model)
        self._flat = flat_parts(model)
        self._begin(Changes())

    def _begin(self, changes: Changes) -> None:
        """Forget all that was described; what is known to change from now on is no constant."""
        label = self._label
        self._places.by_id, self._places.num_apart = dict(self._outside[0]), self._outside[1]
        paths = {id(m): path for path, m, first in self._walked if m is not None and first is None}
        self._places.by_id.update((key, f"{label}: {path}") for key, path in paths.items())
        self._forms = LiveForms(paths, self._places, self._describe_apart)
        self._table = CodeTable(self._forms.shape_of, changes)
        self._tensors = TensorSpecs(
            self._forms, self._table.plain, is_machinery, flat=self._flat, paths=paths
        )
        self._apart: dict[str, ModelReader] = {}
        self._classes: dict[int, _Class] = {}
        self._rows = [
            _Row(path, m, self._class_of(m), self._attributes_of(m))
            for path, m, first in self._walked
            if m is not None and first is None
        ]
        self._table.known_classes = frozenset(self._classes)
        self.class_name = self._class_of(self._model).name
        for row in self._rows:
            self._tensors.register(row.path, row.module, row.kind.declared.exclude)
        self._identity: dict[str, Any] | None = None

    def _class_of(self, module: nn.Module) -> _Class:
        cls = real_class(module)
        known = self._classes.get(id(cls))
        if known is None:
            known = self._classes[id(cls)] = _Class.of(cls, self._table.changes)
        return known

    def _attributes_of(self, module: nn.Module) -> dict[str, Any]:
        own: dict[str, Any] = object.__getattribute__(module, "__dict__")
        flat = self._tensors.flat_names(module)  # FSDP1 keeps views of them as attributes
        return {name: own[name] for name in own if name not in flat} if flat else own

    def _describe_apart(self, module: nn.Module, label: str) -> dict[str, Any]:
        """Describe a module that is not registered in the tree (a plain list, a global)."""
        reader = self._apart[label] = ModelReader(module, label=label, places=self._places)
        return reader.identity()

    # ------------------------------------------------------------ results
    def identity(self) -> dict[str, Any]:
        """Return all that is hashed: entries in registration order, code digests, frozen names."""
        try:
            return self._describe()
        except RecursionError as error:
            raise IdentityError(
                "the code or the modules are nested too deeply to be described",
                hint="call helpers from fewer levels, or raise sys.setrecursionlimit",
            ) from error

    def _describe(self) -> dict[str, Any]:
        if self._identity is None:
            self._reach_all()
            while self._table.changes.is_stale:
                self._begin(Changes(self._table.changes))
                self._reach_all()
            rows = iter(self._rows)
            modules = [self._place(*found, rows) for found in self._walked]
            identity: dict[str, Any] = {
                "modules": modules,
                "code": {name: e.digest for name, e in sorted(self._table.entries.items())},
                "frozen": [
                    name
                    for row in self._rows
                    for name in self._tensors.frozen(
                        row.path, row.module, row.kind.declared.exclude
                    )
                ],
            }
            configs = self._forms.configs.contents(self._table.plain, self._table.reads)
            running = global_hooks(self._table.plain, self._forms.glance)
            identity |= {"configs": configs} if configs else {}
            identity |= {"hooks": running} if running else {}
            self._identity = identity
        return self._identity

    def sources(self) -> dict[str, str]:
        """Return label -> source text of user code."""
        found = {name: e.source for name, e in self._table.entries.items() if e.source}
        for label, reader in self._apart.items():
            found.update((f"{label}: {name}", text) for name, text in reader.sources().items())
        return found

    def values(self) -> dict[str, dict[str, Any]]:
        """Return label -> constants, defaults and closure of user code, as plain values."""
        found = shown_values(self._table.values)
        for label, reader in self._apart.items():
            found.update((f"{label}: {name}", kinds) for name, kinds in reader.values().items())
        return found

    def weak(self) -> list[str]:
        """Return the labels of code described as byte-code, and of constants without values."""
        found = [name for name, e in self._table.entries.items() if e.weak]
        found += self._forms.weak
        for label, reader in self._apart.items():
            found += [f"{label}: {name}" for name in reader.weak()]
        return sorted(found)

    # ------------------------------------------------------------ reaching
    def _reach_all(self) -> None:
        """Describe what counts until a pass over the user's classes and modules adds nothing."""
        users = [k for k in self._classes.values() if k.user_bases and not k.declared.identity]
        before: Any = None
        rows, first = self._rows, True
        while before != (now := self._reached()):
            before = now
            for kind in users:
                self._class_members(kind)
            for row in rows:
                if first:
                    self._fixed_part(row)
                self._own_attributes(row)
            rows, first = [row for row in self._rows if not row.kind.library], False

    def _reached(self) -> tuple[int, int, bool]:
        return len(self._table.reads), len(self._table.entries), self._table.uses_super

    def _class_members(self, kind: _Class) -> list[Any]:
        """Return [[base, {name: label or value}], ...] of the user's part of a module class."""
        seen: set[str] = set()
        result: list[Any] = []
        for base in kind.user_bases:
            found: dict[str, Any] = {}
            for name, member in sorted(class_dict(base).items()):  # labels do not tell the order
                hidden = name in seen and not self._table.uses_super
                if not hidden and self._counts(kind, name, member):
                    key = (id(base), name)
                    if key not in kind.members:
                        where = f"{bare_name(kind.cls)}.{name}"
                        kind.members[key] = self._table.plain(member, where)
                    found[name] = kind.members[key]
            seen |= found.keys()
            result.append([bare_name(base), dict(sorted(found.items()))])
        methods = [
            function
            for base in kind.user_bases
            for name, member in class_dict(base).items()
            if name not in _NEVER
            for function in functions_of(member)
        ]
        kind.written = self._table.written_by(methods)
        entries = [self._table.entry_of(method) for method in methods]
        kind.dynamic = any(entry.facts.dynamic for entry in entries if entry is not None)
        return result

    def _counts(self, kind: _Class, name: str, member: Any) -> bool:
        if name in _NEVER or name in MARKS or name in kind.declared.exclude:
            return False
        if name in kind.declared.include:
            return True
        wanted = name in _ENTRY_POINTS or name in self._table.reads
        dunder = name.startswith("__") and name.endswith("__")
        if issubclass(type(member), _CODE):
            return wanted or (kind.dynamic and not dunder)
        return not dunder and wanted and not kind.written.hides(name, member)

    # ------------------------------------------------------------ attributes
    def _fixed_part(self, row: _Row) -> None:
        """Describe what counts of a module whatever the user's code reads."""
        values = dict(library_attributes(row.own, row.kind.constants))
        if "forward" in row.own:
            values["forward"] = row.own["forward"]
        values.update(self._forms.generated_code(row.module))
        values.update(row.kind.patched)
        declared = row.kind.declared
        if declared.identity is not None:
            values.clear()
        for name in declared.exclude & values.keys():
            del values[name]
        row.always = frozenset(values)
        for name in sorted(values):
            row.described[name] = self._plain(row, name, values[name])
        row.parameters = self._tensors.parameters(row.path, row.module, declared.exclude)
        row.hooks = hooks_of(row.path, row.module, self._table.plain, self._forms.glance)
        if declared.include:
            parts = [
                own_parts(row.module, name) for name in ("_parameters", "_buffers", "_modules")
            ]
            check_included(row.kind.cls, declared.include, row.own, *parts)

    def _own_attributes(self, row: _Row) -> set[str]:
        """Return the names of the attributes that count because of the user's code."""
        kind, reads = row.kind, self._table.reads
        if kind.library or kind.declared.identity is not None:
            return set()
        counted = set()
        for name, value in row.own.items():
            if name in INFRASTRUCTURE or name in kind.declared.exclude or name in kind.caches:
                continue
            read = kind.dynamic or name in reads
            if (read and not kind.written.hides(name, value)) or name in kind.declared.include:
                counted.add(name)
                if name not in row.described:
                    row.described[name] = self._plain(row, name, value)
        return counted

    def _plain(self, row: _Row, name: str, value: Any) -> Any:
        return self._table.plain(value, joined(row.path or "model", name))

    # ------------------------------------------------------------ entries
    def _place(
        self, path: str, module: nn.Module | None, first: str | None, rows: Iterator[_Row]
    ) -> dict[str, Any]:
        if module is None:
            return {"path": path, "class": None}
        if first is not None:
            return {"path": path, "same_as": first}
        return self._entry(next(rows))

    def _entry(self, row: _Row) -> dict[str, Any]:
        kind, declared = row.kind, row.kind.declared
        counted = sorted(row.always | self._own_attributes(row))
        entry: dict[str, Any] = {
            "path": row.path,
            "kind": "library" if kind.library else "user",
            "class": kind.name,
            "attributes": {name: row.described[name] for name in counted},
        }
        if declared.identity is not None:
            entry["identity"] = own_identity(row.module, declared.identity)
        elif not kind.library:
            if kind.code is None:
                kind.code = self._class_members(kind)
            entry["code"] = kind.code
        if not kind.library:
            entry["bases"] = kind.library_bases
        buffers = self._tensors.buffers(
            row.path,
            row.module,
            declared.exclude,
            is_state=lambda name, t: name not in declared.include and kind.written.hides(name, t),
            derived=kind.derived,
        )
        parts = {"parameters": row.parameters, "buffers": buffers, "hooks": row.hooks}
        return entry | {name: part for name, part in parts.items() if part}
