"""What changed between experiments, told from what is stored; without torch."""

from datetime import datetime, timedelta, timezone

import pytest

from weightslab.engine import compare
from weightslab.engine.compare import Description
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.storage.memory import MemoryStore

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def store():
    return MemoryStore()


def side(config, uids=range(10)):
    """Return one side of a comparison that is not stored."""
    described, samples = describe_config(config), SampleSet.from_uids(uids)
    return Description(
        components=Components(config=described.digest, data=samples.digest),
        config=described.plain,
        samples=samples,
    )


def begin(store, config, uids=range(10), *, minute=0):
    """Store an experiment and return its catalog entry."""
    one = side(config, uids)
    record = ExperimentRecord(
        components=one.components, created_at=START + timedelta(minutes=minute)
    )
    open_experiment(store, record, ExperimentContent(config=one.config, samples=one.samples))
    return ScanCatalog(store).experiment(record.exp_hash)


def texts(changes):
    return [change.text for change in changes]


def test_equal_sides_have_no_changes():
    assert compare.diff(side({"lr": 1}), side({"lr": 1.0})) == []


def test_changes_come_as_config_then_data():
    changes = compare.diff(side({"lr": 1}), side({"lr": 2}, range(8)))
    assert texts(changes) == ["lr: 1 -> 2", "2 samples discarded"]
    assert [change.component for change in changes] == ["config", "data"]


def test_component_that_appears_or_goes_is_said():
    bare = Description(components=Components(config=side({}).components.config), config={})
    assert texts(compare.diff(bare, side({}))) == ["data: not given before"]
    assert texts(compare.diff(side({}), bare)) == ["data: not given any more"]


def test_component_that_cannot_be_read_is_changed_all_the_same():
    old = Description(components=side({"lr": 1}).components)
    (change,) = compare.diff(old, side({"lr": 2}))
    assert change.text.startswith("config changed (wl1:sha256:")
    assert (change.component, change.kind) == ("config", "changed")


def test_stored_sides_are_read_only_as_far_as_asked(store):
    entry = begin(store, {"lr": 1})
    found = compare.describe_stored(store, entry, parts=("config",))
    assert (found.config, found.samples, found.problems) == ({"lr": 1}, None, ())
    assert found.components == entry.record.components


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_file_that_cannot_be_read_is_named_and_does_not_stop_the_rest(store, harm):
    entry = begin(store, {"lr": 1})
    key = layout.config_key(entry.exp_hash)
    store.delete(key) if harm == "missing" else store.put(key, [b"lr: 2\n"])
    found = compare.describe_stored(store, entry, parts=("config", "data"))
    assert found.config is None
    assert len(found.samples) == 10
    assert len(found.problems) == 1
    assert f"config of {entry.exp_hash} cannot be read" in found.problems[0]


def test_nearest_differs_in_the_fewest_components_then_in_the_fewest_keys(store):
    entries = [
        begin(store, {"lr": 9, "a": 9, "b": 9}, range(4)),
        begin(store, {"lr": 9, "a": 1, "b": 1}),
        begin(store, {"lr": 9, "a": 9, "b": 1}),
    ]
    exp_hash, changes = compare.nearest(store, entries, side({"lr": 1, "a": 1, "b": 1}))
    assert exp_hash == entries[1].exp_hash
    assert texts(changes) == ["lr: 9 -> 1"]


def test_of_equally_near_ones_the_newest_is_taken(store):
    entries = [begin(store, {"lr": n}, minute=n) for n in (1, 3, 2)]
    assert compare.nearest(store, entries, side({"lr": 9}))[0] == entries[1].exp_hash


def test_the_experiment_itself_and_damaged_ones_are_not_near(store):
    same = begin(store, {"lr": 1})
    broken = begin(store, {"lr": 2})
    store.put(layout.experiment_key(broken.exp_hash), [b"x"])
    entries = [same, ScanCatalog(store).experiment(broken.exp_hash)]
    assert compare.nearest(store, entries, side({"lr": 1})) is None
    assert compare.nearest(store, [], side({"lr": 1})) is None


@pytest.mark.parametrize("description", [{}, {"identity": 3}, {"identity": {"models": [1]}}])
def test_sealed_architecture_that_makes_no_sense_is_a_change_without_details(store, description):
    components = [Components(model=f"wl1:sha256:{digit * 64}") for digit in "ab"]
    record = ExperimentRecord(components=components[0], created_at=START)
    store.put(layout.experiment_key(record.exp_hash), [record.to_bytes()])
    key = layout.architecture_key(record.exp_hash)
    document = {"schema": "weightslab.architecture", "schema_version": 1}
    store.put(key, [seal(document | {"description": description})])
    assert unseal(store.map(key), what=key)[0]["description"] == description
    entry = ScanCatalog(store).experiment(record.exp_hash)
    old = compare.describe_stored(store, entry, parts=("model",))
    (change,) = compare.diff(old, Description(components=components[1], model={"identity": {}}))
    assert change.text.startswith("model changed (wl1:sha256:aaa")
