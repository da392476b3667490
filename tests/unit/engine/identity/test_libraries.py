"""Packages that count as libraries by argument: known by name, not by their code."""

import sys
import types

import pytest
import torch

from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.engine.identity.architecture import describe_model

SOURCE = """
import torch

class Scale(torch.nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor{change}
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make layers of a package `ourlayers` whose forward ends in `change`."""

    def layer(change="", **arguments):
        path = tmp_path / f"ourlayers{len(change)}.py"
        path.write_text(SOURCE.format(change=change))
        module = types.ModuleType("ourlayers")
        monkeypatch.setitem(sys.modules, "ourlayers", module)
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
        return torch.nn.Sequential(torch.nn.Linear(2, 2), module.Scale(**arguments))

    return layer


def digest(model, *libraries):
    return describe_model(model, libraries=libraries).digest


def test_code_of_a_named_package_does_not_count_and_its_arguments_do(make):
    first, changed = make(), make(" + 1")
    assert digest(first) != digest(changed)
    assert digest(first, "ourlayers") == digest(changed, "ourlayers")
    assert digest(make(factor=3.0), "ourlayers") != digest(first, "ourlayers")


def test_the_description_names_the_class_as_that_of_a_library(make):
    entry = describe_model(make(), libraries=["ourlayers"]).document["identity"]["models"][0][1]
    assert [m["kind"] for m in entry["modules"]] == ["library"] * 3
    assert entry["modules"][2]["class"] == "ourlayers.Scale"


def test_a_package_that_the_model_does_not_use_changes_nothing(make):
    model = make()
    assert digest(model, "elsewhere") == digest(model)


def test_the_argument_ends_with_the_call(make):
    model = make()
    before = digest(model)
    digest(model, "ourlayers")
    assert digest(model) == before


def test_manager_and_generator_take_the_same_packages(make, tmp_path):
    hashes = set()
    for change in ("", " + 1"):
        model = make(change)
        generator = ExperimentHashGenerator(libraries=("ourlayers",))
        hashes.add(generator.generate_hash(model))
        with CheckpointManagerV2(tmp_path / "root", libraries=("ourlayers",)) as manager:
            hashes.add(manager.update_experiment_hash(model=model).exp_hash)
            manager.save_model_checkpoint(model, step=len(change), save_optimizer=False)
            manager.save_model_architecture(model)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("libraries", "error", "words"),
    [
        ("ourlayers", TypeError, "not one str"),
        ([1], TypeError, "not int"),
        (["a.b"], ValueError, "'a.b' is no top-level package"),
        (["__main__"], ValueError, "'__main__' is no top-level package"),
    ],
)
def test_what_names_no_package_is_refused(libraries, error, words):
    with pytest.raises(error, match=words):
        ExperimentHashGenerator(libraries=libraries)
