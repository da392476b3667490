"""Which names a scope binds, and small questions about expressions; stdlib only."""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MUTATORS", "Scope", "chain_of", "changed_names", "fold_constants"]

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MUTATORS: Final = frozenset({
    "append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault",
    "add", "discard", "appendleft", "popleft", "sort", "reverse", "move_to_end",
})  # fmt: skip
_FOLDABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FOLD_BITS: Final = 128  # constants beyond this are left as they are written


@dataclass(slots=True)
class Scope:
    """Names of one function, class body or comprehension.

    Attributes:
        kind: `function`, `class` or `comprehension`.
        params: parameters: part of the interface, kept by name.
        bound: other names bound here: numbered in order of first use.
        outer_globals: names declared `global`.
        numbers: name -> number, filled while serialising.
    """

    kind: str
    params: frozenset[str]
    bound: frozenset[str]
    outer_globals: frozenset[str] = frozenset()
    numbers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_function(cls, node: Any) -> Scope:
        """Return the scope of a function or lambda."""
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [arg for arg in (arguments.vararg, arguments.kwarg) if arg]
        params = frozenset(arg.arg for arg in every)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        bound, outer, enclosing = _bindings(body)
        return cls(
            "function", params, frozenset(bound - params - outer - enclosing), frozenset(outer)
        )

    @classmethod
    def of_class(cls, node: ast.ClassDef) -> Scope:
        """Return the scope of a class body; its names are attributes, so they keep their text."""
        bound, outer, enclosing = _bindings(node.body)
        return cls("class", frozenset(bound - outer - enclosing), frozenset(), frozenset(outer))

    @classmethod
    def of_comprehension(cls, node: Any) -> Scope:
        """Return the scope of a comprehension: the targets of its loops."""
        bound = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        return cls("comprehension", frozenset(), frozenset(bound))


def _bindings(body: Iterable[ast.AST]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that `body` binds, declares global, and declares nonlocal."""
    bound: set[str] = set()
    outer: set[str] = set()
    enclosing: set[str] = set()
    stack: list[tuple[ast.AST, bool]] = [(node, False) for node in body]
    while stack:
        node, inside = stack.pop()
        if isinstance(node, ast.Global):
            outer.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            enclosing.update(node.names)
        else:
            bound.update(_bound_by(node, inside))
        stack.extend(_inner(node, inside))
    return bound, outer, enclosing


def _bound_by(  # noqa: PLR0911  one line per kind of statement
    node: ast.AST, inside_comprehension: bool
) -> list[str]:
    if isinstance(node, ast.NamedExpr):
        return [node.target.id]
    if isinstance(node, ast.Name):
        return [] if inside_comprehension or isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [a.asname or a.name.partition(".")[0] for a in node.names]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return []


def _inner(node: ast.AST, inside: bool) -> list[tuple[ast.AST, bool]]:
    """Return the nodes below that belong to the same scope."""
    if isinstance(node, ast.Lambda):
        return [(d, inside) for d in (*node.args.defaults, *node.args.kw_defaults) if d]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parts = (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults)
        return [(part, inside) for part in parts if part]
    if isinstance(node, ast.ClassDef):
        return [(part, inside) for part in (*node.decorator_list, *node.bases, *node.keywords)]
    deeper = inside or isinstance(node, _COMPREHENSIONS)
    return [(child, deeper) for child in ast.iter_child_nodes(node)]


def chain_of(node: ast.AST) -> tuple[str, ...] | None:
    """Return `("a", "b", "c")` for the expression `a.b.c`, None for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return (node.id, *reversed(names))


def fold_constants(node: ast.AST) -> ast.Constant | None:  # noqa: PLR0911
    """Return the constant that an expression of numbers is (`2 * 3`, `-1`), None for others."""
    if isinstance(node, ast.Constant):
        return node if type(node.value) in (int, float) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = fold_constants(node.operand)
        if inner is None:
            return None
        number: Any = inner.value
        return ast.Constant(-number if isinstance(node.op, ast.USub) else number)
    if isinstance(node, ast.BinOp) and type(node.op) in _FOLDABLE:
        left, right = fold_constants(node.left), fold_constants(node.right)
        if left is None or right is None or not _small(left.value, right.value):
            return None
        try:
            return ast.Constant(_FOLDABLE[type(node.op)](left.value, right.value))
        except (ZeroDivisionError, OverflowError):
            return None
    return None


def _small(*values: Any) -> bool:
    return all(isinstance(v, float) or v.bit_length() <= _FOLD_BITS for v in values)


def changed_names(function: ast.AST) -> frozenset[str]:
    """Return the names whose object the code changes: `global` ones, `N[i] = ...`, `N.append(...)`.

    Where such a name is a global, it is a cache or a counter, and its content no constant.
    """
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            names.update(node.names)
            continue
        target: ast.AST | None = None
        if isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value if node.func.attr in MUTATORS else None
        chain = chain_of(target) if target is not None else None
        if chain and len(chain) == 1:
            names.add(chain[0])
    return frozenset(names)
