"""The experiment hash through the manager: what changes it, what it is compared with."""

import gc
import json
import weakref

import pytest
import torch
from support.training import CONFIG, files_of, flip, make

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    IdentityError,
    IntegrityError,
    StateMismatchError,
)


class Dataset:
    """What a live data set looks like to the manager."""

    def __init__(self, count):
        self.active_uids = list(range(count))


def test_update_unpacks_as_hash_and_is_new(manager):
    exp_hash, is_new = manager.update_experiment_hash(make()[0], CONFIG, range(9))
    assert (len(exp_hash), is_new) == (16, True)
    assert manager.update_experiment_hash().is_new is False
    assert manager.current_hash == exp_hash


def test_hash_is_that_of_the_generator(manager):
    model = make()[0]
    update = manager.update_experiment_hash(model, CONFIG, range(9))
    assert ExperimentHashGenerator().generate_hash(model, CONFIG, range(9)) == update.exp_hash


def test_known_experiment_is_found_again_by_another_manager(run):
    with CheckpointManagerV2(run.manager.root.path) as other:
        update = other.update_experiment_hash(make(seed=9)[0], CONFIG, range(100))
    assert tuple(update) == (run.exp_hash, False)
    assert (update.changes, update.compared_with) == ((), None)


def test_back_in_an_earlier_experiment_is_not_new(run):
    run.manager.update_experiment_hash(config=CONFIG | {"lr": 0.5})
    back = run.manager.update_experiment_hash(config=CONFIG)
    assert tuple(back) == (run.exp_hash, False)


def test_changes_name_module_config_key_and_number_of_samples(run):
    model = make(hidden=6)[0]
    update = run.manager.update_experiment_hash(model, CONFIG | {"lr": 0.01}, range(12, 103))
    assert update.compared_with == run.exp_hash
    assert [str(change) for change in update.changes] == [
        "0: Linear(3 -> 5) became Linear(3 -> 6)",
        "1: BatchNorm1d(num_features=5) became BatchNorm1d(num_features=6)",
        "3: Linear(5 -> 2) became Linear(6 -> 2)",
        "lr: 0.001 -> 0.01",
        "3 samples added, 12 discarded",
    ]
    assert [c.component for c in update.changes] == ["model", "model", "model", "config", "data"]
    assert f"compared with {run.exp_hash}:\n  0: Linear(3 -> 5)" in str(update)


def test_first_hash_of_a_process_is_compared_with_the_nearest_of_the_root(run):
    run.manager.update_experiment_hash(config={"other": 1}, active_data_uids=range(7))
    with CheckpointManagerV2(run.manager.root.path) as other:
        update = other.update_experiment_hash(make()[0], CONFIG | {"lr": 0.5}, range(100))
    assert update.compared_with == run.exp_hash
    assert [change.text for change in update.changes] == ["lr: 0.001 -> 0.5"]


def test_only_the_newest_twenty_experiments_are_compared_with(manager):
    first = manager.update_experiment_hash(config={"lr": 0.0, "a": 1}).exp_hash
    for number in range(1, 21):
        manager.update_experiment_hash(config={"lr": number, "b": number, "c": number})
    with CheckpointManagerV2(manager.root.path) as other:
        update = other.update_experiment_hash(config={"lr": 0.5, "a": 1})
    assert update.compared_with not in (None, first)


def test_component_given_for_the_first_time_is_said(manager):
    manager.update_experiment_hash(config=CONFIG)
    changes = manager.update_experiment_hash(active_data_uids=[1]).changes
    assert [change.text for change in changes] == ["data: not given before"]


def test_changed_from_is_in_the_record_of_the_new_experiment(run):
    new = run.manager.update_experiment_hash(config=CONFIG | {"lr": 0.5}).exp_hash
    assert run.manager.get_checkpoint_info(new)["changed_from"] == {
        "exp_hash": run.exp_hash,
        "changes": ["lr: 0.001 -> 0.5"],
    }


