"""State trees: any nesting comes apart and together again, through real JSON text."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.tensors.image import build_image, tensor_view
from weightslab.engine.tensors.tree import join, split

MODEST = settings(max_examples=150, deadline=None)

keys = st.one_of(
    st.text(max_size=3),
    st.integers(-12, 12),
    st.sampled_from(["0", "1", "-1", "%", "%30", "%2F", "a/b", "__metadata__", "", "\ud800"]),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.tuples(st.integers(0, 3), st.text(max_size=2)),
)
fresh = st.integers(0, 2**31).map(lambda n: torch.tensor([n, n + 1]))
leaves = st.one_of(
    fresh,
    st.none(),
    st.integers(),
    st.text(max_size=3),
    st.sampled_from([torch.float16, torch.device("cuda:1"), torch.Size([2, 3])]),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4).map(OrderedDict),
        st.dictionaries(st.text(max_size=2), st.integers(), max_size=3).map(Counter),
    ),
    max_leaves=20,
)


def is_equal(one, other):
    """Equal in types, order and bits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return is_equal(list(one.items()), list(other.items()))
    if isinstance(one, (list, tuple)) and not isinstance(one, torch.Size):
        return len(one) == len(other) and all(map(is_equal, one, other))
    return one == other


def count(tree):
    """Number of tensors in a tree."""
    if isinstance(tree, dict):
        return sum(map(count, tree.values()))
    if isinstance(tree, (list, tuple)):
        return sum(map(count, tree))
    return int(isinstance(tree, torch.Tensor))


def apart(tree):
    """The same tree with a tensor of its own in every place."""
    if isinstance(tree, torch.Tensor):
        return tree.clone()
    if isinstance(tree, dict):
        return type(tree)((k, apart(v)) for k, v in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(map(apart, tree))
    return tree


@MODEST
@given(trees)
def test_tree_comes_back_equal(tree):
    tensors, skeleton = split(tree, prefix="training")

    assert is_equal(join(json.loads(json.dumps(skeleton)), tensors), tree)


@MODEST
@given(trees)
def test_different_places_have_different_names(tree):
    assert len(split(apart(tree))[0]) == count(tree)


@MODEST
@given(trees)
def test_tree_comes_back_through_a_tensor_file(tree):
    tensors, skeleton = split(tree)
    image = build_image(tensors)
    data = b"".join(image.parts)
    stored = {name: tensor_view(data, entry) for name, entry in image.entries.items()}

    assert image.aliases == {}
    assert is_equal(join(skeleton, stored), tree)
