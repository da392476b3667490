"""`__all__` is exact: it names what a module offers, all of it, and nothing that is not there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from weightslab.engine.retention import policies

PACKAGE = Path(__file__).parents[2] / "weightslab"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What people outside the package are invited to use; rooms may share more among themselves.
PUBLIC = (
    "backend/ledgers.py",
    "engine/digests.py",
    "engine/errors.py",
    "engine/jsonform.py",
    "engine/storage/local.py",
    "engine/storage/memory.py",
    "engine/storage/store.py",
    "engine/testing/faults.py",
    "engine/testing/store_contract.py",
    "engine/values.py",
)


def listed(tree):
    """The literal `__all__` of a module, or None."""
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return ast.literal_eval(node.value)
    return None


def defined(tree):
    """Public functions and classes that the module itself defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC)
def test_all_of_a_public_module_leaves_out_nothing(name):
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    names, own = listed(tree), defined(tree)
    assert names is not None
    assert own <= set(names), f"public, but not in __all__: {sorted(own - set(names))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_name_stands_twice_in_all(path):
    names = listed(ast.parse(path.read_text(encoding="utf-8"))) or []
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_name_in_all_is_there(path):
    names = listed(ast.parse(path.read_text(encoding="utf-8")))
    if not names:
        pytest.skip("no __all__")
    parts = ["weightslab", *path.relative_to(PACKAGE).with_suffix("").parts]
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert [name for name in names if not hasattr(module, name)] == []


def test_doors_are_those_that_users_know():
    doors = importlib.import_module("weightslab.components").__all__
    saving = importlib.import_module("weightslab.engine.saving.policies").__all__
    no_doors = {"Moment", "SavePolicy", "RetentionPolicy", "check_policy", "policies_in"}
    known = {
        "CheckpointManagerV2",
        "ExperimentHashGenerator",
        "Preempted",
        "ResumableSampler",
        "Retention",
        "SampleSet",
    }
    known |= {*policies.__all__, *saving} - no_doors - {"signal_name"}
    assert known <= set(doors)
    assert set(doors) <= {"CheckpointManager", *known}