# ---------------------------------------------------------------- what is left out
def test_model_left_out_is_the_one_given_last_described_again(run):
    run.model.append(torch.nn.Linear(2, 2))
    changes = run.manager.update_experiment_hash().changes
    assert [change.text for change in changes] == ["module 4: Linear(2 -> 2) added"]


def test_ledger_goes_before_what_was_given_last(run):
    ledgers.register_model("wide", make(hidden=8)[0])
    assert "Linear(3 -> 8)" in str(run.manager.update_experiment_hash())


def test_model_given_last_is_held_weakly_and_its_digest_stays(manager):
    model = make()[0]
    first = manager.update_experiment_hash(model, CONFIG).exp_hash
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert manager.update_experiment_hash().exp_hash == first


def test_generator_of_uids_given_once_is_kept_as_its_set(manager):
    first = manager.update_experiment_hash(config={}, active_data_uids=(n for n in range(50)))
    assert manager.update_experiment_hash().exp_hash == first.exp_hash
    assert len(manager.root.samples(first.exp_hash)) == 50


def test_live_data_set_given_last_is_looked_at_again(manager):
    data = Dataset(50)
    manager.update_experiment_hash(config={}, active_data_uids=data)
    del data.active_uids[:5]
    changes = manager.update_experiment_hash().changes
    assert [change.text for change in changes] == ["5 samples discarded"]


def test_save_after_a_live_data_set_changed_is_refused(manager):
    data, model = Dataset(50), make()[0]
    exp_hash, _ = manager.update_experiment_hash(model, CONFIG, data)
    del data.active_uids[:5]
    with pytest.raises(StateMismatchError, match=f"sample set is not the one of .*{exp_hash}"):
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)


def test_live_data_set_that_is_gone_leaves_its_last_set(manager):
    data = Dataset(50)
    first = manager.update_experiment_hash(config={}, active_data_uids=data).exp_hash
    del data
    gc.collect()
    assert manager.update_experiment_hash().exp_hash == first


def test_config_given_last_is_looked_at_again(manager):
    config = {"lr": 1.0}
    manager.update_experiment_hash(config=config)
    config["lr"] = 2.0
    assert [c.text for c in manager.update_experiment_hash().changes] == ["lr: 1.0 -> 2.0"]


def test_absent_is_not_empty(manager):
    absent = manager.update_experiment_hash(config={}).exp_hash
    assert manager.update_experiment_hash(active_data_uids=[]).exp_hash != absent


def test_nothing_to_identify_is_an_error(manager):
    with pytest.raises(IdentityError, match="pass at least one of model=, config="):
        manager.update_experiment_hash()
    assert manager.list_experiment_hashes() == []


def test_excluded_keys_do_not_count_and_are_stored(tmp_path):
    with CheckpointManagerV2(tmp_path, config_exclude=("data.dir",)) as manager:
        one = manager.update_experiment_hash(config={"lr": 1, "data": {"dir": "/a"}}).exp_hash
        two = manager.update_experiment_hash(config={"lr": 1, "data": {"dir": "/b"}}).exp_hash
        assert one == two
        assert manager.load_config(one) == {"lr": 1, "data": {"dir": "/a"}}


def test_number_like_text_is_warned_about_once(manager, caplog):
    manager.update_experiment_hash(config={"lr": "1e-3"})
    manager.update_experiment_hash(config={"lr": "1e-3"})
    assert len(caplog.messages) == 1
    assert "lr" in caplog.text


def test_config_without_a_deterministic_form_is_named_and_changes_nothing(run):
    before = files_of(run.manager.root.path)
    with pytest.raises(IdentityError, match=r"optimizer\.callback.*object"):
        run.manager.update_experiment_hash(config={"optimizer": {"callback": object()}})
    assert run.manager.current_hash == run.exp_hash
    assert run.manager.update_experiment_hash().exp_hash == run.exp_hash
    assert files_of(run.manager.root.path) == before


