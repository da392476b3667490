"""What a new user stumbles over: each is noticed, named, and costs nothing."""

import dataclasses
import logging
import os

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import (
    ExperimentNotFoundError,
    NotCanonicalError,
    NotStorableError,
    ReadOnlyStoreError,
)


class Net(torch.nn.Module):
    def __init__(self, out=3):
        super().__init__()
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, out)

    def forward(self, x):
        return self.fc2(self.fc1(x))


@pytest.fixture
def manager(tmp_path):
    return CheckpointManagerV2(tmp_path / "root")


def test_optimizer_made_before_the_model_changed_is_warned_of(manager, caplog):
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    model.fc2 = torch.nn.Linear(8, 5)
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    assert (
        "optimizer holds 2 parameters that are in no model, while fc2.weight is in" in caplog.text
    )


def test_optimizer_with_parameters_of_its_own_is_no_reason_to_warn(manager, caplog):
    model, temperature = Net(), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([*model.parameters(), temperature], lr=0.1)
    manager.update_experiment_hash(model)
    with caplog.at_level(logging.WARNING):
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    assert caplog.text == ""


def test_returned_paths_stay_true_when_the_program_changes_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manager = CheckpointManagerV2("runs")
    model = Net()
    manager.update_experiment_hash(model)
    path = manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    assert path.is_file()
    assert manager.load_checkpoint(1, model=model)["path"] == path
    manager.save_model_checkpoint(model, step=2, save_optimizer=False)
    assert manager.root.verify() == []


@pytest.mark.parametrize("config", [{"classes": {0: "a", "other": "b"}}, {1: 2, "z": 3, None: 4}])
def test_config_with_keys_of_several_kinds_comes_back(manager, config):
    manager.update_experiment_hash(config=config)
    assert manager.load_config() == config
    assert manager.root.verify() == []


def test_names_that_no_file_can_have_are_refused_before_a_hash_is_taken(manager):
    with pytest.raises(ValueError, match="model name 'a/b' cannot be part of a file name"):
        manager.update_experiment_hash({"a/b": Net()})
    assert manager.list_experiment_hashes() == []


def test_class_in_the_place_of_a_config_is_refused(manager):
    @dataclasses.dataclass
    class Config:
        lr: float = 0.1

    with pytest.raises(NotCanonicalError, match=r"did you mean .*Config\(\)\?"):
        manager.update_experiment_hash(config=Config)


def test_parent_has_to_be_a_pair(manager):
    with pytest.raises(TypeError, match=r"parent is a tuple \(exp_hash, step\), not 'ffff'"):
        manager.update_experiment_hash(Net(), parent="ffff")


def test_second_manager_of_the_root_knows_what_the_first_saved(manager):
    model = Net()
    manager.update_experiment_hash(model)
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    other = CheckpointManagerV2(manager.root.path)
    other.update_experiment_hash(model)
    torch.nn.init.zeros_(model.fc1.bias)
    other.save_model_checkpoint(model, step=2, save_optimizer=False)
    parent = other.root.get_checkpoint(other.current_hash, 2).parent
    assert (parent.kind, parent.step, parent.exact) == ("checkpoint", 1, None)


def test_save_into_an_experiment_that_was_deleted_says_what_to_do(manager):
    model = Net()
    exp_hash = manager.update_experiment_hash(model).exp_hash
    manager.root.delete(exp_hash)
    with pytest.raises(ExperimentNotFoundError, match=r"deleted; call update_experiment_hash\(\)"):
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)


def test_delete_in_a_read_only_root_says_so(manager):
    exp_hash = manager.update_experiment_hash(Net()).exp_hash
    reader = CheckpointManagerV2(manager.root.path, read_only=True)
    with pytest.raises(
        ReadOnlyStoreError, match=r"cannot delete: .* was opened with read_only=True"
    ):
        reader.root.delete(exp_hash)


def test_tensor_inside_an_extra_state_is_refused_with_the_way_out(manager):
    class Odd(Net):
        def get_extra_state(self):
            return {"scale": torch.ones(1)}

        def set_extra_state(self, state):
            self.scale = state["scale"]

    model = Odd()
    manager.update_experiment_hash(model)
    with pytest.raises(NotStorableError, match="return the tensor itself from get_extra_state"):
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)


def test_config_file_that_was_removed_is_missing_not_absent(manager):
    exp_hash = manager.update_experiment_hash(config={"lr": 1}).exp_hash
    (manager.root.path / "checkpoints" / exp_hash / "hp" / f"{exp_hash}_config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.yaml"):
        manager.load_config()
