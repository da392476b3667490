"""Export: one file that any reader of safetensors opens, whatever files the checkpoint lies in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, load_model

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import AlreadyExistsError, DigestMismatchError, ObjectNotFoundError


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.Linear(700, 700)
        self.head = torch.nn.Linear(700, 10, bias=False)
        self.again = self.head

    def forward(self, x):
        return self.again(self.frozen(x))


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints; the second links the frozen layer of the first."""
    model = Tied()
    with CheckpointManagerV2(tmp_path / "root") as manager:
        exp_hash = manager.update_experiment_hash(model=model).exp_hash
        for step in (1, 2):
            with torch.no_grad():
                model.head.weight.fill_(step)
            manager.save_model_checkpoint(model, step=step, save_optimizer=False)
        names = {p.name.partition(".")[2] for p in (tmp_path / "root").rglob("*step_000002.*")}
        assert {"partial.safetensors", "ref1.safetensors"} <= names
        yield manager.root, exp_hash, model


def test_exported_file_stands_alone(saved, tmp_path):
    root, exp_hash, model = saved
    path = root.export(exp_hash, 2, tmp_path / "out" / "weights.safetensors")
    root.delete(exp_hash)
    assert path == tmp_path / "out" / "weights.safetensors"
    assert set(load_file(path)) == {"frozen.weight", "frozen.bias", "again.weight"}
    other = Tied()
    load_model(other, path)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_existing_file_is_never_replaced(saved, tmp_path):
    root, exp_hash, _ = saved
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(AlreadyExistsError, match="nothing is replaced"):
        root.export(exp_hash, 2, path)
    assert path.read_bytes() == b"mine"


def test_part_that_is_not_there_is_an_error_that_names_the_others(saved, tmp_path):
    root, exp_hash, _ = saved
    with pytest.raises(ObjectNotFoundError, match="no part 'training'") as caught:
        root.export(exp_hash, 2, tmp_path / "x", part="training")
    assert "it has model" in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_damaged_bytes_are_not_exported(saved, tmp_path):
    root, exp_hash, _ = saved
    (file,) = (tmp_path / "root").rglob("*step_000002.partial.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        root.export(exp_hash, 2, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_file_names_of_a_checkpoint_with_reused_tensors_are_listed(saved):
    root, exp_hash, _ = saved
    stem = f"{exp_hash}_step_00000"
    assert root.info(exp_hash)["model_checkpoints"] == [
        f"{stem}1.safetensors",
        f"{stem}2.partial.safetensors",
        f"{stem}2.ref1.safetensors",
    ]
