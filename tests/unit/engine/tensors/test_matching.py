"""Which tensors are which: by path, by container, by likeness; nothing where it is open."""

import pytest

from weightslab.engine.tensors.matching import Spec, classes_of, match_tensors


def linear(path, rows, columns):
    return {f"{path}.weight": Spec("F32", (rows, columns)), f"{path}.bias": Spec("F32", (rows,))}


def modules(found):
    return {new.rpartition(".")[0]: old.rpartition(".")[0] for new, old in found.items()}


def test_a_layer_that_was_pushed_on_is_found_again():
    old = linear("0", 8, 4) | linear("2", 2, 8)
    new = linear("0", 8, 4) | linear("2", 8, 8) | linear("4", 2, 8)
    named, found = match_tensors(old, new)
    assert modules(named) == {"0": "0"}
    assert modules(found) == {"4": "2"}


def test_a_renamed_container_keeps_its_equal_layers():
    old = {k: v for i in range(12) for k, v in linear(f"h.{i}.fc", 4, 4).items()}
    new = {k: v for i in range(14) for k, v in linear(f"layers.{i}.fc", 4, 4).items()}
    _, found = match_tensors(old, new)
    assert modules(found) == {f"layers.{i}.fc": f"h.{i}.fc" for i in range(12)}


def test_a_model_put_into_another_is_found_inside():
    old = linear("0", 8, 4) | linear("1", 8, 8) | linear("2", 8, 8)
    new = {f"body.{name}": spec for name, spec in old.items()}
    assert match_tensors(old, new)[1] == {f"body.{name}": name for name in old}


@pytest.mark.parametrize("extra", [{}, linear("c", 9, 9)])
def test_equal_layers_that_could_be_either_are_left_alone(extra):
    old = linear("a", 4, 4) | linear("b", 4, 4) | linear("same", 1, 1)
    new = linear("x", 4, 4) | linear("y", 4, 4) | linear("same", 1, 1) | extra
    assert match_tensors(old, new)[1] == {}


def test_one_equal_layer_for_two_places_is_left_alone():
    old = linear("a", 4, 4) | linear("same", 1, 1)
    new = linear("x", 4, 4) | linear("y", 4, 4) | linear("same", 1, 1)
    assert match_tensors(old, new)[1] == {}


def test_another_class_of_the_same_shapes_is_another_module():
    old, new = linear("a.norm", 4, 4), linear("b.norm2", 4, 4)
    assert match_tensors(old, new)[1]
    assert match_tensors(old, new, {"a.norm": "Linear"}, {"b.norm2": "Bilinear"})[1] == {}


def test_tensors_that_fit_by_name_are_taken_where_their_module_does_not():
    named, found = match_tensors(linear("0", 8, 4), linear("0", 8, 5))
    assert (named, found) == ({"0.bias": "0.bias"}, {})


def test_no_tensor_goes_to_two_places():
    old = linear("1", 3, 8)
    new = linear("1", 3, 5) | linear("2", 3, 8)
    named, found = match_tensors(old, new)
    assert named == {}
    assert modules(found) == {"2": "1"}


def test_classes_are_read_from_a_stored_architecture():
    entries = [
        {"path": "", "class": "Net"},
        {"path": "a", "class": "torch.nn.Linear"},
        {"path": "b"},
    ]
    document = {"identity": {"models": {"G": {"modules": entries}}}}
    assert classes_of(document, "G") == {"": "Net", "a": "Linear"}
    assert classes_of(document) == {}
