"""Which names a scope binds; stdlib only."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Scope"]

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


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
