"""Files of torch: read by the weights-only loader, equal to what was saved, whole or not at all."""

import shutil

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import AlreadyExistsError, DigestMismatchError, ObjectNotFoundError
from weightslab.engine.root import CheckpointRoot


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 3, bias=False)
        self.again = self.head
        self.register_buffer("brief", torch.arange(3).to(torch.bfloat16))
        self.register_buffer("nothing", torch.empty(0, 2))

    def forward(self, x):
        return self.again(self.body(x))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.25)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    with CheckpointManagerV2(tmp_path_factory.mktemp("torch") / "root") as manager:
        exp_hash = manager.update_experiment_hash(model, {"lr": 0.25}).exp_hash
        manager.save_model_checkpoint(
            model, step=3, optimizer=optimizer, metrics={"loss": 0.5}, metadata={"a": (1, None)}
        )
        yield manager.root, exp_hash, model, optimizer


def same(first, second):
    assert list(first) == list(second) or sorted(first) == sorted(second)
    for key, tensor in first.items():
        assert second[key].dtype == tensor.dtype
        assert torch.equal(second[key], tensor), key


def test_the_state_dict_is_read_by_the_weights_only_loader(saved, tmp_path):
    root, exp_hash, model, _ = saved
    path = root.export(exp_hash, 3, tmp_path / "out" / "model.pt", format="torch")
    found = torch.load(path, weights_only=True)
    same(model.state_dict(), found)
    assert found["head.weight"].data_ptr() == found["again.weight"].data_ptr()
    Tied().load_state_dict(found, strict=True)
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_all_of_a_training_is_one_dictionary(saved, tmp_path):
    root, exp_hash, model, optimizer = saved
    path = root.export(exp_hash, 3, tmp_path / "all.pt", format="torch", part="all")
    found = torch.load(path, weights_only=True)
    same(model.state_dict(), found["model_state_dict"])
    other = torch.optim.AdamW(Tied().parameters(), lr=1.0)
    other.load_state_dict(found["optimizer_state_dict"])
    assert other.param_groups[0]["lr"] == 0.25
    same(optimizer.state_dict()["state"][0], other.state_dict()["state"][0])
    assert (found["step"], found["exp_hash"], found["metrics"]) == (3, exp_hash, {"loss": 0.5})
    assert found["metadata"] == {"a": (1, None)}


def test_the_training_state_goes_as_it_is_kept(saved, tmp_path):
    root, exp_hash, _, _ = saved
    path = root.export(exp_hash, 3, tmp_path / "t.pt", format="torch", part="training")
    assert "optimizer" in torch.load(path, weights_only=True)


def test_nothing_is_replaced_and_an_error_leaves_nothing(saved, tmp_path):
    root, exp_hash, _, _ = saved
    path = tmp_path / "mine.pt"
    path.write_bytes(b"mine")
    with pytest.raises(AlreadyExistsError, match="nothing is replaced"):
        root.export(exp_hash, 3, path, format="torch")
    with pytest.raises(ObjectNotFoundError, match="it has model, training"):
        root.export(exp_hash, 3, tmp_path / "x.pt", format="torch", part="model.x")
    with pytest.raises(ValueError, match="format is one of safetensors, torch, huggingface"):
        root.export(exp_hash, 3, tmp_path / "x.pt", format="onnx")
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.pt"]


def test_what_does_not_read_back_gets_no_name(saved, tmp_path, monkeypatch):
    root, exp_hash, _, _ = saved
    real = torch.load

    def other(*args, **more):
        found = real(*args, **(more | {"mmap": False}))
        found["body.bias"][0] += 1
        return found

    monkeypatch.setattr(torch, "load", other)
    with pytest.raises(DigestMismatchError, match=r"body\.bias does not read back"):
        root.export(exp_hash, 3, tmp_path / "x.pt", format="torch")
    assert list(tmp_path.iterdir()) == []


def test_damaged_bytes_are_not_exported(saved, tmp_path):
    root, exp_hash, _, _ = saved
    shutil.copytree(root.path, tmp_path / "root")
    (file,) = (tmp_path / "root").rglob("*step_000003.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    damaged = CheckpointRoot(tmp_path / "root", read_only=True)
    for form in ("torch", "huggingface"):
        with pytest.raises(DigestMismatchError):
            damaged.export(exp_hash, 3, tmp_path / "x", format=form)
    assert [p.name for p in tmp_path.iterdir()] == ["root"]
