"""Defaults that are left out of a description, and the table they are frozen in."""

import json

import pytest
from support.torch_defaults import TABLE, current_table
from torch import nn
from torch.nn import functional

from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.defaults import REQUIRED, is_default, parameters_of

HOW = (
    "the installed torch differs from weightslab/engine/identity/torch_defaults.json. New classes"
    " and parameters: run PYTHONPATH=tests python -m support.torch_defaults and commit. A changed"
    " default: keep the old line, or all models with that layer get another hash."
)


def attributes(model):
    return describe_model(model).document["identity"]["models"][0][1]["modules"][0]["attributes"]


def test_the_table_is_that_of_the_installed_torch():
    assert json.loads(TABLE.read_text("utf-8")) == current_table(), HOW


def test_defaults_are_left_out_and_other_values_are_not():
    assert attributes(nn.Dropout()) == {}
    assert attributes(nn.Dropout(0.1)) == {"p": 0.1}
    assert attributes(nn.LayerNorm(4, eps=1e-6)) == {"eps": 1e-06, "normalized_shape": [4]}


def test_a_changed_default_of_the_library_is_seen(monkeypatch):
    before = describe_model(nn.ELU()).digest

    def with_other_default(self, alpha=2.0, inplace=False):
        nn.Module.__init__(self)
        self.alpha, self.inplace = alpha, inplace

    monkeypatch.setattr(nn.ELU, "__init__", with_other_default)
    parameters_of.cache_clear()
    try:
        assert attributes(nn.ELU()) == {"alpha": 2.0}
        assert describe_model(nn.ELU()).digest != before
    finally:
        parameters_of.cache_clear()


def test_a_function_default_is_known_by_name():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    assert layer.activation is functional.relu
    assert "activation" not in attributes(layer)


def test_a_whole_number_for_a_float_parameter_is_that_float():
    assert attributes(nn.Hardtanh(-1, 1)) == {}
    assert attributes(nn.ELU(2)) == attributes(nn.ELU(2.0)) == {"alpha": 2.0}


@pytest.mark.parametrize(
    ("value", "default", "expected"),
    [
        (1, 1, True), (1, 1.0, False), (True, 1, False), (0.0, -0.0, False), (None, None, True),
        ((2, 2), [2, 2], True), ((2, 3), [2, 2], False), (functional.relu, {"$name": "torch.nn.functional.relu"}, True),
        (None, REQUIRED, False), ("a", "a", True), (object(), REQUIRED, False),
    ],
    ids=range(11),
)  # fmt: skip
def test_is_default(value, default, expected):
    assert is_default(value, default) is expected
