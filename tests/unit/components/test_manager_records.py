"""Configs, architecture, data backups and what the manager tells about an experiment."""

import json
import logging

import h5py
import pytest
from support.training import CONFIG, files_of, make, train

from weightslab.engine.errors import (
    DigestMismatchError,
    ExperimentNotFoundError,
    FormatError,
    IdentityError,
    NotFoundError,
    ObjectNotFoundError,
    StateMismatchError,
    StorageError,
)


@pytest.fixture
def h5(tmp_path):
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file["labels"] = [3, 1, 2]
    return path


# ---------------------------------------------------------------- config
def test_config_comes_back_equal(run):
    assert run.manager.load_config() == CONFIG
    assert run.manager.load_config(run.exp_hash[:5]) == CONFIG


def test_saved_config_becomes_a_revision_and_keeps_the_hash(run, caplog):
    path = run.manager.save_config(CONFIG | {"lr": 0.5})
    assert path.name == f"{run.exp_hash}_config.r2.yaml"
    assert run.manager.current_hash == run.exp_hash
    assert run.manager.load_config()["lr"] == 0.5
    assert "lr: 0.001 -> 0.5" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_config_of_the_same_identity_is_no_warning_and_no_further_file(run, caplog):
    assert run.manager.save_config(dict(CONFIG)).name == f"{run.exp_hash}_config.yaml"
    assert caplog.messages == []
    assert run.manager.get_checkpoint_info()["configs"] == [f"{run.exp_hash}_config.yaml"]


def test_config_of_a_step_is_the_one_that_was_current_at_its_commit(run):
    run.save(1)
    run.manager.save_config(CONFIG | {"note": "later"})
    run.save(2)
    assert run.manager.load_config(step=1) == CONFIG
    assert run.manager.load_config(step=2) == CONFIG | {"note": "later"}


def test_config_may_have_another_name(run):
    path = run.manager.save_config(CONFIG, config_name="augment")
    assert path.name == f"{run.exp_hash}_augment.yaml"
    assert run.manager.load_config() == CONFIG


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", ".", "a.b", "x" * 65])
def test_config_and_backup_names_with_separators_are_refused(run, h5, name):
    before = files_of(run.manager.root.path)
    with pytest.raises(ValueError, match=r"config_name .* cannot be part of a file name"):
        run.manager.save_config(CONFIG, config_name=name)
    with pytest.raises(ValueError, match=r"backup name .* cannot be part of a file name"):
        run.manager.save_data_backup(h5, backup_name=name)
    assert files_of(run.manager.root.path) == before


def test_config_with_an_object_is_named(run):
    with pytest.raises(IdentityError, match="hook"):
        run.manager.save_config({"hook": object()})


def test_damaged_config_is_an_error(run):
    path = run.folder / "hp" / f"{run.exp_hash}_config.yaml"
    path.write_text(path.read_text().replace("0.001", "0.002"))
    with pytest.raises(DigestMismatchError, match=path.name):
        run.manager.load_config()


def test_experiment_without_config_says_so(manager):
    exp_hash = manager.update_experiment_hash(make()[0]).exp_hash
    with pytest.raises(ObjectNotFoundError, match=f"{exp_hash} has no config"):
        manager.load_config()


def test_config_with_every_plain_value_survives(manager):
    config = {
        "none": None, "yes": True, "int": 3, "big": 10**30, "float": 0.1, "tiny": 1e-300,
        "inf": float("inf"), "text": "1e-3", "no": "no", "date": "2026-01-01", "empty": "",
        "lines": "a\nb\n", "uni": "\u00e4\u2028", "list": [1, [2, {}]], "dict": {"a": {"b": []}},
    }  # fmt: skip
    manager.update_experiment_hash(config=config)
    assert manager.load_config() == config


# ---------------------------------------------------------------- architecture
def test_architecture_is_written_again_where_it_was_lost(run):
    path = run.folder / "model" / f"{run.exp_hash}_architecture.json"
    content = path.read_bytes()
    path.unlink()
    assert run.manager.save_model_architecture(run.model) == path
    assert path.read_bytes() == content


def test_architecture_of_another_model_is_refused(run):
    with pytest.raises(StateMismatchError, match="model is not the one of experiment"):
        run.manager.save_model_architecture(make(hidden=9)[0])


def test_architecture_of_an_experiment_without_a_model_is_refused(manager):
    manager.update_experiment_hash(config=CONFIG)
    with pytest.raises(StateMismatchError, match=r"update_experiment_hash\(model="):
        manager.save_model_architecture(make()[0])


def test_architecture_text_shows_the_layers(run):
    text = (run.folder / "model" / f"{run.exp_hash}_architecture.txt").read_text()
    assert "Linear" in text
    assert "BatchNorm1d" in text


# ---------------------------------------------------------------- data
def test_backup_is_a_verified_copy(run, h5):
    path = run.manager.save_data_backup(h5)
    assert path == run.folder / "data" / f"{run.exp_hash}_table.h5"
    assert path.read_bytes() == h5.read_bytes()
    assert run.manager.root.verify() == []
    assert run.manager.get_checkpoint_info()["data_backups"] == [path.name]


def test_backup_under_another_name(run, h5):
    assert run.manager.save_data_backup(h5, "before").name == f"{run.exp_hash}_before.h5"


