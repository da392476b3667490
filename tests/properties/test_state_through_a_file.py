"""State trees: taken apart and put together again, every state is what it was, types included."""

from collections import Counter, OrderedDict

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.training import bits

from weightslab.engine.jsonform import parse_json, seal, unseal
from weightslab.engine.tensors.tree import join, split

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from([torch.float32, torch.int64, torch.bool]),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT, st.binary(max_size=4),
    TENSORS, st.sampled_from([torch.float16, torch.device("cpu"), torch.Size([1, 2])]),
)  # fmt: skip
KEYS = st.one_of(TEXT, st.integers(-5, 5), st.just("$tensor"), st.just("a/b"), st.just("0"))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(TEXT, st.integers(), max_size=3).map(Counter),
    ),
    max_leaves=10,
)


def shape_of(value):
    """Return the value with the type of every container and the bits of every tensor."""
    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        return kind, bits(value)
    if isinstance(value, dict):
        return kind, [(shape_of(k), shape_of(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [shape_of(v) for v in value]
    return kind, repr(value)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_join_is_the_inverse_of_split_through_a_file(state):
    tensors, skeleton = split(state)
    stored, _ = unseal(seal({"state": skeleton}), what="state")
    # a record sorts plain keys; their order is no part of a plain dict
    assert canonical(shape_of(join(stored["state"], tensors))) == canonical(shape_of(state))


def canonical(shape):
    kind, content = shape
    if kind == "dict":
        return kind, sorted(((canonical(k), canonical(v)) for k, v in content), key=repr)
    if isinstance(content, list):
        return kind, [
            tuple(map(canonical, item)) if kind in ("OrderedDict", "Counter") else canonical(item)
            for item in content
        ]
    return shape


@settings(max_examples=80, deadline=None)
@given(st.lists(TENSORS, min_size=1, max_size=4))
def test_every_tensor_is_listed_once_and_tied_ones_share_a_name(found):
    tensors, skeleton = split({"a": found, "b": list(reversed(found))})
    assert len(tensors) <= len(found)
    again = join(skeleton, tensors)
    assert bits(again["a"]) == bits(found)
    assert bits(again["b"]) == bits(list(reversed(found)))


def test_skeleton_is_plain_json():
    _, skeleton = split({"lr": torch.tensor(0.5), "betas": (0.9, 0.99), 3: torch.float32})
    assert parse_json(seal({"state": skeleton}), what="state")["state"] == skeleton
