"""What code changes while it runs: attributes, globals, arguments; stdlib only.

What is changed at run time is state and no constant, so it does not count in an identity. Read from
the syntax alone: assignments, deletions, calls of methods that are known to change their object,
and names that stand for another (`log = self.log; log.append(1)`).
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.syntax import chain_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Effects", "Passed", "effects_of"]

Chain = tuple[str, ...]
_MUTATORS: Final = frozenset({
    "append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault",
    "add", "discard", "appendleft", "popleft", "rotate", "sort", "reverse", "move_to_end",
    "subtract", "put", "put_nowait", "__setitem__", "__delitem__", "difference_update", "write",
    "intersection_update", "symmetric_difference_update", "fill", "resize_",
})  # fmt: skip
# functions that change their first argument
_CHANGERS: Final = frozenset({
    "next", "anext", "shuffle", "heappush", "heappop", "heapify", "heappushpop", "heapreplace",
    "insort", "insort_left", "insort_right", "copyto",
})  # fmt: skip
_SETTERS: Final = frozenset({
    "setattr", "delattr", "__setattr__", "__delattr__", "register_buffer", "register_parameter",
    "add_module", "register_module",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Passed:
    """An object that a call hands over by name.

    Attributes:
        callee: the function, as `("helpers", "push")`.
        place: position, or keyword.
        value: what is handed over, as `("self", "items")`.
    """

    callee: Chain
    place: int | str
    value: Chain


@dataclass(slots=True)
class Effects:
    """What one function changes, nested functions included.

    Attributes:
        owner: name of the first parameter, None without one.
        writes: attributes of the first parameter that are assigned or deleted.
        prefixes: beginnings of such names that are computed: `setattr(self, "_" + name, ...)`.
        mutates: attributes of the first parameter whose object is changed in place.
        foreign: attributes assigned on anything else.
        foreign_mutates: attributes of anything else whose object is changed in place.
        changed: other chains whose object is changed in place; a parameter is `("x",)`.
        stored: other chains that are assigned: `("N",)` after `global N`, `("helpers", "N")`.
        passed: what is handed to calls.
    """

    owner: str | None
    writes: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)
    mutates: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    foreign_mutates: set[str] = field(default_factory=set)
    changed: set[Chain] = field(default_factory=set)
    stored: set[Chain] = field(default_factory=set)
    passed: set[Passed] = field(default_factory=set)

    # ------------------------------------------------------------ one change
    def assign(self, base: Chain | None, name: str) -> None:
        """Note `base.name = ...`; None where the base is no plain chain of names."""
        if base is not None and base[0] == self.owner:
            if base[1:] in ((), ("__class__",)):
                self.writes.add(name)
                return
            self.mutates.add(base[1])
        elif base is not None:
            self.stored.add((*base, name))
        self.foreign.add(name)

    def mutate(self, chain: Chain | None) -> None:
        """Note that the object which `chain` names is changed in place."""
        if chain is None:
            return
        if chain[0] == self.owner and len(chain) > 1:
            self.mutates.add(chain[1])
        else:
            self.changed.add(chain)
        if len(chain) > 2:  # noqa: PLR2004  owner, object, attribute of the object
            self.foreign_mutates.add(chain[-1])


@functools.lru_cache(maxsize=4096)
def effects_of(function: Any) -> Effects:
    """Return what the code of a function, lambda or comprehension changes; not to be altered."""
    arguments = getattr(function, "args", None)
    positional = [*arguments.posonlyargs, *arguments.args] if arguments else []
    effects = Effects(positional[0].arg if positional else None)
    names = _Names(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            effects.stored.update((name,) for name in node.names)
        elif isinstance(node, (ast.Attribute, ast.Subscript)):
            if not isinstance(node.ctx, ast.Load):
                _note_target(effects, names, node)
        elif isinstance(node, ast.Call):
            _note_call(effects, names, node)
    return effects


def _note_target(effects: Effects, names: _Names, node: ast.Attribute | ast.Subscript) -> None:
    if isinstance(node, ast.Attribute):
        inner = node.value
        if _is_type_of(inner, effects.owner):
            effects.writes.add(node.attr)
        else:
            effects.assign(names.chain(inner), node.attr)
        return
    base = names.chain(_below_items(node))
    literal = _text(node.slice)
    if base is not None and base[-1] == "__dict__" and literal is not None:
        effects.assign(base[:-1], literal)
    elif _is_call(node.value, "vars") and literal is not None:
        effects.assign(names.chain(_first(node.value)), literal)
    else:
        effects.mutate(base)


def _note_call(effects: Effects, names: _Names, node: ast.Call) -> None:
    target = node.func
    name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
    if name in _SETTERS:
        _note_setter(effects, names, node)
    elif isinstance(target, ast.Attribute):
        receiver = names.chain(_below_items(target.value))
        if receiver is not None and receiver[-1] == "__dict__" and name in _MUTATORS:
            for key in _keys_of(node):
                effects.assign(receiver[:-1], key)
        elif name in _MUTATORS or _ends_in_place(name):
            effects.mutate(receiver)
    if (name in _CHANGERS or _ends_in_place(name)) and not names.is_local(target):
        effects.mutate(names.chain(_first(node)))  # nn.init.zeros_(w), but not w.mul_(factor)
    for keyword in node.keywords:
        if keyword.arg == "out":
            effects.mutate(names.chain(keyword.value))
    effects.passed.update(_handed_over(names, node))


def _note_setter(effects: Effects, names: _Names, node: ast.Call) -> None:
    """Note `setattr(x, "n", v)`, `object.__setattr__(x, "n", v)`, `x.register_buffer("n", v)`."""
    arguments = list(node.args)
    target: ast.AST | None = None
    if isinstance(node.func, ast.Attribute):
        target = node.func.value
        if isinstance(target, ast.Call) or getattr(target, "id", "") == "object":
            target = None  # super().__setattr__(...), object.__setattr__(x, ...)
    if target is None and arguments and _text(arguments[0]) is None:
        target = arguments.pop(0)
    base = names.chain(target) if target is not None else (effects.owner or "",)
    if not arguments:
        return
    literal = _text(arguments[0])
    if literal is not None:
        effects.assign(base, literal)
    elif base == (effects.owner,) and (prefix := _prefix(arguments[0])):
        effects.prefixes.add(prefix)


def _handed_over(names: _Names, node: ast.Call) -> Iterator[Passed]:
    callee = chain_of(node.func)
    if callee is None:
        return
    places: list[tuple[int | str, ast.AST]] = [*enumerate(node.args)]
    places += [(k.arg, k.value) for k in node.keywords if k.arg]
    for place, value in places:
        chain = names.chain(value)
        if chain is not None:
            yield Passed(callee, place, chain)


class _Names:
    """Local names that stand for an attribute or another name: `log = self.log`."""

    def __init__(self, function: ast.AST) -> None:
        self._stands_for: dict[str, Chain] = {}
        self._local: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.arg):
                self._local.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._local.add(node.id)
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.NamedExpr):
                targets, value = [node.target], node.value
            else:
                continue
            chain = chain_of(value)
            for target in targets:
                if chain is not None and isinstance(target, ast.Name):
                    self._stands_for.setdefault(target.id, chain)

    def is_local(self, function: ast.AST) -> bool:
        """Say whether what is called is a method of a local object, not a global function."""
        while isinstance(function, (ast.Attribute, ast.Subscript, ast.Call)):
            function = function.func if isinstance(function, ast.Call) else function.value
        return not isinstance(function, ast.Name) or function.id in self._local

    def chain(self, node: ast.AST | None) -> Chain | None:
        """Return the chain that an expression is, local names written out."""
        found = chain_of(node) if node is not None else None
        for _ in range(5):  # a name for a name for a name; a cycle (a = b; b = a) ends too
            if found is None or found[0] not in self._stands_for:
                break
            found = (*self._stands_for[found[0]], *found[1:])
        return found


def _below_items(node: ast.AST) -> ast.AST:
    """Return `self.table` for `self.table["a"][0]`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _first(node: ast.AST) -> ast.AST | None:
    return node.args[0] if isinstance(node, ast.Call) and node.args else None


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) == name


def _is_type_of(node: ast.AST, owner: str | None) -> bool:
    return _is_call(node, "type") and getattr(_first(node), "id", None) == owner


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _keys_of(node: ast.Call) -> list[str]:
    """Return the names that `x.__dict__.update(a=1)` or `.setdefault("a", 1)` writes."""
    found = [keyword.arg for keyword in node.keywords if keyword.arg]
    first = _first(node)
    keys = first.keys if isinstance(first, ast.Dict) else [first]
    return found + [text for key in keys if (text := _text(key)) is not None]


def _prefix(node: ast.AST) -> str | None:
    """Return the text that a computed name starts with: `"_" + name`, `f"_{name}"`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
        text = _text(node.left)
        return text.partition("%")[0] if text is not None else _prefix(node.left)
    if isinstance(node, ast.JoinedStr) and node.values:
        return _text(node.values[0])
    if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "format":
        text = _text(getattr(node.func, "value", None))
        return text.partition("{")[0] if text is not None else None
    return None
