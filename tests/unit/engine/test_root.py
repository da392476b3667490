"""`CheckpointRoot` over a root that was written by hand, without torch."""

import json

import pytest
from support.repo import HASH, plain_image
from support.training import files_of

from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    LockedError,
    NotFoundError,
    ObjectNotFoundError,
    ReadOnlyStoreError,
    StorageError,
)
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository.commit import Draft, commit_checkpoint
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.values import ParentLink


class Ticks:
    """A clock that goes on by a second at each look."""

    def __init__(self):
        self.seconds = 0

    def __call__(self):
        from datetime import datetime, timedelta, timezone

        self.seconds += 1
        return datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=self.seconds)


@pytest.fixture
def root(tmp_path):
    return CheckpointRoot(tmp_path / "root", clock=Ticks())


def begin(root, lr):
    """Begin an experiment that has a config and samples; return its hash."""
    from weightslab.engine.identity.config import describe_config

    config = describe_config({"lr": lr})
    samples = SampleSet.from_uids(range(10))
    components = Components(config=config.digest, data=samples.digest)
    record = ExperimentRecord(components=components, created_at=root.clock())
    open_experiment(root.store, record, ExperimentContent(config=config.plain, samples=samples))
    return record.exp_hash


def save(root, exp_hash, step, *, content=b"weights", metrics=None, parent=None):
    draft = Draft(
        exp_hash=exp_hash,
        experiment_digest=root.get_experiment(exp_hash).record.components.digest,
        step=step,
        images={"model": plain_image(content)},
        aliases={},
        state={"model": {}},
        metadata=None,
        metrics=metrics or {},
        parent=parent or ParentLink(kind="fresh", exact=True),
        config_file=f"{exp_hash}_config.yaml",
        versions={},
    )
    return commit_checkpoint(root.store, root.catalog, draft, clock=root.clock)[0]


def names(entries):
    return [(e.name.step, e.name.revision) for e in entries]


