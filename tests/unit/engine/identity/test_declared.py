"""Classes that declare what counts of them: include, exclude, `__identity__`."""

import dataclasses
import threading

import pytest
import torch
from torch import nn

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.architecture import describe_model, outline
from weightslab.engine.identity.config import describe_config


def digest(model):
    return describe_model(model).digest


def handle():
    yield


class Plain(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.fc(x) * self.scale


class Including(Plain):
    __identity_include__ = ("note", "count")
    note = "class"

    def forward(self, x):
        self.count += 1
        return self.fc(x)


class Excluding(Plain):
    __identity_exclude__ = ("scale", "log")

    def forward(self, x):
        return self.log(self.fc(x)) * self.scale

    def log(self, x):
        return x


class Speaking(Plain):
    def __identity__(self):
        return {"version": self.version, "shape": (1, 2.5)}


def test_an_included_attribute_counts_though_unread_or_written():
    def made(**given):
        return digest(Including(**{"note": "a", "count": 0} | given))

    assert len({made(), made(note="b"), made(count=1), made(note="class")}) == 4
    assert made(note="b") == made(note="b")
    assert made(unread=1) == made(unread=2)


def test_an_excluded_attribute_does_not_count_though_read():
    assert digest(Excluding(scale=1)) == digest(Excluding(scale=handle()))
    assert digest(Plain(scale=1)) != digest(Plain(scale=2))


def test_an_excluded_method_does_not_count():
    class Patched(Excluding):
        pass

    before = digest(Patched(scale=1))
    Patched.log = lambda self, x: x + 1
    assert digest(Patched(scale=1)) == before


class WithParts(nn.Module):
    __identity_exclude__ = ("teacher", "temperature", "mask")

    def __init__(self, width=2, value=1.0):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.teacher = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.ones(width))
        self.register_buffer("mask", torch.full((width,), value), persistent=False)

    def forward(self, x):
        return self.fc(x) * self.mask


def test_an_excluded_submodule_parameter_or_buffer_does_not_count():
    assert digest(WithParts(2)) == digest(WithParts(3, value=5.0))
    assert outline(WithParts(2)) == outline(WithParts(3))
    entries = describe_model(WithParts()).document["identity"]["models"][0][1]["modules"]
    assert [(e["path"], e.get("parameters"), e.get("buffers")) for e in entries] == [
        ("", None, None),
        ("fc", [["weight", ["float32", [2, 2]]], ["bias", ["float32", [2]]]], None),
    ]


def test_identity_stands_for_attributes_and_code_but_not_for_children():
    model = Speaking(version=1, scale=handle())
    assert digest(model) == digest(Speaking(version=1, scale=2))
    assert digest(model) != digest(Speaking(version=2, scale=2))
    wider = Speaking(version=1, scale=2)
    wider.fc = nn.Linear(2, 3)
    assert digest(wider) != digest(model)
    entry = describe_model(model).document["identity"]["models"][0][1]["modules"][0]
    assert (entry["identity"], entry["attributes"]) == ({"version": 1, "shape": [1, 2.5]}, {})


def test_of_one_name_the_most_derived_class_decides():
    class Again(Excluding):
        __identity_include__ = ("scale",)

    assert digest(Again(scale=1)) != digest(Again(scale=2))
    assert describe_model(Again(scale=1)).digest == digest(Again(scale=1))


class Scaler:
    __identity_exclude__ = ("path",)
    __identity_include__ = ("calls",)

    def __init__(self, k, path="a", calls=0):
        self.k, self.path, self.calls, self.hits = k, path, calls, calls

    def __call__(self, x):
        self.calls += 1
        self.hits += 1
        return x * self.k


class Handle:
    __slots__ = ("lock", "name")

    def __init__(self, name):
        self.name, self.lock = name, threading.Lock()

    def __identity__(self):
        return self.name


@dataclasses.dataclass
class Options:
    lr: float
    log: object = None
    __identity_exclude__ = ("log",)


@pytest.mark.parametrize("describe", [
    lambda value: digest(Plain(scale=value)),
    lambda value: describe_config({"value": value}).digest,
], ids=["attribute of a module", "value in a config"])  # fmt: skip
def test_plain_objects_declare_in_models_and_configs(describe):
    assert describe(Scaler(2)) == describe(Scaler(2, path=handle()))
    assert len({describe(Scaler(2)), describe(Scaler(3)), describe(Scaler(2, calls=1))}) == 3
    assert describe(Handle("a")) == describe(Handle("a")) != describe(Handle("b"))
    assert describe(Options(0.1, handle())) == describe(Options(0.1)) != describe(Options(0.2))


def test_a_config_object_itself_may_declare():
    assert describe_config(Options(0.1, handle())).digest == describe_config({"lr": 0.1}).digest
    assert describe_config(Options(0.1)).plain == {"lr": 0.1}


def test_a_declaring_config_reads_back_as_it_was():
    found = describe_config({"h": Handle("a"), "s": Scaler(2)})
    assert describe_config(found.plain).digest == found.digest


def raising(self):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"__identity_include__": "k"}, r"Bad\.__identity_include__ is a str, not a sequence"),
        ({"__identity_exclude__": (1,)}, r"Bad\.__identity_exclude__ is a tuple, not a sequence"),
        ({"__identity_exclude__": ["k"], "__identity_include__": ["k"]}, "both includes and excl"),
        ({"__identity_include__": ("typo",)}, "Bad includes 'typo', which it does not have"),
        ({"__identity__": 5}, r"Bad\.__identity__ is a int, not a method"),
        ({"__identity__": staticmethod(len)}, r"Bad\.__identity__ is a staticmethod, not a method"),
        ({"__identity__": raising}, r"Bad\.__identity__\(\) raised KeyError"),
        ({"__identity__": lambda: 1}, r"Bad\.__identity__\(\) raised TypeError"),
        ({"__identity__": lambda self: handle()}, r"Bad\.__identity__\(\): a builtins\.generator"),
        ({"__identity__": lambda self: {"k": [object()]}}, r"Bad\.__identity__\(\)\.k\[0\]: "),
        ({"__identity__": lambda self: "\ud800"}, r"Bad\.__identity__\(\): the text .*surrogate"),
    ],
    ids=range(11),
)
def test_misuse_names_class_and_remedy(body, message):
    bad = type("Bad", (Plain,), body)
    with pytest.raises(IdentityError, match=message) as found:
        describe_model(bad(scale=1))
    assert found.value.hint


@pytest.mark.parametrize(
    "body",
    [{"__identity__": raising}, {"__identity_exclude__": "k"}, {"__identity_include__": ("typo",)}],
    ids=["raising", "text", "typo"],
)
def test_misuse_by_a_plain_object_is_named_too(body):
    bad = type("Bad", (Scaler,), body)(2)
    for describe in (lambda v: describe_model(Plain(scale=v)), lambda v: describe_config({"v": v})):
        with pytest.raises(IdentityError, match="Bad"):
            describe(bad)


def marked(exclude):
    class Net(nn.Module):
        __identity_exclude__ = exclude

        def forward(self, x):
            return x

    return Net()


def test_the_declaration_itself_does_not_count():
    assert digest(marked(())) == digest(marked(("never",)))
