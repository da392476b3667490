"""Small questions about nodes of a syntax tree; stdlib only."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.canonical import Tree, float_text, int_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "chain_of",
    "constant_tree",
    "fold_constants",
    "is_none",
    "literal_argument",
    "says_nothing",
    "signature_tree",
]

_FOLDABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FOLD_BITS: Final = 128  # constants beyond this are left as they are written


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


def signature_tree(arguments: ast.arguments) -> Tree:
    """Return the parameters of a function by kind; names count, they are the interface."""
    return [
        [arg.arg for arg in arguments.posonlyargs],
        [arg.arg for arg in arguments.args],
        arguments.vararg.arg if arguments.vararg else None,
        [arg.arg for arg in arguments.kwonlyargs],
        arguments.kwarg.arg if arguments.kwarg else None,
    ]


def literal_argument(node: ast.Call, at: int) -> str | None:
    """Return the text that an argument of a call is written as, None if it is computed."""
    found = node.args[at] if len(node.args) > at else None
    return found.value if isinstance(found, ast.Constant) and isinstance(found.value, str) else None


def is_none(node: ast.AST | None) -> bool:
    """Say whether an expression is the literal None."""
    return isinstance(node, ast.Constant) and node.value is None


def says_nothing(statement: ast.stmt) -> bool:
    """Say whether a statement has no effect: `pass`, docstrings, bare annotations, hints."""
    if isinstance(statement, (ast.Pass, ast.Global, ast.Nonlocal)):
        return True
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return True
    if isinstance(statement, ast.If) and not statement.orelse:
        return chain_of(statement.test) in (("TYPE_CHECKING",), ("typing", "TYPE_CHECKING"))
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def constant_tree(value: Any) -> Tree:
    """Return the tree of a literal; types are kept apart, spelling is not."""
    if value is None or isinstance(value, bool) or value is Ellipsis:
        return ["const", str(value)]
    if isinstance(value, int):
        return ["int", int_text(value)]
    if isinstance(value, float):
        return ["float", float_text(value)]
    if isinstance(value, complex):
        return ["complex", float_text(value.real), float_text(value.imag)]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    # a literal may hold half a character ("\ud800"); written as an escape it stays distinct
    return ["str", value.encode("utf-8", "surrogatepass").hex() if _broken(value) else value]


def _broken(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
