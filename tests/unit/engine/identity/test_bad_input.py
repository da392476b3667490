"""Hostile, endless and huge values: a result or an error that names the place; no user code runs."""

import functools

import pytest
from torch import nn

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.architecture import describe_model
from weightslab.engine.identity.config import describe_config

ARMED = []
VALUE = None


def ran(*args):
    if ARMED:
        raise AssertionError("code of the user ran")


class Holder(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x * 2 if self.value is None else x


class UsesGlobal(nn.Module):
    def forward(self, x):
        return x * 2 if VALUE is None else x


def as_attribute(value):
    return describe_model(Holder(value)).digest


def as_config(value):
    return describe_config({"value": value}).digest


def as_global(value):
    globals()["VALUE"] = value
    return describe_model(UsesGlobal()).digest


def as_closure(value):
    class Net(nn.Module):
        def forward(self, x):
            return value

    return describe_model(Net()).digest


def as_default(value):
    class Net(nn.Module):
        def forward(self, x, k=value):
            return k

    return describe_model(Net()).digest


PLACES = {f.__name__: f for f in (as_attribute, as_config, as_global, as_closure, as_default)}
everywhere = pytest.mark.parametrize("describe", PLACES.values(), ids=PLACES)


def nested(depth, wrap, inner=1):
    for _ in range(depth):
        inner = wrap(inner)
    return inner


DEEP = {
    "lists": lambda: nested(1000, lambda v: [v]),
    "dicts": lambda: nested(1000, lambda v: {"a": v}),
    "tuples": lambda: nested(1000, lambda v: (v,)),
    "partials": lambda: nested(1000, functools.partial, len),
    "sets": lambda: nested(100, lambda v: frozenset([v])),
}


@everywhere
@pytest.mark.parametrize("kind", DEEP)
def test_a_thousand_levels_are_described(kind, describe):
    assert describe(DEEP[kind]()) == describe(DEEP[kind]())


@everywhere
@pytest.mark.slow
def test_a_list_of_100000_numbers_is_described(describe):
    numbers = list(range(100_000))
    before = describe(numbers)
    numbers[50_000] += 1
    assert describe(numbers) != before


def cyclic_list():
    found = []
    found.append(found)
    return found


def cyclic_dict():
    found = {}
    found["a"] = {"b": found}
    return found


class Node:
    pass


def cyclic_object():
    one, two = Node(), Node()
    one.next, two.next = two, one
    return one


@everywhere
@pytest.mark.parametrize("make", [cyclic_list, cyclic_dict, cyclic_object])
def test_a_cycle_is_named(make, describe):
    with pytest.raises(IdentityError, match="a container that holds itself"):
        describe(make())


@everywhere
def test_aliases_nested_without_end_are_refused_and_not_unfolded(describe, monkeypatch):
    monkeypatch.setattr("weightslab.engine.identity.plain.MAX_VALUES", 1000)
    with pytest.raises(IdentityError, match="more than 1000 values"):
        describe(nested(60, lambda v: [v, v]))


class Hostile:
    def __init__(self, k):
        self.k = k

    def __getattribute__(self, name):
        ran()
        return object.__getattribute__(self, name)

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __index__ = __float__ = __hash__ = ran
    __eq__ = __getattr__ = __reduce_ex__ = __getstate__ = __array__ = __contains__ = ran
    __class__ = property(ran)


class HostileList(list):
    __iter__ = __len__ = __getitem__ = __eq__ = __repr__ = ran
    __hash__ = None


class HostileDict(dict):
    __iter__ = __len__ = __getitem__ = items = keys = __eq__ = __repr__ = ran
    __hash__ = None


class HostileSet(set):
    __iter__ = __len__ = __eq__ = __repr__ = ran
    __hash__ = None


class HostileText(str):
    __slots__ = ()
    __str__ = __eq__ = __hash__ = encode = __repr__ = __len__ = ran


class HostileNumber(float):
    __float__ = __eq__ = __hash__ = hex = __repr__ = __bool__ = ran


HOSTILE = {
    "object": (lambda: Hostile(1), lambda: Hostile(2)),
    "list": (lambda: HostileList([1]), lambda: HostileList([2])),
    "dict": (lambda: HostileDict(a=1), lambda: HostileDict(a=2)),
    "set": (lambda: HostileSet([1]), lambda: HostileSet([2])),
    "text": (lambda: HostileText("a"), lambda: HostileText("b")),
    "number": (lambda: HostileNumber(1.5), lambda: HostileNumber(2.5)),
}


@pytest.mark.parametrize("place", ["as_config", "as_global", "as_closure", "as_default"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_values_are_read_without_running_their_code(kind, place):
    one, two = HOSTILE[kind]
    values = [one(), one(), two()]
    ARMED.append(True)
    try:
        found = [PLACES[place](value) for value in values]
    finally:
        ARMED.clear()
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", HOSTILE)
def test_attributes_are_read_without_running_their_code(kind):
    models = [Holder(make()) for make in (HOSTILE[kind][0], *HOSTILE[kind])]
    ARMED.append(True)
    try:
        found = [describe_model(model).digest for model in models]
    finally:
        ARMED.clear()
    assert found[0] == found[1] != found[2]


class Answering(type):
    def __hash__(cls):
        ran()
        return 1

    def __eq__(cls, other):
        ran()
        return cls is other


class Made(metaclass=Answering):
    pass


@everywhere
@pytest.mark.parametrize("value", [Made(), Made], ids=["object", "class"])
def test_a_metaclass_that_answers_by_code_is_refused_without_running_it(value, describe):
    ARMED.append(True)
    try:
        with pytest.raises(IdentityError, match="Made has a metaclass, Answering, that answers"):
            describe(value)
    finally:
        ARMED.clear()


class HostileNet(nn.Module):
    def __getattribute__(self, name):
        ran()
        return super().__getattribute__(name)

    @property
    def broken(self):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError

    def forward(self, x):
        return self.broken(x)


def test_a_hostile_module_is_read_without_asking_it():
    models = [nn.Sequential(HostileNet(), nn.Linear(2, width)) for width in (2, 2, 3)]
    ARMED.append(True)
    try:
        found = [describe_model(model).digest for model in models]
    finally:
        ARMED.clear()
    assert found[0] == found[1] != found[2]


def test_a_thousand_nested_modules_are_described():
    def deep(last):
        return nested(1000, nn.Sequential, last)

    assert describe_model(deep(nn.ReLU())).digest != describe_model(deep(nn.Tanh())).digest


class Linked(nn.Module):
    def __init__(self):
        super().__init__()
        self.others, self.fc = [], nn.Linear(2, 2)

    def forward(self, x):
        for other in self.others:
            x = other.fc(x)
        return x


def ring(size):
    parts = [Linked() for _ in range(size)]
    for part in parts:
        part.others = [other for other in parts if other is not part]
    return parts[0]


def test_modules_outside_the_tree_that_refer_to_each_other_are_described_once():
    assert describe_model(ring(12)).digest == describe_model(ring(12)).digest
    assert describe_model(ring(12)).digest != describe_model(ring(11)).digest


def test_helpers_that_call_each_other_too_deeply_are_refused():
    def last(x):
        return x

    chain = last
    for _ in range(2000):

        def call(x, inner=chain):
            return inner(x)

        chain = call
    for describe in (as_attribute, as_config):
        with pytest.raises(IdentityError, match="nested too deeply"):
            describe(chain)
