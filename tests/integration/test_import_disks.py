"""Imports where the disk is full, the root cannot be written to, or the source changes meanwhile."""

import os
import subprocess

import pytest
import torch
from support.roots import fast_folder
from support.trainer_folders import trainer

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import ReadOnlyStoreError
from weightslab.engine.root import CheckpointRoot
from weightslab.formats import held, import_root
from weightslab.formats.held import hold_file


@pytest.fixture
def place():
    with fast_folder() as folder:
        yield folder


@pytest.fixture
def small(place):
    """A disk of 8 MiB."""
    folder = place / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def test_a_full_disk_is_told_and_what_has_room_comes_in(place, small):
    source = place / "source"
    source.mkdir()
    torch.manual_seed(0)
    for name, num_bytes in (("a", 3 << 20), ("b", 30 << 20), ("c", 1 << 20)):
        torch.save({"w": torch.randn(num_bytes // 4)}, source / f"{name}.pt")
    before = contents(source)
    report = import_root(source, small / "root")
    assert [(c.key, c.status) for c in report.checkpoints] == [
        ("a.pt", "imported"), ("b.pt", "failed"), ("c.pt", "imported"),
    ]  # fmt: skip
    assert "No space left on device" in report.failed[0].reason
    assert contents(source) == before
    root = CheckpointRoot(small / "root", read_only=True)
    assert root.verify() == []
    model = torch.nn.ParameterDict({"w": torch.empty((3 << 20) // 4)})
    with CheckpointManagerV2(small / "root", read_only=True) as manager:
        manager.load_latest_checkpoint(model, exp_hash=report.checkpoints[0].exp_hash)
    # once there is room, only what was missing comes in
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    again = import_root(source, small / "root")
    assert [c.status for c in again.checkpoints] == ["known", "imported", "known"]


def test_a_root_that_cannot_be_written_to_is_told_and_a_dry_run_needs_none(place, small):
    trainer(place / "source" / "checkpoint-2")
    CheckpointRoot(small / "root")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    dry = import_root(place / "source", small / "root", dry_run=True)
    assert [c.status for c in dry.checkpoints] == ["would import"]
    report = import_root(place / "source", small / "root")
    assert [c.status for c in report.checkpoints] == ["failed"]
    assert "Read-only file system" in report.failed[0].reason
    with pytest.raises(ReadOnlyStoreError):
        import_root(place / "source", small / "new")


def test_a_source_that_changes_while_it_is_read_is_told_and_the_rest_comes_in(place, monkeypatch):
    for step in (2, 4):
        trainer(place / "source" / f"checkpoint-{step}", step)
    victim = place / "source" / "checkpoint-2" / "model.safetensors"
    fill = held._fill

    def fill_and_write(found, opened):
        fill(found, opened)
        if found.path == victim:
            os.utime(victim, ns=(1, 1))

    monkeypatch.setattr(held, "_fill", fill_and_write)
    report = import_root(place / "source", place / "root")
    assert [c.status for c in report.checkpoints] == ["failed", "imported"]
    assert "changed while it was read" in report.failed[0].reason
    monkeypatch.undo()
    again = import_root(place / "source", place / "root")
    assert [c.status for c in again.checkpoints] == ["imported", "known"]


def test_a_source_is_never_changed_and_may_be_read_only(place, small):
    trainer(small / "checkpoint-2")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    report = import_root(small, place / "root")
    assert report.is_complete


def test_memory_that_is_used_again_does_not_mix_checkpoints(place):
    torch.manual_seed(0)
    weights = [{"w": torch.randn(1 << 18), "n": torch.tensor(n)} for n in range(4)]
    for number, state in enumerate(weights):
        torch.save({"state_dict": state}, place / f"epoch=0-step={number}.ckpt")
    report = import_root(place, place / "root")
    for number, state in enumerate(weights):
        model = torch.nn.Module()
        model.w, model.n = torch.nn.Parameter(torch.empty(1 << 18)), None
        del model.n
        model.register_buffer("n", torch.tensor(-1))
        with CheckpointManagerV2(place / "root", read_only=True) as manager:
            manager.load_checkpoint(number, report.checkpoints[0].exp_hash, model=model)
        assert torch.equal(model.w, state["w"])
        assert torch.equal(model.n, state["n"])
    with hold_file(place / "epoch=0-step=0.ckpt") as found:
        assert found.size_bytes == report.checkpoints[0].size_bytes
