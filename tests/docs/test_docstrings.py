"""Examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "weightslab"
EXAMPLES = PACKAGE / "examples"  # programs with a main of their own


def _modules_with_examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        if EXAMPLES not in path.parents and ">>>" in path.read_text("utf-8"):
            yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
                ".__init__"
            )


MODULES = list(_modules_with_examples())


@pytest.mark.skipif(not MODULES, reason="no docstring shows an example")
def test_examples_in_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in MODULES:
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        assert result.attempted > 0, f"{name} has `>>>` where no doctest is found"
        assert result.failed == 0, name
