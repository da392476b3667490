"""Deltas in a root: a base file linked beside each of them, and nothing that hangs on another folder."""

import shutil

import pytest
from support.roots import ticking_clock

from weightslab.engine.errors import CheckpointError
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.component_file import read_samples
from weightslab.engine.repository.data_file import add_sidecar, sidecar_key
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent, open_experiment, tidy
from weightslab.engine.repository.sample_file import samples_to_bytes
from weightslab.engine.repository.verify import verify_experiment
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.memory import MemoryStore

CLOCK = ticking_clock()


class Unlinked(MemoryStore):
    """A store that cannot link."""

    def link(self, src, dst):
        return False


@pytest.fixture(params=["local", "memory", "no links"])
def store(request, tmp_path):
    kinds = {"local": lambda: LocalStore(tmp_path), "memory": MemoryStore, "no links": Unlinked}
    return kinds[request.param]()


def begin(store, samples, *, config=0, force=False):
    """Open the experiment of a sample set; return its record."""
    kept = samples.frozen()
    plain = {"n": config}
    components = Components(config=describe_config(plain).digest, data=kept.digest)
    record = ExperimentRecord(components=components, created_at=CLOCK())
    open_experiment(store, record, ExperimentContent(config=plain, samples=kept), force=force)
    return record


def names(store, record):
    prefix = f"{record.exp_hash}_"
    return [n.removeprefix(prefix) for n in store.list(layout.data_folder(record.exp_hash))]


def wipe(store, record):
    for name in store.list(layout.data_folder(record.exp_hash)):
        store.delete(layout.data_folder(record.exp_hash) + name)
    store.delete(layout.config_key(record.exp_hash))
    store.delete(layout.experiment_key(record.exp_hash))


def many():
    return SampleSet.from_uids([*range(6000), *(f"n{i}.png" for i in range(6000))])


DELTA = ["samples.base.h5", "samples.base.h5.json", "samples.h5", "samples.h5.json"]


def test_the_first_set_is_whole_and_the_next_a_delta_beside_its_base(store):
    samples = many()
    assert names(store, begin(store, samples)) == ["samples.h5", "samples.h5.json"]
    samples.discard([5, "n7.png"])
    samples.add(["new"])
    record = begin(store, samples)
    assert names(store, record) == DELTA
    found = read_samples(store, record)
    assert (len(found), 5 in found, "new" in found) == (11_999, False, True)
    assert list(found.discarded) == [5, "n7.png"]
    assert verify_experiment(store, record.exp_hash) == []


def test_any_folder_can_be_deleted_and_the_others_stay_whole(store):
    samples, records = many(), []
    for uid in range(3):
        records.append(begin(store, samples))
        samples.discard([uid])
    for record in records[:2]:
        wipe(store, record)
    assert verify_experiment(store, records[2].exp_hash) == []
    assert len(read_samples(store, records[2])) == 11_998
    assert names(store, begin(store, samples)) == DELTA


def test_a_base_is_one_file_with_several_names(tmp_path):
    store, samples = LocalStore(tmp_path), many()
    first = begin(store, samples)
    samples.discard([1])
    second = begin(store, samples)
    whole, base = layout.data_key(first.exp_hash), layout.samples_base_key(second.exp_hash)
    assert (tmp_path / whole).samefile(tmp_path / base)


def test_a_changed_set_that_was_never_stored_brings_its_base(store):
    samples = many()
    samples.discard([1])
    assert names(store, begin(store, samples)) == DELTA


def test_the_same_samples_with_another_config_are_not_written_again(store):
    samples = many()
    begin(store, samples)
    record = begin(store, samples, config=1)
    assert names(store, record) == DELTA
    assert read_samples(store, record).digest == samples.digest


def test_past_a_tenth_of_change_a_whole_file_is_written(store):
    samples = many()
    begin(store, samples)
    samples.discard(range(5000))
    assert names(store, begin(store, samples)) == ["samples.h5", "samples.h5.json"]
    samples.discard([5500])
    assert names(store, begin(store, samples)) == DELTA


