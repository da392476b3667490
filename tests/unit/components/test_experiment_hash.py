import pytest
from torch import nn

from weightslab.components.experiment_hash import ExperimentHashGenerator
from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.canonical import combine

NOTHING = "10207b2950befd1c"


def test_hash_is_sixteen_hex_digits_and_repeats():
    one, two = ExperimentHashGenerator(), ExperimentHashGenerator()
    first = one.generate_hash(nn.Linear(2, 3), {"lr": 0.1}, [1, 2])
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert two.generate_hash(nn.Linear(2, 3), {"lr": 1e-1}, {"2", "1"}) == first


def test_nothing_given_is_not_empty_given():
    generator = ExperimentHashGenerator()
    assert generator.generate_hash() == NOTHING
    assert (
        len({NOTHING, generator.generate_hash(config={}), generator.generate_hash(None, None, [])})
        == 3
    )


def test_has_changed_names_the_components_and_changes_nothing():
    generator = ExperimentHashGenerator()
    assert generator.has_changed(config={"lr": 1}) == (True, {"config"})
    generator.generate_hash(nn.Linear(2, 3), {"lr": 1}, [1, 2])
    assert generator.has_changed(nn.Linear(2, 3), {"lr": 1.0}, (2, 1)) == (False, set())
    assert generator.has_changed(nn.Linear(2, 4), {"lr": 1}, [1]) == (True, {"model", "data"})
    assert generator.has_changed(nn.Linear(2, 3), {"lr": 1}) == (True, {"data"})
    assert generator.has_changed(nn.Linear(2, 3), {"lr": 1.0}, (2, 1)) == (False, set())


def test_component_hashes_are_full_and_combine_to_the_hash():
    generator = ExperimentHashGenerator()
    assert generator.get_last_hash() is None
    assert set(generator.get_component_hashes().values()) == {None}
    last = generator.generate_hash(nn.Linear(2, 3), {"lr": 1})
    parts = generator.get_component_hashes()
    assert list(parts) == ["model", "config", "data", "combined"]
    assert parts["data"] is None
    assert parts["combined"] == generator.get_last_hash() == last
    assert combine(parts["model"], parts["config"], None).startswith(f"wl1:sha256:{last}")


def test_explain_says_what_changed_between_the_last_two():
    generator = ExperimentHashGenerator()
    assert str(generator.explain()) == "there are no two hashes to compare yet"
    first = generator.generate_hash(nn.Linear(2, 3), {"lr": 1}, range(10))
    assert list(generator.explain()) == []
    second = generator.generate_hash(nn.Linear(2, 4), {"lr": 2}, range(8))
    assert str(generator.explain()) == "\n".join(
        [
            f"{first} -> {second}: 3 changes",
            "  the model: Linear(2 -> 3) became Linear(2 -> 4)",
            "  lr: 1 -> 2",
            "  2 samples discarded",
        ]
    )
    assert [str(change) for change in generator.explain()] == [
        "the model: Linear(2 -> 3) became Linear(2 -> 4)",
        "lr: 1 -> 2",
        "2 samples discarded",
    ]
    generator.generate_hash(None, {"lr": 2}, range(8))
    assert [str(change) for change in generator.explain()] == ["model: not given any more"]


def test_a_config_path_can_be_excluded():
    generator = ExperimentHashGenerator(config_exclude=["data.dir"])
    generator.generate_hash(config={"data": {"dir": "/a"}})
    assert generator.has_changed(config={"data": {"dir": "/b"}}) == (False, set())


def test_what_cannot_be_described_leaves_the_last_hash_alone():
    generator = ExperimentHashGenerator()
    last = generator.generate_hash(config={"lr": 1})
    with pytest.raises(IdentityError, match="sink"):
        generator.generate_hash(config={"sink": object()})
    assert generator.get_last_hash() == last
