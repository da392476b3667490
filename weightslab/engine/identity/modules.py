"""Reading one model: an entry per module of the unwrapped tree, and the user code it reaches."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IdentityError, NotCanonicalError
from weightslab.engine.identity.callables import functions_of, user_bases
from weightslab.engine.identity.layers import (
    INFRASTRUCTURE,
    class_name,
    inner_shape,
    library_attributes,
    walk,
)
from weightslab.engine.identity.library import home_of, is_library, public_class_name
from weightslab.engine.identity.liveform import LiveForms
from weightslab.engine.identity.reach import CodeTable
from weightslab.engine.identity.shown import shown_values
from weightslab.engine.identity.wrappers import real_class, unwrap

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelReader"]

_ENTRY_POINTS: Final = frozenset({
    "forward", "__call__", "__getattr__", "__getattribute__", "__getitem__", "__iter__", "__len__",
    "__contains__", "__torch_function__", "__enter__", "__exit__", "__bool__",
})  # fmt: skip
_NEVER: Final = frozenset({"__init__", "__new__", "__repr__", "extra_repr", "__init_subclass__"})
_CODE: Final = (types.FunctionType, staticmethod, classmethod, property)
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MAX_PASSES: Final = 50  # each pass adds at least one name; real models need two or three


class ModelReader:
    """Describes one model; the result is computed once.

    The names that reached code reads decide which methods and attributes count, and those may
    reach more code, so the modules are read again until nothing new is reached.
    """

    def __init__(self, model: nn.Module) -> None:
        self._rows = list(walk(model))
        paths = {id(m): path for path, m, first in self._rows if m is not None and first is None}
        self._forms = LiveForms(paths, self._describe_apart)
        self._table = CodeTable(self._forms.shape_of)
        self._modules = [m for _, m, first in self._rows if m is not None and first is None]
        self._table.known_classes = frozenset(real_class(m) for m in self._modules)
        self._writes: dict[type, set[str]] = {}
        self._dynamic: dict[type, bool] = {}
        self._class_code: dict[type, list[Any]] = {}
        self.class_name = class_name(real_class(unwrap(model)))
        self._register_tensors()
        self._identity: dict[str, Any] | None = None

    def _register_tensors(self) -> None:
        for path, module, first in self._rows:
            if module is None or first is not None:
                continue
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self._forms.add_tensor(tensor, f"{path}.{name}" if path else name)

    def _describe_apart(self, module: nn.Module) -> dict[str, Any]:
        """Describe a module that is not registered in the tree (a plain list, a global)."""
        return ModelReader(module).identity()

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
            modules = [self._entry(*row) for row in self._rows]
            self._identity = {
                "modules": modules,
                "code": {name: e.digest for name, e in sorted(self._table.entries.items())},
                "frozen": self._frozen(),
            }
        return self._identity

    def sources(self) -> dict[str, str]:
        """Return label -> source text of user code."""
        return {name: e.source for name, e in self._table.entries.items() if e.source}

    def values(self) -> dict[str, dict[str, Any]]:
        """Return label -> constants, defaults and closure of user code, as plain values."""
        return shown_values(self._table.values)

    def weak(self) -> list[str]:
        """Return the labels of code that was described as byte-code."""
        return sorted(name for name, e in self._table.entries.items() if e.weak)

    def _frozen(self) -> list[str]:
        return [
            f"{path}.{name}" if path else name
            for path, module, first in self._rows
            if module is not None and first is None
            for name, parameter in module._parameters.items()
            if parameter is not None and not parameter.requires_grad
        ]

    # ------------------------------------------------------------ reaching
    def _reach_all(self) -> None:
        classes = list(dict.fromkeys(real_class(m) for m in self._modules))
        for _ in range(_MAX_PASSES):
            before = (len(self._table.reads), len(self._table.entries), self._table.uses_super)
            for cls in classes:
                self._class_code[cls] = self._read_class(cls)
            for path, module, first in self._rows:
                if module is not None and first is None:
                    self._entry(path, module, first)
            after = (len(self._table.reads), len(self._table.entries), self._table.uses_super)
            if before == after:
                return

    def _read_class(self, cls: type) -> list[Any]:
        """Return [[base, {name: label or value}], ...] of the user's part of a module class."""
        writes, dynamic = set[str](), False
        seen: set[str] = set()
        result: list[Any] = []
        for base in user_bases(cls):
            found: dict[str, Any] = {}
            for name, member in vars(base).items():
                hidden = name in seen and not self._table.uses_super
                if not hidden and self._counts(cls, name, member):
                    found[name] = self._table.plain(member, f"{cls.__name__}.{name}")
            seen |= found.keys()
            result.append([base.__name__, dict(sorted(found.items()))])
        for facts in self._facts_of(cls):
            writes |= facts.writes
            dynamic |= facts.dynamic
        self._writes[cls], self._dynamic[cls] = writes, dynamic
        return result

    def _facts_of(self, cls: type) -> list[Any]:
        found = []
        for base in user_bases(cls):
            for name, member in vars(base).items():
                for function in functions_of(member):
                    entry = self._table.entry_of(function)
                    if entry is not None and name not in _NEVER:
                        found.append(entry.facts)
        return found

    def _counts(self, cls: type, name: str, member: Any) -> bool:
        if name in _NEVER:
            return False
        wanted = name in _ENTRY_POINTS or name in self._table.reads
        dunder = name.startswith("__") and name.endswith("__")
        if isinstance(member, _CODE):
            return wanted or (self._dynamic.get(cls, False) and not dunder)
        return not dunder and wanted and name not in self._writes.get(cls, ())

    # ------------------------------------------------------------ entries
    def _entry(self, path: str, module: nn.Module | None, first: str | None) -> dict[str, Any]:
        if module is None:
            return {"path": path, "class": None}
        if first is not None:
            return {"path": path, "same_as": first}
        cls = real_class(module)
        own = is_library(cls.__module__)
        entry: dict[str, Any] = {
            "path": path,
            "kind": "library" if own else "user",
            "class": class_name(cls),
            "attributes": self._attributes(path, module, cls),
        }
        if not own:
            entry["code"] = self._class_code[cls]
            entry["bases"] = [public_class_name(b) for b in cls.__mro__ if is_library(b.__module__)]
        self._add_tensors(entry, path, module, cls)
        hooks = self._hooks(path, module)
        if hooks:
            entry["hooks"] = hooks
        return entry

    def _attributes(self, path: str, module: nn.Module, cls: type) -> dict[str, Any]:
        values = dict(library_attributes(module)) if cls.__mro__ else {}
        own = vars(module)
        if "forward" in own:
            values["forward"] = own["forward"]
        values.update(self._forms.generated_code(module))
        if not is_library(cls.__module__):
            writes = self._writes.get(cls, set())
            everything = self._dynamic.get(cls, False)
            for name, value in own.items():
                if name in INFRASTRUCTURE or name in writes:
                    continue
                if everything or name in self._table.reads:
                    values[name] = value
        where = path or "model"
        return {
            name: self._table.plain(value, f"{where}.{name}")
            for name, value in sorted(values.items())
        }

    def _add_tensors(self, entry: dict[str, Any], path: str, module: nn.Module, cls: type) -> None:
        parameters, buffers = [], []
        for name, tensor in module._parameters.items():
            parameters.append([name, self._spec(f"{path}.{name}" if path else name, tensor)])
        for name, buffer in module._buffers.items():
            full_name = f"{path}.{name}" if path else name
            spec = self._spec(full_name, buffer)
            if name in module._non_persistent_buffers_set:
                written = name in self._writes.get(cls, ())
                spec = "written by forward" if written else self._constant(spec, buffer, full_name)
                buffers.append([name, spec, "not persistent"])
            else:
                buffers.append([name, spec])
        if parameters:
            entry["parameters"] = parameters
        if buffers:
            entry["buffers"] = buffers

    def _constant(self, spec: Any, tensor: Any, where: str) -> Any:
        if tensor is None:
            return spec
        try:
            return [spec, self._forms.content_digest(tensor)]
        except NotCanonicalError as error:
            raise IdentityError(f"{where}: {error.message}", hint=error.hint) from error

    def _spec(self, full_name: str, tensor: Any) -> Any:
        """Return [dtype, shape] of a tensor, or the name under which it was seen before."""
        if tensor is None:
            return None
        first = self._forms.tensor_paths[id(tensor)]
        if first != full_name:
            return {"same_as": first}
        shape = inner_shape(tensor)
        if shape is None:
            raise IdentityError(
                f"{full_name} is a lazy parameter that has no shape yet",
                hint="run one forward first",
            )
        spec = [str(tensor.dtype).removeprefix("torch."), shape]
        hooks = [h for h in (tensor._backward_hooks or {}).values() if not _is_torchs(h)]
        if hooks:
            spec.append([self._table.plain(hook, f"hook of {full_name}") for hook in hooks])
        return spec

    def _hooks(self, path: str, module: nn.Module) -> list[Any]:
        found = []
        for kind in _HOOKS:
            for hook in getattr(module, kind).values():
                if not _is_torchs(hook) and not self._only_looks(hook):
                    where = f"{path or 'model'} {kind.strip('_')}"
                    found.append([kind.strip("_"), self._table.plain(hook, where)])
        return found

    def _only_looks(self, hook: Any) -> bool:
        """Say whether a hook returns nothing and changes nothing in place, as far as code shows."""
        function = hook.__func__ if type(hook) is types.MethodType else hook
        if type(function) is not types.FunctionType or is_library(home_of(function)):
            return False
        probe = CodeTable(self._forms.shape_of)
        probe.function(function)
        facts = [entry.facts for entry in probe.entries.values()]
        own = facts[0]  # the hook itself is described first
        return not own.returns_value and not any(f.in_place for f in facts)


def _is_torchs(hook: Any) -> bool:
    """Say whether a hook belongs to the machinery of a wrapper (FSDP, DDP)."""
    function = getattr(hook, "__func__", hook)
    module = getattr(function, "__module__", None) or type(hook).__module__
    if module == "functools":
        return _is_torchs(hook.func)
    return str(module).startswith(("torch.distributed", "torch.nn.parallel"))
