import json

import pytest
from torch import nn
from torch.nn import functional

from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.explain import diff_configs, diff_models, diff_samples
from weightslab.engine.identity.samples import SampleSet


class Net(nn.Module):
    expansion = 2

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        self.fc1 = nn.Linear(8, 128)
        self.fc2 = nn.Linear(128, 10)
        self.act = functional.relu

    def forward(self, x):
        return self.fc2(self.act(self.fc1(self.conv1(x)))) * self.expansion


def changed_forward(self, x):
    return self.fc2(self.fc1(self.conv1(x))) * self.expansion


def texts(change, before=None):
    old, new = Net(), Net()
    if before:
        before(old)
    change(new)
    documents = [json.loads(json.dumps(describe_model(m).document)) for m in (old, new)]
    return [str(c) for c in diff_models(*documents)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: None, []),
        (
            lambda m: setattr(m, "fc2", nn.Linear(256, 10)),
            ["fc2: Linear(128 -> 10) became Linear(256 -> 10)"],
        ),
        (
            lambda m: setattr(m, "fc2", nn.Linear(128, 10, bias=False)),
            ["fc2: Linear(128 -> 10) became Linear(128 -> 10, bias=False)"],
        ),
        (
            lambda m: setattr(m, "dropout", nn.Dropout(0.5)),
            ["module dropout: Dropout(p=0.5) added"],
        ),
        (
            lambda m: setattr(m, "tail", nn.Sequential(nn.ReLU(), nn.ReLU())),
            ["module tail: Sequential() added"],
        ),
        (lambda m: delattr(m, "conv1"), ["module conv1: Sequential() removed"]),
        (
            lambda m: setattr(m, "conv1", nn.Conv2d(1, 8, 3)),
            ["conv1: Sequential() became its 0 alone, Conv2d(1 -> 8, kernel_size=(3, 3))"],
        ),
        (lambda m: m.conv1.requires_grad_(False), ["conv1 frozen"]),
        (lambda m: m.requires_grad_(False), ["the whole model frozen"]),
        (lambda m: m.fc1.bias.requires_grad_(False), ["fc1.bias frozen"]),
        (lambda m: setattr(m, "act", functional.gelu), [
            "act: torch.nn.functional.relu -> torch.nn.functional.gelu"]),
        (lambda m: setattr(m, "expansion", 3), ["expansion: not set -> 3"]),
        (lambda m: m.fc1.double(), ["fc1: float32 -> float64"]),
        (
            lambda m: setattr(m, "fc2", m.fc1),
            ["fc2: Linear(128 -> 10) became same as fc1"],
        ),
    ],
)  # fmt: skip
def test_each_change_is_told_once(change, expected):
    assert texts(change) == expected


def test_unfreezing_is_told():
    assert texts(lambda m: None, lambda m: m.fc1.requires_grad_(False)) == ["fc1 unfrozen"]


def test_a_changed_method_is_told_by_name(monkeypatch):
    old = describe_model(Net()).document
    changed_forward.__qualname__ = "Net.forward"
    monkeypatch.setattr(Net, "forward", changed_forward)
    new = describe_model(Net()).document
    changes = [c for c in diff_models(old, new) if c.path == "Net.forward"]
    assert [(c.kind, str(c)) for c in changes] == [("changed", "forward of Net changed")]


def test_a_class_attribute_is_told_with_both_values(monkeypatch):
    old = describe_model(Net()).document
    monkeypatch.setattr(Net, "expansion", 4)
    (change,) = diff_models(old, describe_model(Net()).document)
    assert (str(change), change.old, change.new) == ("Net.expansion: 2 -> 4", 2, 4)


def test_models_of_a_dict_are_told_by_name():
    old = describe_model({"g": nn.Linear(1, 2), "d": nn.ReLU()}).document
    new = describe_model({"g": nn.Linear(1, 3), "e": nn.ReLU()}).document
    assert [str(c) for c in diff_models(old, new)] == [
        "model d removed",
        "model e added",
        "g:the model: Linear(1 -> 2) became Linear(1 -> 3)",
    ]


def test_config_changes_name_the_dotted_key():
    old = describe_config({"optimizer": {"lr": 0.001, "wd": 0}, "n": 1, "a": [1, 2], "x": True})
    new = describe_config({"optimizer": {"lr": 0.01, "m": 0.9}, "n": 1.0, "a": (1, 3), "x": 1})
    assert [(c.kind, str(c)) for c in diff_configs(old.plain, new.plain)] == [
        ("changed", "a: [1, 2] -> [1, 3]"),
        ("changed", "optimizer.lr: 0.001 -> 0.01"),
        ("added", "optimizer.m added: 0.9"),
        ("removed", "optimizer.wd removed (was 0)"),
        ("changed", "x: True -> 1"),
    ]


def test_excluded_config_keys_are_not_told():
    assert diff_configs({"data": {"dir": 1}, "is_training": True}, {"data": {}}, ["data.dir"]) == []


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (range(100), range(88), "12 samples discarded"),
        (range(1), range(2), "1 sample added"),
        (range(12), [*range(20, 23)], "3 samples added, 12 discarded"),
        ([], range(1500), "1,500 samples added"),
    ],
)
def test_sample_changes_are_counted(old, new, text):
    (change,) = diff_samples(SampleSet.from_uids(old), SampleSet.from_uids(new))
    assert str(change) == text
    assert (change.component, change.path) == ("data", "samples")


def test_sample_changes_carry_counts_and_a_bounded_list():
    (change,) = diff_samples(SampleSet.from_uids(["a", 1]), SampleSet.from_uids(range(2, 2000)))
    assert change.old == {"count": 2, "discarded": [1, "a"]}
    assert change.new["count"] == 1998
    assert change.new["added"] == list(range(2, 1002))


def test_equal_sample_sets_have_no_change():
    assert diff_samples(SampleSet.from_uids([1, 2]), SampleSet.from_uids(["2", "1"])) == []
