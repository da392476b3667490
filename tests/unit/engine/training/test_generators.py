"""Random generators: their state is a plain tree, and brings the same numbers again."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.errors import NotStorableError, StateMismatchError
from weightslab.engine.tensors.tree import join, split
from weightslab.engine.training.generators import (
    capture_generator,
    is_generator,
    plan_generator_restore,
)

BIT_GENERATORS = ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"]


def numpy_generator(name, seed=0):
    return np.random.Generator(getattr(np.random, name)(seed))


MAKERS = {
    "python": random.Random,
    "torch": lambda seed: torch.Generator().manual_seed(seed),
    "RandomState": np.random.RandomState,
    "RandomState(Philox)": lambda seed: np.random.RandomState(np.random.Philox(seed)),
    "bare PCG64": np.random.PCG64,
    **{name: lambda seed, name=name: numpy_generator(name, seed) for name in BIT_GENERATORS},
}


def draw(item, count=5):
    """Numbers of several kinds, so that what a generator keeps in between is drawn, too."""
    if isinstance(item, torch.Generator):
        return torch.randn(count, generator=item).tolist()
    if isinstance(item, random.Random):
        return [(item.random(), item.gauss(0, 1), item.getrandbits(9)) for _ in range(count)]
    if isinstance(item, np.random.BitGenerator):
        return item.random_raw(count).tolist()
    if isinstance(item, np.random.RandomState):
        return [*item.normal(size=count).tolist(), int(item.randint(7))]
    return [*item.normal(size=count).tolist(), int(item.integers(7, dtype=np.int32))]


def through_a_file(tree):
    tensors, skeleton = split(tree)
    return join(skeleton, tensors)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), drawn=st.integers(0, 700))
def test_numbers_go_on_where_they_were(kind, seed, drawn):
    source, live = MAKERS[kind](seed), MAKERS[kind](1)
    draw(source, drawn)
    tree = through_a_file(capture_generator(source))
    expected = draw(source)

    plan_generator_restore(live, tree).apply()

    assert draw(live) == expected


@pytest.mark.parametrize("kind", MAKERS)
def test_state_is_a_copy_and_a_plan_changes_nothing(kind):
    source, live = MAKERS[kind](3), MAKERS[kind](5)
    tree = capture_generator(source)
    first = draw(source)
    plan = plan_generator_restore(live, tree)
    assert draw(live) == draw(MAKERS[kind](5))
    plan.apply()
    assert draw(live) == first


def test_only_generators_are_generators():
    assert all(is_generator(make(1)) for make in MAKERS.values())
    assert not is_generator(np.random)
    assert not is_generator(torch.nn.Linear(1, 1))


def test_long_words_are_one_tensor_and_short_ones_numbers():
    assert capture_generator(random.Random(1))["state"]["words"].shape == (2500,)
    assert type(capture_generator(numpy_generator("SFC64"))["state"]["state"]["state"]) is list
    assert type(capture_generator(numpy_generator("PCG64"))["state"]["state"]["inc"]) is int


# ---------------------------------------------------------------- what does not fit
def test_system_random_has_no_state():
    with pytest.raises(NotStorableError, match=r"random\.SystemRandom cannot be read"):
        capture_generator(random.SystemRandom())


@pytest.mark.parametrize(
    ("saved", "live", "text"),
    [
        ("python", "torch", r"state of random\.Random, not of torch\._C\.Generator"),
        ("PCG64", "Philox", "bit generator 'PCG64', not Philox"),
        ("RandomState", "MT19937", "RandomState, not of .*Generator"),
        ("RandomState", "RandomState(Philox)", "'MT19937', not Philox"),
    ],
)
def test_another_kind_of_generator_is_refused(saved, live, text):
    item = MAKERS[live](1)
    with pytest.raises(StateMismatchError, match=text):
        plan_generator_restore(item, capture_generator(MAKERS[saved](1)))
    assert draw(item) == draw(MAKERS[live](1))


def spoilt(kind, change):
    tree = capture_generator(MAKERS[kind](1))
    change(tree["state"])
    return tree


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("python", lambda s: s.update(words=s["words"][:-4])),
        ("python", lambda s: s.update(version=9)),
        ("python", lambda s: s["words"][2496:].copy_(torch.full((4,), 255, dtype=torch.uint8))),
        ("python", lambda s: s.pop("gauss")),
        ("torch", lambda s: s.update(words=s["words"][:9])),
        ("torch", lambda s: s["words"].fill_(255)),
        ("torch", lambda s: s.update(device="cuda")),
        ("MT19937", lambda s: s["state"].update(pos=100_000)),  # would read beyond the words
        ("MT19937", lambda s: s["state"].update(pos=-1)),
        ("MT19937", lambda s: s["state"].update(key=s["state"]["key"][:8])),
        ("MT19937", lambda s: s["state"].update(pos="7")),
        ("Philox", lambda s: s.update(buffer_pos=5)),
        ("Philox", lambda s: s.update(buffer=[1])),
        ("PCG64", lambda s: s["state"].pop("inc")),
        ("PCG64", lambda s: s["state"].update(state=1 << 200)),
        ("SFC64", lambda s: s["state"].update(state=[-1, 2, 3, 4])),
    ],
)
def test_spoilt_state_is_refused_before_anything_changes(kind, change):
    item = MAKERS[kind](7)
    with pytest.raises(StateMismatchError):
        plan_generator_restore(item, spoilt(kind, change))
    assert draw(item) == draw(MAKERS[kind](7))


@pytest.mark.parametrize("saved", [None, {}, {"class": "random.Random"}, {"state": 3}])
def test_state_of_the_wrong_form_is_refused(saved):
    with pytest.raises(StateMismatchError, match="not in order"):
        plan_generator_restore(random.Random(1), saved)
