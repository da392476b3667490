"""The old, numbered CheckpointManager: as it was used, without its faults."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from support.foreign import bytes_of, copy_of, expected_of, told_of, without_sums
from support.old_numbered import old_load, old_table

from weightslab.backend import ledgers
from weightslab.components import CheckpointManager
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    FormatError,
    LockedError,
    NotStorableError,
    StateMismatchError,
    TruncatedError,
    UnsafePickleError,
)
from weightslab.engine.storage.local import LocalStore
from weightslab.formats import import_root

pytestmark = pytest.mark.filterwarnings("ignore:CheckpointManager numbers:DeprecationWarning")
TABLE = "checkpoints.metadata"


class TinyNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bn = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8)
        self.relu, self.fc2 = torch.nn.ReLU(), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(self.relu(self.bn(self.fc1(x))))


def train(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()


@pytest.fixture
def live():
    torch.manual_seed(0)
    model = TinyNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ledgers.register_model("net", model)
    ledgers.register_optimizer("sgd", optimizer)
    ledgers.register_dataloader("train_loader", torch.utils.data.DataLoader([1, 2], batch_size=16))
    ledgers.register_dataloader("test_loader", torch.utils.data.DataLoader([1, 2], batch_size=64))
    train(model, optimizer)
    return model, optimizer


@pytest.fixture
def manager(tmp_path):
    return CheckpointManager(tmp_path / "old")


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---------------------------------------------------------------- as it was
def test_a_new_manager_has_given_no_id(manager):
    assert (manager.next_id, manager.prnt_id) == (-1, -1)
    assert (manager.id_to_path, manager.id_to_prnt, manager.id_to_meta) == ({}, {}, {})
    assert manager.get_latest_checkpoint_path() is None
    assert manager.root_directory.is_dir()


@pytest.mark.filterwarnings("error")
def test_its_deprecation_points_to_v2_and_comes_with_use_not_with_import(tmp_path):
    import weightslab.components.checkpoint  # noqa: F401

    with pytest.warns(DeprecationWarning, match="CheckpointManagerV2") as caught:
        CheckpointManager(tmp_path)
    assert caught[0].filename == __file__


def test_ids_count_from_0_and_the_parent_is_the_last_dumped_or_loaded(manager, live):
    assert [manager.dump("net", "sgd"), manager.dump(), manager.dump()] == [0, 1, 2]
    manager.load(1)
    assert manager.prnt_id == 1
    assert manager.dump() == 3
    assert manager.id_to_prnt == {0: -1, 1: 0, 2: 1, 3: 1}
    assert manager.prnt_id == manager.next_id == 3


def test_load_brings_weights_and_optimizer_back(manager, live):
    model, optimizer = live
    before, moments = weights(model), optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    manager.dump("net", "sgd", "toy")
    train(model, optimizer)
    manager.load(0, "net", "sgd")
    assert same(weights(model), before)
    assert torch.equal(optimizer.state_dict()["state"][0]["momentum_buffer"], moments)


def test_a_loader_that_knows_only_the_old_names_reads_what_is_written(manager, live):
    model, optimizer = live
    manager.dump("net", "sgd", "toy")
    manager.dump("net", "sgd", "toy", save_full_model=True)
    found = old_load(manager.root_directory, 1)
    assert set(found) == {
        "experiment_name", "batch_size", "learning_rate", "model", "model_full", "optimizer",
    }  # fmt: skip
    assert (found["experiment_name"], found["batch_size"], found["learning_rate"]) == (
        "toy",
        16,
        0.1,
    )
    assert same(found["model"], weights(model))
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert type(pickle.loads(found["model_full"])) is TinyNet
    assert old_load(manager.root_directory, 0)["model_full"] is None
    table = old_table(manager.root_directory)
    assert (table["next_id"], table["parent_id"], table["id_2_prnt"]) == (1, 1, {"0": -1, "1": 0})


def test_files_are_named_by_id_and_uuid(manager, live):
    manager.dump()
    (path,) = manager.root_directory.glob("ckpt_*")
    assert len(path.name) == len("ckpt_0_") + 36
    assert manager.id_to_path == {0: str(path)}
    assert {p.name for p in manager.root_directory.iterdir()} == {path.name, TABLE}


@pytest.mark.parametrize("absolute", [True, False])
def test_an_override_writes_a_small_json_and_no_checkpoint(manager, live, absolute):
    path = manager.root_directory / "info.json"
    where = str(path) if absolute else "info.json"
    assert manager.dump("net", experiment_name="toy_v1", override_filepath=where) == -1
    assert json.loads(path.read_text()) == {"experiment_name": "toy_v1", "model": "TinyNet"}
    assert manager.next_id == -1
    assert not (manager.root_directory / TABLE).exists()


def test_hyperparameters_get_learning_rate_and_batch_size(manager, live):
    manager.dump()
    main, other = {"batch_size": 1, "x": 2}, {}
    ledgers.register_hyperparams("main", main)
    ledgers.register_hyperparams("other", other)
    manager.load(0)
    assert main == {"batch_size": 16, "learning_rate": 0.1, "x": 2}
    manager.load(0, hyperparams_name="other")
    assert other == {"batch_size": 16, "learning_rate": 0.1}


def test_without_optimizer_and_loader_the_hyperparameters_tell(manager):
    ledgers.register_model("net", torch.nn.Linear(2, 1))
    ledgers.register_hyperparams("main", {"learning_rate": 0.5, "batch_size": 8})
    manager.dump()
    found = old_load(manager.root_directory, 0)
    assert (found["learning_rate"], found["batch_size"], found["optimizer"]) == (0.5, 8, None)


def test_it_trains_on_from_an_old_root(tmp_path, live):
    model, optimizer = live
    manager = CheckpointManager(copy_of("v1_root", tmp_path))
    expected = expected_of("v1_root")["checkpoints"]
    for number in (0, "1", 2, "3", np.int64(4)):
        manager.load(number)
        told = expected[str(number)]
        assert {k: told_of(v) for k, v in model.state_dict().items()} == without_sums(told["model"])
        assert optimizer.param_groups[0]["lr"] == told["learning_rate"]
        model.eval()
        out = model(torch.linspace(-1, 1, 20).reshape(5, 4)).detach()
        assert torch.allclose(out, torch.tensor(told["probe_output"]), atol=1e-6)
    assert manager.dump() == 5
    assert manager.id_to_prnt == {0: -1, 1: 0, 2: 1, 3: 1, 4: 2, 5: 4}


# ---------------------------------------------------------------- without its faults
def test_ids_are_integers_after_reopening_and_both_kinds_load(manager, live):
    manager.dump()
    manager.dump()
    manager.attach_metadata(0, {"loss": 0.5})
    again = CheckpointManager(manager.root_directory)
    assert (again.next_id, again.prnt_id) == (1, 1)
    assert again.id_to_path == manager.id_to_path
    assert again.id_to_prnt == {0: -1, 1: 0}
    assert again.get_metadata("0") == {"loss": 0.5}
    again.load("0")
    assert again.dump() == 2
    assert again.id_to_prnt[2] == 0
    assert again.get_ids() == {0, 1, 2}


def test_paths_resolve_after_a_move_and_the_copy_is_read_not_the_original(manager, live, tmp_path):
    model, optimizer = live
    before = weights(model)
    manager.dump()
    shutil.move(manager.root_directory, tmp_path / "moved")
    moved = CheckpointManager(tmp_path / "moved")
    train(model, optimizer)
    moved.load(0)
    assert same(weights(model), before)
    assert moved.get_latest_checkpoint_path().parent == tmp_path / "moved"
    moved.dump()
    assert same(old_load(tmp_path / "moved", 0)["model"], before)  # the table has the new paths


def test_a_file_can_be_loaded_by_its_path_and_is_the_parent_if_it_is_one_of_ours(
    manager, live, tmp_path
):
    manager.dump()
    manager.dump()
    manager.load(manager.id_to_path[0])
    assert manager.prnt_id == 0
    shutil.copy(manager.id_to_path[0], tmp_path / "elsewhere")
    manager.load(tmp_path / "elsewhere")
    assert manager.prnt_id == -1


def test_the_table_is_written_after_the_file_and_a_failed_save_leaves_both_as_they_were(
    manager, live, monkeypatch
):
    manager.dump()
    before = bytes_of(manager.root_directory)
    order, put = [], LocalStore.put

    def recorded(self, key, parts, *, if_absent=False):
        order.append(key.split("_")[0])
        return put(self, key, parts, if_absent=if_absent)

    def failing(self, key, parts, *, if_absent=False):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalStore, "put", failing)
    with pytest.raises(OSError, match="No space"):
        manager.dump()
    assert bytes_of(manager.root_directory) == before
    assert (manager.next_id, manager.prnt_id) == (0, 0)
    monkeypatch.setattr(LocalStore, "put", recorded)
    assert manager.dump() == 1
    assert order == ["ckpt", TABLE]


def test_a_file_whose_table_was_never_written_does_not_lend_its_id(manager, live):
    manager.dump()
    (manager.root_directory / "ckpt_1_00000000-dead").write_bytes(b"left by a crash")
    assert manager.dump() == 2


def test_two_managers_of_one_folder_give_each_id_once(manager, live):
    other = CheckpointManager(manager.root_directory)
    assert [manager.dump(), other.dump(), manager.dump()] == [0, 1, 2]
    assert other.id_to_prnt[1] == -1
    assert manager.id_to_prnt == {0: -1, 1: -1, 2: 0}


def test_a_folder_that_another_process_writes_to_is_refused(manager, live):
    with LocalStore(manager.root_directory).hold(f"{TABLE}.pending"), pytest.raises(LockedError):
        manager.dump()
    assert manager.dump() == 0


def test_nothing_to_save_is_an_error(manager):
    with pytest.raises(ledgers.LedgerError):
        manager.dump()
    with pytest.raises(ledgers.LedgerError):
        manager.dump("net")
    assert manager.next_id == -1


@pytest.mark.parametrize("wanted", [7, "7", "nowhere", -1, "../x", "²"])
def test_a_checkpoint_that_is_not_there_is_an_error_that_names_those_that_are(
    manager, live, wanted
):
    manager.dump()
    with pytest.raises(CheckpointNotFoundError, match="ids: 0"):
        manager.load(wanted)
    assert manager.prnt_id == 0


@pytest.mark.parametrize("wanted", [None, True, 1.5, b"1"])
def test_what_is_no_id_is_a_type_error(manager, live, wanted):
    with pytest.raises(TypeError):
        manager.load(wanted)


def test_a_file_that_is_gone_or_cut_is_an_error(manager, live):
    path = manager.root_directory / "x"
    manager.dump()
    manager.dump()
    path = manager.get_path_for_id(1)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TruncatedError):
        manager.load(1)
    path.unlink()
    with pytest.raises(CheckpointNotFoundError, match="gone"):
        manager.load(1)
    assert manager.get_latest_checkpoint_path() == manager.get_path_for_id(0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id_2_path": 3}'])
def test_a_table_that_cannot_be_read_is_an_error_and_stays(tmp_path, text):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(FormatError, match=r"checkpoints\.metadata"):
        CheckpointManager(tmp_path)
    assert (tmp_path / TABLE).read_text() == text


def test_a_model_that_does_not_fit_is_an_error_and_nothing_is_changed(manager, live):
    manager.dump()
    other = TinyNet()
    other.fc2 = torch.nn.Linear(8, 4)
    ledgers.register_model("net", other)
    before = weights(other)
    with pytest.raises(
        StateMismatchError, match=r"fc2.weight float32 \[3, 8\] -> float32 \[4, 8\]"
    ):
        manager.load(0)
    assert same(weights(other), before)
    assert manager.prnt_id == 0


def test_an_optimizer_that_does_not_fit_leaves_the_model_alone(manager, live):
    model, optimizer = live
    manager.dump()
    train(model, optimizer)
    before = weights(model)
    ledgers.register_optimizer("sgd", torch.optim.SGD([torch.zeros(1)], lr=0.1))
    with pytest.raises(StateMismatchError, match="parameter groups"):
        manager.load(0)
    assert same(weights(model), before)


def test_an_optimizer_named_for_a_checkpoint_without_one_is_an_error(tmp_path, live):
    manager = CheckpointManager(copy_of("v1_root_watch", tmp_path))
    with pytest.raises(StateMismatchError, match="no optimizer state"):
        manager.load(0, optimizer_name="sgd")


def test_bookkeeping_of_the_old_wrappers_is_left_out_where_the_model_has_none(tmp_path):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 1)

    manager = CheckpointManager(tmp_path)
    ledgers.register_model("net", Wrapper())
    manager.dump()
    path = manager.get_path_for_id(0)
    found = old_load(tmp_path, 0)
    found["model"]["seen_samples"] = 4
    torch.save(found, path)
    manager.load(0)


# ---------------------------------------------------------------- whole models


def test_a_whole_model_is_opaque_without_trust(tmp_path, live):
    root = copy_of("v1_root", tmp_path)
    manager = CheckpointManager(root)
    manager.load(3)  # its dill bytes would need a module that is not here
    ledgers.register_model("net", torch.nn.Linear(2, 1))
    with pytest.raises(StateMismatchError, match="trust=True"):
        manager.load(3, optimizer_name=None)


def test_with_trust_a_whole_model_takes_the_place_of_one_that_does_not_fit(manager, live):
    model, _ = live
    manager.dump(save_full_model=True)
    ledgers.unregister_optimizer("sgd")
    ledgers.register_model("net", torch.nn.Linear(2, 1))
    manager.load(0, trust=True)
    assert same(weights(ledgers.get_model("net")), weights(model))
    ledgers.unregister_model("net")
    manager.load(0, "fresh", trust=True)
    assert type(ledgers.get_model("fresh")) is TinyNet


def test_a_whole_model_that_cannot_be_pickled_is_an_error_and_nothing_is_saved(manager):
    class Local(torch.nn.Linear):
        pass

    ledgers.register_model("net", Local(2, 1))
    with pytest.raises(NotStorableError, match="save_full_model=False"):
        manager.dump(save_full_model=True)
    assert manager.next_id == -1
    assert manager.dump() == 0


def test_a_pickle_that_calls_code_is_refused(manager, live, tmp_path):
    class Hostile:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"model": Hostile()}, tmp_path / "evil")
    with pytest.raises(UnsafePickleError, match=r"posix\.mkdir"):
        manager.load(tmp_path / "evil")
    assert not (tmp_path / "made").exists()


def test_what_it_wrote_is_imported(manager, live, tmp_path):
    manager.dump(experiment_name="toy", save_full_model=True)
    manager.dump(experiment_name="toy")
    manager.load(0)
    manager.dump(experiment_name="toy")
    report = import_root(manager.root_directory, tmp_path / "root")
    assert report.is_complete
    assert [c.step for c in report.checkpoints] == [0, 1, 2]
