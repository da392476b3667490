"""The package with one call left out: every fsync, link and rename, found in its source."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from types import CodeType, FunctionType

PACKAGE = Path(importlib.util.find_spec("weightslab").origin).parent
# Tools of tests that pass calls on; they are not on the way of a save.
LEFT_OUT = ("engine/testing/",)
NAMES = {"fsync", "fdatasync", "folder_sync", "_sync_names_above", "sync", "link", "rename"}


def sites():
    """Return `(module, function, line, column, text)` of every call that can be left out, sorted."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).as_posix()
        if not inside.startswith(LEFT_OUT):
            module = ".".join(["weightslab", *Path(inside).with_suffix("").parts])
            found += _sites_in(module, ast.parse(path.read_text("utf-8")))
    return found


def _sites_in(module, tree):
    found = []
    for function, call in _calls(tree, ()):
        if _is_site(call):
            found.append((module, function, call.lineno, call.col_offset, ast.unparse(call)))
    return found


def _calls(node, names):
    """Yield (dotted name of the function, call) of every call below a node."""
    for child in ast.iter_child_nodes(node):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(child, ast.Call):
            yield ".".join(names), child
        yield from _calls(child, (*names, child.name) if isinstance(child, kinds) else names)


def _is_site(call):
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in NAMES
    if not isinstance(function, ast.Attribute):
        return False
    # `path.replace(other)` renames; text has a second argument, a datetime named ones
    renames = function.attr == "replace" and len(call.args) == 1 and not call.keywords
    return function.attr in NAMES or renames


def mutate(module, function, line, column):
    """Leave out one call in the running package: what it would have returned is True."""
    path = Path(importlib.util.find_spec(module).origin)
    tree = _LeaveOut(line, column).visit(ast.parse(path.read_text("utf-8")))
    code = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
    owner = importlib.import_module(module)
    *classes, name = function.split(".")
    for part in classes:
        owner = getattr(owner, part)
        code = _inner(code, part)
    target = vars(owner)[name]
    # a context manager is a function around the one that is meant
    while not isinstance(target, FunctionType) or hasattr(target, "__wrapped__"):
        target = getattr(target, "__func__", None) or target.__wrapped__
    target.__code__ = _inner(code, name)


def _inner(code, name):
    return next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name)


class _LeaveOut(ast.NodeTransformer):
    def __init__(self, line, column):
        self._place = line, column

    def visit_Call(self, node):
        if (node.lineno, node.col_offset) == self._place and _is_site(node):
            return ast.copy_location(ast.Constant(value=True), node)
        return self.generic_visit(node)