def test_something_that_is_no_model_is_named(manager):
    with pytest.raises(TypeError, match=r"model is a builtins\.int, not a torch\.nn\.Module"):
        manager.update_experiment_hash(3)
    with pytest.raises(TypeError, match=r"model 'a' is a builtins\.str"):
        manager.update_experiment_hash({"a": "x"})
    with pytest.raises(ValueError, match="dict of models is empty"):
        manager.update_experiment_hash({})


def test_parent_that_is_not_there_is_an_error_and_nothing_is_begun(run):
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint at step 5"):
        run.manager.update_experiment_hash(config={"lr": 9}, parent=(run.exp_hash, 5))
    assert run.manager.list_experiment_hashes() == [run.exp_hash]


# ---------------------------------------------------------------- records
RECORDS = [
    "experiment.json",
    "model/{}_architecture.json",
    "model/{}_architecture.txt",
    "hp/{}_config.yaml",
    "data/{}_samples.h5",
    "data/{}_samples.h5.json",
]


def test_experiment_has_all_its_records(run):
    found = [name for name in files_of(run.folder) if not name.startswith("provenance/")]
    assert sorted(found) == sorted(name.format(run.exp_hash) for name in RECORDS)
    assert len(files_of(run.folder)) == len(RECORDS) + 1  # one session
    assert run.manager.root.verify() == []


@pytest.mark.parametrize("name", RECORDS)
def test_missing_record_is_found_by_verify_and_written_again_by_force(run, name):
    run.save(1)  # without checkpoints a folder that has no record is no experiment
    path = run.folder / name.format(run.exp_hash)
    path.unlink()
    assert any(path.name in finding.key + finding.problem for finding in run.manager.root.verify())
    assert run.manager.update_experiment_hash(force=True).exp_hash == run.exp_hash
    assert path.exists()
    assert run.manager.root.verify() == []


@pytest.mark.parametrize("name", RECORDS)
def test_damaged_record_is_found_by_verify_and_written_again_by_force(run, name):
    path = run.folder / name.format(run.exp_hash)
    flip(path, position=40)
    findings = run.manager.root.verify()
    assert any(path.name.removesuffix(".json") in f.key + f.problem for f in findings)
    assert run.manager.update_experiment_hash(force=True).exp_hash == run.exp_hash
    assert run.manager.root.verify() == []


def test_damaged_experiment_record_is_an_error_that_names_force(run):
    flip(run.folder / "experiment.json", position=40)
    with pytest.raises(IntegrityError, match=r"damaged.*force=True\) writes the record again"):
        run.manager.update_experiment_hash()


def test_force_leaves_checkpoints_alone(run):
    run.save(1)
    before = files_of(run.folder)
    run.manager.update_experiment_hash(force=True)
    assert files_of(run.folder) == before


@pytest.mark.parametrize("force", [False, True])
def test_record_of_a_newer_version_is_refused_and_never_written_over(run, force):
    from weightslab.engine.errors import UnsupportedVersionError
    from weightslab.engine.jsonform import seal, unseal

    path = run.folder / "experiment.json"
    document, _ = unseal(path.read_bytes(), what="record")
    path.write_bytes(seal(document | {"schema_version": 2}))
    before = files_of(run.folder)
    with pytest.raises(UnsupportedVersionError, match=r"schema version 2; .* up to 1; pip install"):
        run.manager.update_experiment_hash(force=force)
    assert files_of(run.folder) == before


def test_event_tells_of_a_new_experiment(run):
    (line,) = (run.manager.root.path / "logs" / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert event["event"] == "experiment_begun"
    assert event["exp_hash"] == run.exp_hash
    assert event["digest"].startswith(f"wl1:sha256:{run.exp_hash}")
    assert (event["changed_from"], event["changes"]) == (None, [])
