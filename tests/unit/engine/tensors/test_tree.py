"""State trees: where a tensor was found is its name, and everything comes back as it was."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch

from weightslab.engine.errors import FormatError, NotStorableError
from weightslab.engine.tensors.tree import join, split

ONE = torch.ones(2)


def test_names_tell_the_place():
    state = {
        "optimizer": {"state": {0: {"exp_avg": ONE}}, "groups": [{"lr": torch.tensor(0.1)}]},
        "pair": (torch.zeros(1), 5),
    }

    tensors, skeleton = split(state)

    assert list(tensors) == ["optimizer/state/0/exp_avg", "optimizer/groups/0/lr", "pair/0"]
    assert tensors["optimizer/state/0/exp_avg"] is ONE
    assert skeleton["pair"] == {"$tuple": [{"$tensor": "pair/0"}, 5]}


def test_prefix_goes_before_every_name():
    assert list(split({"a": ONE}, prefix="training")[0]) == ["training/a"]
    assert list(split(ONE, prefix="x")[0]) == ["x"]
    assert list(split(ONE)[0]) == ["tensor"]


@pytest.mark.parametrize(
    ("key", "segment"),
    [
        (0, "0"),
        (-3, "-3"),
        ("0", "%30"),
        ("-3", "%2D3"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("", "%"),
        ("__metadata__", "%5F_metadata__"),
        (True, "%!true"),
        (None, "%!null"),
        (0.5, "%!0.5"),
        ("\ud800", "%uD800"),
        ((1, "a/b"), '%!{"$tuple": [1, "a%2Fb"]}'),
        (torch.float32, '%!{"$torch.dtype": "float32"}'),
    ],
)
def test_key_becomes_a_segment(key, segment):
    tensors, skeleton = split({key: ONE})

    assert list(tensors) == [segment]
    assert list(join(json.loads(json.dumps(skeleton)), tensors)) == [key]


def test_keys_that_read_alike_do_not_clash():
    state = {1: torch.tensor(1), "1": torch.tensor(2), "a": {"b": torch.tensor(3)}}
    state |= {"a/b": torch.tensor(4), "a%2Fb": torch.tensor(5)}

    tensors, skeleton = split(state)

    assert sorted(t.item() for t in tensors.values()) == [1, 2, 3, 4, 5]
    assert join(skeleton, tensors) == state


def test_one_tensor_in_two_places_is_stored_once_and_stays_one():
    tensors, skeleton = split({"a": ONE, "b": [ONE, ONE.view(2)], "c": ONE.clone()})

    assert list(tensors) == ["a", "c"]
    back = join(skeleton, tensors)
    assert back["a"] is back["b"][0] is back["b"][1] is not back["c"]


def test_two_tensors_without_items_stay_two():
    assert list(split([torch.zeros(0), torch.zeros(0)])[0]) == ["0", "1"]


def test_types_of_torch_come_back():
    state = OrderedDict(
        dtype=torch.bfloat16, device=torch.device("cuda:1"), size=torch.Size([2, 0])
    )

    tensors, skeleton = split(state)

    assert tensors == {}
    back = join(json.loads(json.dumps(skeleton)), tensors)
    assert back == state
    assert [type(v) for v in back.values()] == [torch.dtype, torch.device, torch.Size]


@pytest.mark.parametrize("state", [{"s": frozenset({ONE})}, {"a": {ONE}}, {ONE: 1}])
def test_tensor_in_a_set_or_as_a_key_is_refused(state):
    with pytest.raises(NotStorableError, match=r"tensor in a set|a key is a tensor"):
        split(state)


def test_value_without_a_form_is_refused_by_place():
    with pytest.raises(NotStorableError, match=r"^state\.scheduler\.fn is a .*function"):
        split({"scheduler": {"fn": lambda: 0}, "ok": ONE})


def test_container_that_holds_itself_is_refused():
    state = [ONE]
    state.append(state)

    with pytest.raises(NotStorableError, match="levels deep"):
        split(state)


@pytest.mark.parametrize(
    "document",
    [
        {"$tensor": "gone"},
        {"$tensor": ["a"]},
        {"$tensor": None},
        {"$torch.dtype": "Tensor"},
        {"$torch.dtype": "no_such"},
        {"$torch.dtype": 5},
        {"$torch.device": "nowhere"},
        {"$torch.device": 0},
        {"$torch.Size": [1, -1]},
        {"$torch.Size": [True]},
        {"$torch.Size": "12"},
        {"$torch.load": "x"},
    ],
    ids=json.dumps,
)
def test_malformed_skeleton_is_refused(document):
    with pytest.raises(FormatError):
        join([document], {"a": ONE})
