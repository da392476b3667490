"""Canonical form of user code: what it does, not how it is written; stdlib only.

Comments, docstrings, type hints, layout, `pass`, names of local variables, spelling of constants
and order of keyword arguments do not count; parameters, globals, closures and attributes do.
Serialised from the syntax tree by field name with empty fields left out, so that the form is the
same under Python 3.10 to 3.13. Code without source is taken as byte-code, marked weak.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.bytecode import byte_code_form
from weightslab.engine.identity.codeform import CodeForm, Facts, Resolver
from weightslab.engine.identity.effects import Effects, effects_of
from weightslab.engine.identity.scopes import Scope
from weightslab.engine.identity.source import find_source
from weightslab.engine.identity.syntax import (
    chain_of,
    constant_tree,
    fold_constants,
    is_none,
    literal_argument,
    says_nothing,
    signature_tree,
)

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable

    from weightslab.engine.identity.canonical import Tree

__all__ = ["canonical_code"]

_SKIPPED: Final = frozenset({
    "ctx", "type_comment", "annotation", "returns", "type_params", "kind", "simple", "is_async",
})  # fmt: skip
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_EFFECTS: Final = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


def canonical_code(
    code: types.CodeType, resolve: Resolver, notice: Callable[[Effects], None] | None = None
) -> CodeForm:
    """Return the canonical form of a code object, its nested functions included.

    Args:
        resolve: gives the tree of a global; called once per use.
        notice: is told what the code changes, before the first global is resolved.
    """
    found = find_source(code)
    if found is None or not isinstance(found.node, _FUNCTIONS):
        return byte_code_form(code, resolve, notice)
    effects = effects_of(found.node)
    if notice is not None:
        notice(effects)
    writer = _Writer(code, resolve)
    tree = writer.function(found.node)
    return CodeForm(tree, writer.facts, effects, found.text, weak=False)


class _Writer:
    """Serialises one function; `self._scopes` is the stack of name scopes around the node."""

    def __init__(self, code: types.CodeType, resolve: Resolver) -> None:
        self.facts = Facts()
        self._resolve = resolve
        self._free = frozenset(code.co_freevars)
        self._self = code.co_varnames[0] if code.co_argcount else None
        self._scopes: list[Scope] = []
        self._num_locals = 0
        self._imported: dict[
            str, tuple[str, tuple[str, ...]]
        ] = {}  # local name -> what it stands for

    # ------------------------------------------------------------ names
    def _name(self, name: str) -> Tree:
        for depth, scope in enumerate(reversed(self._scopes)):
            if scope.kind == "class" and depth:
                continue
            if name in scope.outer_globals:
                break
            if name in scope.params:
                return ["param", name]
            if name in scope.bound:
                if name not in scope.numbers:
                    scope.numbers[name] = str(self._num_locals)
                    self._num_locals += 1
                return ["local", scope.numbers[name]]
        else:
            if name in self._free:
                return ["closure", name]
        return self._resolve((name,))[0]

    def _is_global(self, name: str) -> bool:
        for scope in self._scopes:
            if name in scope.outer_globals:
                return True
            if name in scope.params or name in scope.bound:
                return False
        return name not in self._free

    # ------------------------------------------------------------ nodes
    def node(self, node: Any) -> Tree:
        handler = _HANDLERS.get(type(node))
        return handler(self, node) if handler is not None else self._generic(node)

    def _generic(self, node: Any) -> Tree:
        tree: list[Tree] = [type(node).__name__]
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if name in _SKIPPED or value is None or value == []:
                continue
            tree.append([name, self._value(value)])
        return tree

    def _value(self, value: Any) -> Tree:
        if isinstance(value, list):
            if value and isinstance(value[0], ast.stmt):
                return self._body(value)
            return ["l", *(self._value(item) for item in value)]
        if isinstance(value, ast.AST):
            return self.node(value)
        return None if value is None else str(value)

    def _body(self, statements: list[ast.stmt]) -> Tree:
        kept = [s for s in statements if not says_nothing(s)]
        return ["body", *(self.node(statement) for statement in kept)]

    # ------------------------------------------------------------ scopes
    def function(self, node: Any) -> Tree:
        """Serialise a function without its decorators and defaults: the live object has them."""
        scope = Scope.of_function(node)
        self._scopes.append(scope)
        if isinstance(node, ast.Lambda):
            self.facts.returns_value |= not is_none(node.body)
            inner: Tree = ["body", ["Return", ["value", self.node(node.body)]]]
        else:
            inner = self._body(node.body)
        self._scopes.pop()
        is_async = "async" if isinstance(node, ast.AsyncFunctionDef) else "def"
        return [is_async, signature_tree(node.args), inner]

    def _nested(self, node: Any) -> Tree:
        arguments = node.args
        extra = [*getattr(node, "decorator_list", []), *arguments.defaults]
        outer = [self.node(item) for item in extra]
        keyword_defaults = [None if d is None else self.node(d) for d in arguments.kw_defaults]
        target = self._name(node.name) if hasattr(node, "name") else None
        returns = self.facts.returns_value
        tree = ["nested", target, outer, keyword_defaults, self.function(node)]
        self.facts.returns_value = returns
        return tree

    def _class(self, node: Any) -> Tree:
        outer = [self.node(item) for item in (*node.decorator_list, *node.bases, *node.keywords)]
        target = self._name(node.name)
        self._scopes.append(Scope.of_class(node))
        body = self._body(node.body)
        self._scopes.pop()
        return ["class", target, outer, body]

    def _comprehension(self, node: Any) -> Tree:
        # the first iterable is evaluated outside, but no name of its own can be in it
        self._scopes.append(Scope.of_comprehension(node))
        generators = [[*self._generic(g), str(g.is_async)] for g in node.generators]
        fields = [n for n in ("elt", "key", "value") if hasattr(node, n)]
        parts = [self.node(getattr(node, name)) for name in fields]
        self._scopes.pop()
        return [type(node).__name__, generators, parts]

    # ------------------------------------------------------------ expressions
    def _name_node(self, node: ast.Name) -> Tree:
        if node.id in self._imported and not self._is_global(node.id):
            self.facts.imports.add(self._imported[node.id])
        return self._name(node.id)

    def _attribute(self, node: ast.Attribute) -> Tree:
        chain = chain_of(node)
        if isinstance(node.ctx, ast.Load):
            self.facts.reads.add(node.attr)
            self.facts.dynamic |= node.attr == "__dict__"
        elif not (chain and chain[0] == self._self):
            self.facts.in_place = True
        if chain and self._is_global(chain[0]):
            self.facts.reads.update(chain[1:])
            tree, used = self._resolve(chain)
            return _with_attributes(tree, chain[used:])
        if chain and chain[0] in self._imported:
            self.facts.reads.update(chain[1:])
            origin, names = self._imported[chain[0]]
            self.facts.imports.add((origin, (*names, *chain[1:])))
            return _with_attributes(self._name(chain[0]), chain[1:])
        return ["attr", self.node(node.value), node.attr]

    def _subscript(self, node: ast.Subscript) -> Tree:
        if not isinstance(node.ctx, ast.Load):
            self.facts.in_place = True
        return ["item", self.node(node.value), self.node(node.slice)]

    def _call(self, node: ast.Call) -> Tree:
        self._note_call(node)
        keywords = [[k.arg, self.node(k.value)] for k in node.keywords]
        values = [k.value for k in node.keywords]
        pure = not any(isinstance(n, _EFFECTS) for v in values for n in ast.walk(v))
        if pure and all(k.arg for k in node.keywords):
            keywords.sort(key=lambda pair: str(pair[0]))
        return ["call", self.node(node.func), [self.node(a) for a in node.args], keywords]

    def _note_call(self, node: ast.Call) -> None:
        target = node.func
        if isinstance(target, ast.Name):
            self.facts.uses_super |= target.id == "super"
            self.facts.dynamic |= target.id in ("vars", "dir")
            if target.id in ("getattr", "hasattr") and len(node.args) > 1:
                name = literal_argument(node, 1)
                self.facts.dynamic |= name is None
                self.facts.reads.update(() if name is None else (name,))
            return
        if isinstance(target, ast.Attribute):
            in_place = target.attr.endswith("_") and not target.attr.endswith("__")
            chain = chain_of(target)
            is_own = chain is not None and len(chain) > 2 and chain[0] == self._self  # noqa: PLR2004
            self.facts.in_place |= in_place and not is_own

    def _operator(self, node: Any) -> Tree:
        folded = fold_constants(node)
        return constant_tree(folded.value) if folded is not None else self._generic(node)

    # ------------------------------------------------------------ statements
    def _aug_assign(self, node: ast.AugAssign) -> Tree:
        chain = chain_of(node.target)
        if not isinstance(node.target, ast.Name):
            self.facts.in_place |= not (chain and chain[0] == self._self)
        elif any(node.target.id in scope.params for scope in self._scopes):
            self.facts.in_place = True
        return self._generic(node)

    def _ann_assign(self, node: ast.AnnAssign) -> Tree:
        assert node.value is not None, "bare annotations are dropped before"
        return [
            "Assign",
            ["targets", ["l", self.node(node.target)]],
            ["value", self.node(node.value)],
        ]

    def _assign(self, node: ast.Assign) -> Tree:
        targets = ["l", *(self.node(target) for target in node.targets)]
        return ["Assign", ["targets", targets], ["value", self.node(node.value)]]

    def _return(self, node: ast.Return) -> Tree:
        if node.value is None or is_none(node.value):
            return ["Return"]
        self.facts.returns_value = True
        return ["Return", ["value", self.node(node.value)]]

    def _yield(self, node: Any) -> Tree:
        self.facts.returns_value = True
        return self._generic(node)

    def _import(self, node: Any) -> Tree:
        origin = "." * (getattr(node, "level", 0) or 0) + (getattr(node, "module", None) or "")
        for alias in node.names:
            top = alias.name.partition(".")[0]
            if origin:
                self._imported[alias.asname or alias.name] = (origin, (alias.name,))
            elif alias.asname:
                self._imported[alias.asname] = (alias.name, ())
            else:
                self._imported[top] = (top, ())
        names = [
            [alias.name, self._name(alias.asname or alias.name.partition(".")[0])]
            for alias in node.names
        ]
        return ["import", origin, names]

    def _handler(self, node: ast.ExceptHandler) -> Tree:
        kind = self.node(node.type) if node.type else None
        return ["except", kind, self._name(node.name) if node.name else None, self._body(node.body)]

    def _capture(self, node: Any) -> Tree:
        tree: list[Tree] = [type(node).__name__]
        for name in sorted(node._fields):
            value = getattr(node, name)
            if value is None or value == []:
                continue
            bound = name in ("name", "rest") and isinstance(value, str)
            tree.append([name, self._name(value) if bound else self._value(value)])
        return tree


def _joined_text(writer: _Writer, node: ast.JoinedStr) -> Tree:
    """Serialise an f-string: Pythons cut the text between the braces in different places."""
    parts: list[Tree] = ["f-string"]
    literal = ""
    for value in node.values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            literal += value.value
            continue
        parts += [constant_tree(literal), writer.node(value)] if literal else [writer.node(value)]
        literal = ""
    if len(parts) == 1:
        return constant_tree(literal)
    return [*parts, constant_tree(literal)] if literal else parts


def _with_attributes(tree: Tree, names: Iterable[str]) -> Tree:
    for name in names:
        tree = ["attr", tree, name]
    return tree


_HANDLERS: Final[dict[type, Callable[[Any, Any], Tree]]] = {
    ast.Name: _Writer._name_node,
    ast.Attribute: _Writer._attribute,
    ast.Subscript: _Writer._subscript,
    ast.Call: _Writer._call,
    ast.Constant: lambda _, node: constant_tree(node.value),
    ast.JoinedStr: _joined_text,
    ast.BinOp: _Writer._operator,
    ast.UnaryOp: _Writer._operator,
    ast.FunctionDef: _Writer._nested,
    ast.AsyncFunctionDef: _Writer._nested,
    ast.Lambda: _Writer._nested,
    ast.ClassDef: _Writer._class,
    ast.AugAssign: _Writer._aug_assign,
    ast.AnnAssign: _Writer._ann_assign,
    ast.Assign: _Writer._assign,
    ast.Return: _Writer._return,
    ast.Yield: _Writer._yield,
    ast.YieldFrom: _Writer._yield,
    ast.Import: _Writer._import,
    ast.ImportFrom: _Writer._import,
    ast.ExceptHandler: _Writer._handler,
    ast.MatchAs: _Writer._capture,
    ast.MatchStar: _Writer._capture,
    ast.MatchMapping: _Writer._capture,
    **dict.fromkeys(_COMPREHENSIONS, _Writer._comprehension),
}
