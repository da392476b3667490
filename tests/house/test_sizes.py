"""Size budgets: what is longer has more than one idea in it. Docstrings do not count."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "weightslab"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MAX_METHODS = 25


def num_lines(source, node):
    """Lines of a module, class or function without its docstrings, comments included."""
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(source))
    return last - first + 1 - sum(map(docstring_lines, ast.walk(node)))


def docstring_lines(node):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, kinds) and ast.get_docstring(node) is not None:
        return node.body[0].end_lineno - node.body[0].lineno + 1
    return 0


def too_long(path):
    source = path.read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(source))
    if (lines := num_lines(source, tree)) > MAX_FILE_LINES:
        yield f"{path.name}: {lines} lines, at most {MAX_FILE_LINES}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if (lines := num_lines(source, node)) > MAX_FUNCTION_LINES:
                yield f"{node.name}: {lines} lines, at most {MAX_FUNCTION_LINES}"
        elif isinstance(node, ast.ClassDef) and (count := num_methods(node)) > MAX_METHODS:
            yield f"{node.name}: {count} methods, at most {MAX_METHODS}"


def num_methods(node):
    """Methods of a class; the tests of a shipped contract are no methods in this sense."""
    names = (child.name for child in node.body if isinstance(child, ast.FunctionDef))
    return sum(not name.startswith("test_") for name in names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_functions_and_classes_keep_their_budget(path):
    assert list(too_long(path)) == []


def test_the_measure_sees_what_is_too_long(tmp_path):
    body = "".join(f"        x = {n}\n" for n in range(60))
    methods = "".join(f"    def m{n}(self): ...\n" for n in range(25))
    (tmp_path / "m.py").write_text(
        f'class C:\n    def long(self):\n        """Not\n        counted."""\n{body}{methods}'
        + "x = 1\n" * 550
    )
    assert list(too_long(tmp_path / "m.py")) == [
        "m.py: 637 lines, at most 600",
        "C: 26 methods, at most 25",
        "long: 61 lines, at most 60",
    ]