def test_small_sets_are_whole(store):
    samples = SampleSet.from_uids(range(100))
    begin(store, samples)
    samples.discard([1])
    record = begin(store, samples)
    assert names(store, record) == ["samples.h5", "samples.h5.json"]
    assert list(read_samples(store, record).discarded) == [1]


def test_what_is_read_goes_on_as_a_delta_of_the_same_base(store):
    samples = many()
    begin(store, samples)
    samples.discard([1])
    read = read_samples(store, begin(store, samples)).copy()
    read.restore([1])
    read.discard(["n1.png"])
    record = begin(store, read)
    assert names(store, record) == DELTA
    assert list(read_samples(store, record).discarded) == ["n1.png"]


@pytest.mark.slow
def test_facets_go_through_a_delta(store):
    labels = {uid: uid % 3 for uid in range(5000)} | {7: {"a": [0.5, float("nan")], "1": 2}}
    samples = SampleSet.from_uids(range(5000), labels=labels, tags={3: ["x"]})
    begin(store, samples)
    samples.discard([3, 4])
    samples.add(["new"], labels={"new": "cat"})
    record = begin(store, samples)
    assert names(store, record) == DELTA
    found = read_samples(store, record).copy()
    assert found.digest == samples.digest
    found.restore([3])
    samples.restore([3])
    assert found.digest == samples.digest


@pytest.mark.parametrize("name", DELTA)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_harm_to_any_of_the_four_files_is_found(tmp_path, name, harm):
    store, samples = LocalStore(tmp_path), many()
    samples.discard([1])
    record = begin(store, samples)
    path = tmp_path / layout.data_folder(record.exp_hash) / f"{record.exp_hash}_{name}"
    data = bytearray(path.read_bytes())
    path.unlink()
    if harm == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError):
        read_samples(store, record)
    assert [f.key for f in verify_experiment(store, record.exp_hash)] == [
        layout.data_key(record.exp_hash)
    ]


def test_a_base_that_was_exchanged_for_another_whole_one_is_found(store):
    samples = many()
    samples.discard([1])
    record = begin(store, samples)
    key = layout.samples_base_key(record.exp_hash)
    store.put(key, [samples_to_bytes(SampleSet.from_uids(range(9000)))])
    store.delete(sidecar_key(key))
    add_sidecar(store, key)
    with pytest.raises(CheckpointError, match="exchanged"):
        read_samples(store, record)


def test_force_mends_a_damaged_base_with_a_whole_file(tmp_path):
    store, samples = LocalStore(tmp_path), many()
    samples.discard([1])
    record = begin(store, samples)
    (tmp_path / layout.samples_base_key(record.exp_hash)).write_bytes(b"broken")
    with pytest.raises(CheckpointError):
        read_samples(store, record)
    begin(store, samples, force=True)
    tidy(store, record.exp_hash)
    assert names(store, record) == ["samples.h5", "samples.h5.json"]
    assert verify_experiment(store, record.exp_hash) == []


def test_a_base_left_by_a_dead_creator_is_used_or_removed(store):
    samples = many()
    first = begin(store, samples)
    samples.discard([1])
    kept = samples.frozen()
    data = Components(config=describe_config({"n": 0}).digest, data=kept.digest)
    own = layout.data_key(first.exp_hash)
    for content in (store.map(own), samples_to_bytes(SampleSet.from_uids(range(5000)))):
        store.put(layout.samples_base_key(data.exp_hash), [bytes(content)])
        record = begin(store, samples)
        tidy(store, record.exp_hash)
        assert verify_experiment(store, record.exp_hash) == []
        assert read_samples(store, record).digest == kept.digest
        wipe(store, record)


def test_a_copied_folder_is_whole_without_the_root_it_came_from(tmp_path):
    store, samples = LocalStore(tmp_path / "a"), many()
    begin(store, samples)
    samples.discard([1])
    record = begin(store, samples)
    folder = layout.experiment_folder(record.exp_hash)
    shutil.copytree(tmp_path / "a" / folder, tmp_path / "b" / folder)
    shutil.rmtree(tmp_path / "a")
    other = LocalStore(tmp_path / "b", read_only=True)
    assert verify_experiment(other, record.exp_hash) == []
    assert read_samples(other, record).digest == samples.digest