# ---------------------------------------------------------------- opening
def test_opening_makes_the_folders_and_reading_does_not(tmp_path):
    CheckpointRoot(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["checkpoints", "data", "logs"]
    (tmp_path / "b").mkdir()
    assert CheckpointRoot(tmp_path / "b", read_only=True).experiments() == []
    assert list((tmp_path / "b").iterdir()) == []


def test_absent_read_only_root_is_an_error_unless_it_may_appear_later(tmp_path):
    with pytest.raises(NotFoundError, match="a read-only root has to exist"):
        CheckpointRoot(tmp_path / "none", read_only=True)
    later = CheckpointRoot(tmp_path / "none", read_only=True, must_exist=False)
    assert (later.experiments(), later.latest(), later.verify()) == ([], None, [])


def test_file_in_place_of_the_folders_is_an_error(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "logs").write_text("")
    with pytest.raises(ReadOnlyStoreError, match="cannot create folders"):
        CheckpointRoot(tmp_path / "root")


# ---------------------------------------------------------------- finding
def test_experiments_are_listed_oldest_first_whatever_their_hash(root):
    made = [begin(root, lr) for lr in range(5)]
    assert root.list_hashes() == made
    assert [e.exp_hash for e in root.experiments()] == made


def test_damaged_experiment_is_listed_last_and_says_why(root):
    first, second = begin(root, 1), begin(root, 2)
    (root.path / "checkpoints" / first / "experiment.json").write_text("{}")
    assert root.list_hashes() == [second, first]
    entry = root.get_experiment(first)
    assert (entry.record, "damaged" in entry.damaged) == (None, True)


def test_folder_without_a_record_is_no_experiment(root):
    (root.path / "checkpoints" / HASH).mkdir()
    (root.path / "checkpoints" / "notes").mkdir()
    assert root.list_hashes() == []
    with pytest.raises(ExperimentNotFoundError, match="has no experiments"):
        root.get_experiment(HASH)


def test_unique_prefix_is_enough_in_any_case(root):
    exp_hash = begin(root, 1)
    assert root.get_hash(exp_hash[:3]) == exp_hash
    assert root.get_hash(exp_hash[:9].upper()) == exp_hash


def test_checkpoints_are_in_the_order_of_their_commit(root):
    exp_hash = begin(root, 1)
    for step in (300, 20, 1000):
        save(root, exp_hash, step)
    assert names(root.checkpoints(exp_hash)) == [(300, 1), (20, 1), (1000, 1)]
    assert root.latest(exp_hash).name.step == 1000


def test_latest_of_the_root_goes_by_time_of_the_experiment_by_sequence(root):
    old, new = begin(root, 1), begin(root, 2)
    save(root, new, 1)
    save(root, old, 7)
    assert root.latest().name.exp_hash == old
    assert root.latest(new).name.step == 1
    assert len(root.checkpoints()) == 2


def test_highest_revision_answers_for_the_step(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 5)
    save(root, exp_hash, 5, content=b"other")
    assert root.get_checkpoint(exp_hash, 5).name.revision == 2
    assert root.get_checkpoint(exp_hash, 5, revision=1).name.revision == 1
    assert root.find_checkpoint(exp_hash, 5, revision=3) is None
    assert root.find_checkpoint(exp_hash, 6) is None


def test_three_nearest_steps_are_named_in_order(root):
    exp_hash = begin(root, 1)
    for step in (100, 200, 300, 500, 900):
        save(root, exp_hash, step)
    with pytest.raises(
        CheckpointNotFoundError,
        match=f"no checkpoint at step 400 in {exp_hash}; nearest: 200, 300, 500",
    ) as caught:
        root.get_checkpoint(exp_hash[:6], 400)
    assert caught.value.context == {"exp_hash": exp_hash, "step": 400}
    assert caught.value.exit_code == 10


def test_experiment_without_checkpoints_says_so(root):
    with pytest.raises(CheckpointNotFoundError, match="the experiment has no checkpoints"):
        root.get_checkpoint(begin(root, 1), 4)


@pytest.mark.parametrize(("mode", "step"), [("min", 3), ("max", 1)])
def test_best_goes_by_the_metric(root, mode, step):
    exp_hash = begin(root, 1)
    for number, loss in {1: 0.9, 2: 0.5, 3: 0.1}.items():
        save(root, exp_hash, number, metrics={"loss": loss})
    assert root.best("loss", mode=mode).name.step == step


def test_best_leaves_out_nan_and_missing_and_prefers_the_newer_of_equals(root):
    exp_hash = begin(root, 1)
    for number, metrics in enumerate(
        [{"loss": 0.5}, {"loss": 0.5}, {"loss": {"$float": "nan"}}, {"acc": 0.0}], start=1
    ):
        save(root, exp_hash, number, metrics=metrics)
    assert root.best("loss").name.step == 2
    assert root.best("loss", mode="max").name.step == 2
    assert root.best("nothing") is None
    assert root.best("acc", exp_hash=exp_hash).name.step == 4


def test_best_compares_integers_beyond_every_float(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1, metrics={"n": 10**400})
    save(root, exp_hash, 2, metrics={"n": 1.5})
    save(root, exp_hash, 3, metrics={"n": {"$float": "inf"}})
    assert root.best("n").name.step == 2
    assert root.best("n", mode="max").name.step == 3


def test_best_in_an_unknown_mode_is_refused(root):
    with pytest.raises(ValueError, match="mode is 'min' or 'max', not 'lowest'"):
        root.best("loss", mode="lowest")


# ---------------------------------------------------------------- reading
def test_config_samples_and_changes_are_read_from_the_root(root):
    old, new = begin(root, 1), begin(root, 2)
    assert root.config(old) == {"lr": 1}
    assert list(root.samples(new)) == list(range(10))
    assert [c.text for c in root.changes(old, new)] == ["lr: 1 -> 2"]
    assert root.changes(old, old) == []


def test_what_an_experiment_has_not_is_said(root):
    record = ExperimentRecord(
        components=Components(origin="wl1:sha256:" + "a" * 64), created_at=root.clock()
    )
    open_experiment(root.store, record, ExperimentContent())
    for ask in (root.config, root.samples, root.architecture):
        with pytest.raises(ObjectNotFoundError):
            ask(record.exp_hash)
    assert root.verify() == []


def test_info_lists_damaged_checkpoints_apart(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    save(root, exp_hash, 2)
    manifest = root.path / "checkpoints" / exp_hash / "model" / f"{exp_hash}_step_000002.json"
    manifest.write_bytes(manifest.read_bytes()[:-3])
    info = root.info(exp_hash)
    assert info["steps"] == [1]
    assert list(info["damaged"]) == [f"{exp_hash}_step_000002"]
    assert root.latest(exp_hash).name.step == 1
    assert json.dumps(info)


# ---------------------------------------------------------------- verify
def test_verify_reads_every_byte_and_names_the_file(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    save(root, exp_hash, 2)
    weights = root.path / "checkpoints" / exp_hash / "model" / f"{exp_hash}_step_000001.safetensors"
    weights.write_bytes(b"headWeights")
    (finding,) = root.verify()
    assert finding.key == weights.name
    assert root.verify(exp_hash, step=2) == []
    assert len(root.verify(exp_hash[:8], step=1)) == 1


def test_verify_of_a_step_needs_its_experiment(root):
    with pytest.raises(ValueError, match="needs exp_hash"):
        root.verify(step=1)


def test_foreign_files_are_no_findings(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    for folder in ("", "model/", "hp/", "data/"):
        path = root.path / "checkpoints" / exp_hash / folder / "README.txt"
        path.write_text("mine")
    assert root.verify() == []


# ---------------------------------------------------------------- delete
def test_deleted_step_leaves_the_others_and_its_number_is_free(root):
    exp_hash = begin(root, 1)
    for step in (1, 2):
        save(root, exp_hash, step)
    save(root, exp_hash, 2, content=b"other")
    assert root.delete(exp_hash, step=2) == [
        f"{exp_hash}_step_000002",
        f"{exp_hash}_step_000002.r2",
    ]
    assert names(root.checkpoints(exp_hash)) == [(1, 1)]
    assert save(root, exp_hash, 2).name.revision == 1
    assert root.verify() == []


def test_deleted_revision_leaves_the_other(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 2)
    save(root, exp_hash, 2, content=b"other")
    root.delete(exp_hash, step=2, revision=2)
    assert names(root.checkpoints(exp_hash)) == [(2, 1)]


def test_revision_without_a_step_is_refused_and_nothing_is_deleted(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 2)
    before = files_of(root.path)
    with pytest.raises(ValueError, match=r"revision=.* needs step"):
        root.delete(exp_hash, revision=1)
    assert files_of(root.path) == before


def test_deleted_experiment_leaves_no_file_and_the_others_whole(root):
    gone, kept = begin(root, 1), begin(root, 2)
    save(root, gone, 1)
    save(root, kept, 1)
    assert root.delete(gone[:8]) == [f"{gone}_step_000001"]
    assert root.list_hashes() == [kept]
    assert not (root.path / "checkpoints" / gone).exists()
    assert root.verify() == []


def test_damaged_experiment_can_be_deleted(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    (root.path / "checkpoints" / exp_hash / "experiment.json").write_text("x")
    manifest = root.path / "checkpoints" / exp_hash / "model" / f"{exp_hash}_step_000001.json"
    manifest.write_text("x")
    root.delete(exp_hash)
    assert root.list_hashes() == []


def test_foreign_folder_in_an_experiment_stays_and_is_named(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    mine = root.path / "checkpoints" / exp_hash / "model" / "mine"
    mine.mkdir()
    (mine / "file").write_text("kept")
    with pytest.raises(StorageError, match="not empty"):
        root.delete(exp_hash)
    assert (mine / "file").read_text() == "kept"


def test_delete_of_what_is_not_there_is_an_error_and_deletes_nothing(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    before = files_of(root.path)
    with pytest.raises(CheckpointNotFoundError):
        root.delete(exp_hash, step=2)
    with pytest.raises(CheckpointNotFoundError):
        root.delete(exp_hash, step=1, revision=2)
    with pytest.raises(ExperimentNotFoundError):
        root.delete("f" * 16)
    assert files_of(root.path) == before


def test_checkpoint_that_is_being_written_is_not_deleted(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    with (
        root.store.hold(CheckpointName(exp_hash=exp_hash, step=1).pending_key),
        pytest.raises(LockedError),
    ):
        root.delete(exp_hash, step=1)
    assert names(root.checkpoints(exp_hash)) == [(1, 1)]


def test_read_only_root_deletes_nothing(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    reader = CheckpointRoot(root.path, read_only=True)
    for more in ({}, {"step": 1}):
        with pytest.raises(ReadOnlyStoreError):
            reader.delete(exp_hash, **more)
    assert names(root.checkpoints(exp_hash)) == [(1, 1)]


# ---------------------------------------------------------------- other hands
def test_what_another_process_did_is_seen_at_once(root):
    other = CheckpointRoot(root.path, clock=Ticks())
    exp_hash = begin(root, 1)
    assert other.list_hashes() == [exp_hash]
    save(root, exp_hash, 1)
    assert other.latest().name.step == 1
    root.delete(exp_hash, step=1)
    assert other.latest() is None


def test_experiment_folder_can_be_copied_alone_and_is_whole(root, tmp_path):
    import shutil

    exp_hash = begin(root, 1)
    save(root, exp_hash, 1)
    copy = CheckpointRoot(tmp_path / "copy")
    shutil.copytree(root.path / "checkpoints" / exp_hash, copy.path / "checkpoints" / exp_hash)
    copy.refresh()
    assert names(copy.checkpoints(exp_hash)) == [(1, 1)]
    assert copy.verify() == []


def test_step_of_many_digits_comes_after_a_shorter_one(root):
    exp_hash = begin(root, 1)
    save(root, exp_hash, 999_999)
    save(root, exp_hash, 1_000_000)
    assert root.info(exp_hash)["steps"] == [999_999, 1_000_000]
    assert root.latest(exp_hash).name.step == 1_000_000


# ---------------------------------------------------------------- references
def test_a_reference_finds_the_checkpoint_it_names(root):
    first, second = begin(root, 1), begin(root, 2)
    save(root, first, 100, metrics={"loss": 0.5, "acc": 0.1})
    save(root, first, 200, metrics={"loss": 0.9, "acc": 0.7})
    save(root, first, 100, content=b"changed")
    save(root, second, 50, metrics={"loss": 0.1})
    found = {
        text: str(root.at(text).name.stem)
        for text in (
            f"{first}@200",
            f"{first[:8]}@100",
            f"{first}@100.r1",
            f"{first}",
            f"{first}@best:acc:max",
            "latest",
            "best:loss",
        )
    }
    assert list(found.values()) == [
        f"{first}_step_000200",
        f"{first}_step_000100.r2",
        f"{first}_step_000100",
        f"{first}_step_000100.r2",
        f"{first}_step_000200",
        f"{second}_step_000050",
        f"{second}_step_000050",
    ]


def test_a_reference_to_nothing_says_what_is_missing(root):
    exp_hash = begin(root, 1)
    with pytest.raises(CheckpointNotFoundError, match=f"no checkpoint in {exp_hash}"):
        root.at(exp_hash)
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint with the metric 'loss' in"):
        root.at("best:loss")
