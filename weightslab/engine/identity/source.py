"""Find the source of a running code object, and believe it only if it compiles to that code.

A file may have been edited since it was imported; `inspect` would then show the new text for the
old code. Here the text is compiled, and the code object in it that equals the running one (line
numbers aside) names its syntax tree. What was found once is remembered by the code itself, so it
survives the file.
"""

from __future__ import annotations

import ast
import linecache
import textwrap
import types
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Source", "code_key", "find_source"]

ScopeNode = (
    ast.FunctionDef
    | ast.AsyncFunctionDef
    | ast.Lambda
    | ast.ClassDef
    | ast.GeneratorExp
    | ast.ListComp
    | ast.SetComp
    | ast.DictComp
)
_SCOPES: Final = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef,
    ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp,
)  # fmt: skip
_FLAG_MASK: Final = 0x7F  # optimised ... generator, nofree: not the __future__ bits of the file
_MAX_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class Source:
    """Where a code object was written.

    Attributes:
        node: its syntax tree (function, lambda, ...).
        text: its own lines of the file.
    """

    node: Any
    text: str


_remembered: dict[Any, Source] = {}
_remembered_at: set[tuple[str, int]] = set()
_files: dict[str, tuple[str, dict[Any, Source]]] = {}


def code_key(code: types.CodeType) -> tuple[Any, ...]:
    """Return what makes a code object behave as it does: everything but names of files and lines."""
    return (
        code.co_name,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _FLAG_MASK,
        getattr(code, "co_exceptiontable", b""),
        tuple(_const_key(const) for const in code.co_consts),
    )


def _const_key(const: Any) -> Any:
    if isinstance(const, types.CodeType):
        return code_key(const)
    if isinstance(const, tuple):
        return ("tuple", *map(_const_key, const))
    if isinstance(const, frozenset):
        return ("frozenset", *sorted(repr(_const_key(item)) for item in const))
    return type(const).__name__, repr(const)  # constants are literals: 1, 1.0, -0.0, True differ


def find_source(code: types.CodeType) -> Source | None:
    """Return the source of `code`, or None if there is none that compiles to it."""
    key = code_key(code)
    found = _sources_of(code.co_filename).get(key)
    if found is not None:
        _remembered[key] = found
        _remembered_at.add((code.co_filename, hash(key)))
        return found
    # code that never had a file (`exec` of a text) takes no source from equal code elsewhere: it
    # would be weak or not depending on what else was described before
    had_a_file = not code.co_filename.startswith("<")
    if had_a_file or (code.co_filename, hash(key)) in _remembered_at:
        return _remembered.get(key)
    return None


def _sources_of(filename: str) -> dict[Any, Source]:
    """Return all code objects of a file, by key; cached by the text of the file."""
    linecache.checkcache(filename)
    text = "".join(linecache.getlines(filename))
    cached = _files.get(filename)
    if cached is not None and cached[0] == text:
        return cached[1]
    table = dict(_compile_sources(text, filename)) if text else {}
    if len(_files) >= _MAX_FILES:
        _files.pop(next(iter(_files)))
    _files[filename] = (text, table)
    return table


def _compile_sources(text: str, filename: str) -> Iterator[tuple[Any, Source]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were told when the file was imported
            code = compile(text, filename, "exec", dont_inherit=True)
            tree = ast.parse(text)
            nodes = _number_scopes(tree)
            numbered = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):  # not Python any more
        return
    original = [node for node in ast.walk(ast.parse(text)) if isinstance(node, _SCOPES)]
    lines = text.splitlines()
    for real, marked in _pairs(code, numbered):
        at = nodes.get(marked.co_firstlineno)
        if at is not None:
            node = original[at]
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            own = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
            yield code_key(real), Source(node, own)


def _number_scopes(tree: ast.Module) -> dict[int, int]:
    """Give each scope a line number of its own; return line number -> position in `ast.walk`.

    Columns alone would not do: they are not in the code objects of Python 3.10.
    """
    order = [node for node in ast.walk(tree) if isinstance(node, _SCOPES)]
    position = {id(node): i for i, node in enumerate(order)}
    stack: list[tuple[ast.AST, int]] = [(tree, 1)]
    while stack:
        node, line = stack.pop()
        if id(node) in position:
            line = position[id(node)] + 2
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = line  # type: ignore[attr-defined]
            node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]
        stack.extend((child, line) for child in ast.iter_child_nodes(node))
    return {i + 2: i for i in range(len(order))}


def _pairs(
    code: types.CodeType, numbered: types.CodeType
) -> Iterator[tuple[types.CodeType, types.CodeType]]:
    """Walk two compilations of one tree in step; stop where Python merged equal constants."""
    stack = [(code, numbered)]
    while stack:
        left, right = stack.pop()
        yield left, right
        inner = [
            [const for const in one.co_consts if isinstance(const, types.CodeType)]
            for one in (left, right)
        ]
        if len(inner[0]) == len(inner[1]):
            stack.extend(zip(*inner, strict=True))