def test_same_backup_again_writes_nothing_other_content_a_revision(run, h5):
    first = run.manager.save_data_backup(h5)
    before = files_of(run.folder)
    assert run.manager.save_data_backup(h5) == first
    assert files_of(run.folder) == before
    with h5py.File(h5, "a") as file:
        file["more"] = 1
    second = run.manager.save_data_backup(h5)
    assert second.name == f"{run.exp_hash}_table.r2.h5"
    assert before.items() <= files_of(run.folder).items()


def test_name_of_the_samples_file_is_refused(run, h5):
    with pytest.raises(ValueError, match="'samples' is the name of the samples file"):
        run.manager.save_data_backup(h5, "samples")


def test_missing_file_is_named(run, tmp_path):
    with pytest.raises(NotFoundError, match=r"no file .*gone\.h5"):
        run.manager.save_data_backup(tmp_path / "gone.h5")


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 99])
def test_file_that_is_no_hdf5_is_refused(run, tmp_path, content):
    path = tmp_path / "data.h5"
    path.write_bytes(content)
    before = files_of(run.folder)
    with pytest.raises((FormatError, StorageError), match=r"data\.h5"):
        run.manager.save_data_backup(path)
    assert files_of(run.folder) == before


def test_truncated_hdf5_is_refused(run, h5):
    h5.write_bytes(h5.read_bytes()[:-100])
    with pytest.raises((FormatError, StorageError), match=r"table\.h5"):
        run.manager.save_data_backup(h5)


def test_file_open_for_writing_here_is_refused(run, h5):
    before = files_of(run.folder)
    with h5py.File(h5, "a") as file:
        file["late"] = 1
        with pytest.raises(StorageError, match="close it where it is open for writing"):
            run.manager.save_data_backup(h5)
    assert files_of(run.folder) == before


def test_samples_come_back_equal(manager):
    uids = ["b", "a\u00e4", 5, -3, "17", 2**63 - 1]
    exp_hash = manager.update_experiment_hash(config={}, active_data_uids=uids).exp_hash
    found = manager.root.samples(exp_hash)
    assert set(found) == set(uids)


def test_discarded_samples_of_a_live_data_set_are_stored(manager):
    class Data:
        def active_uids(self):
            return [1, 2, 3]

        discarded_uids = (9, 8)

    data = Data()
    exp_hash = manager.update_experiment_hash(config={}, active_data_uids=data).exp_hash
    path = manager.root.path / "checkpoints" / exp_hash / "data" / f"{exp_hash}_samples.h5"
    with h5py.File(path) as file:
        assert file["discarded/int64"][()].tolist() == [8, 9]
        assert file["active/int64"][()].tolist() == [1, 2, 3]


# ---------------------------------------------------------------- info
def test_info_of_an_experiment(run):
    train(run.model, run.optimizer)
    run.save(20)
    run.save(5)
    info = run.manager.get_checkpoint_info()
    assert info["exp_hash"] == run.exp_hash
    assert info["steps"] == [5, 20]
    assert info["model_checkpoints"] == [run.weights(20).name, run.weights(5).name]
    assert info["architecture_saved"] is True
    assert info["configs"] == [f"{run.exp_hash}_config.yaml"]
    assert (info["data_backups"], info["damaged"], info["parents"]) == ([], {}, [])
    assert info["created_at"].endswith("+00:00")
    sizes = [p.stat().st_size for p in (run.folder / "model").glob("*.safetensors")]
    assert len(sizes) == 4
    assert info["size_bytes"] == sum(sizes)


def test_info_without_a_current_hash_needs_one_if_there_are_several(run):
    from weightslab.components import CheckpointManagerV2

    with CheckpointManagerV2(run.manager.root.path) as other:
        assert other.get_checkpoint_info()["exp_hash"] == run.exp_hash
        run.manager.update_experiment_hash(config={})
        with pytest.raises(ExperimentNotFoundError, match=r"the root has 2; pass exp_hash="):
            other.get_checkpoint_info()


def test_hashes_are_listed_oldest_first(manager):
    made = [manager.update_experiment_hash(config={"n": n}).exp_hash for n in range(4)]
    assert manager.list_experiment_hashes() == made


def test_journal_tells_of_commits_and_loads(run):
    run.save(1)
    run.save(1)
    run.manager.load_latest_checkpoint(optimizer=run.optimizer)
    lines = (run.manager.root.path / "logs" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events] == [
        "experiment_begun",
        "checkpoint_begun",
        "checkpoint_committed",
        "checkpoint_begun",
        "checkpoint_unchanged",
        "checkpoint_loaded",
    ]
    assert (events[2]["step"], events[2]["sequence"], events[-1]["into"]) == (1, 1, run.exp_hash)


def test_journal_tells_of_a_skipped_checkpoint(run):
    run.save(1)
    run.save(2)
    run.weights(2).unlink()
    run.manager.load_latest_checkpoint(optimizer=run.optimizer)
    events = list(run.manager.root.journal.read())
    assert [(e["event"], e["step"]) for e in events[-2:]] == [
        ("checkpoint_skipped", 2),
        ("checkpoint_loaded", 1),
    ]
    assert "is not there" in events[-2]["reason"]
