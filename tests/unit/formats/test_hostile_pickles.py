"""Pickles that call code: nothing of them is run, wherever they stand; the rest comes in."""

import pickle
import zipfile

import pytest
import torch
from support.hostile_pickles import calls, legacy_tar, opcodes, save_all_ways, watched
from support.roots import fast_folder
from support.trainer_folders import (
    WEIGHTS,
    accelerate,
    distributed,
    huggingface,
    lightning,
    trainer,
)

from weightslab.formats import import_root

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def warm():
    """Import one of each kind, so that no module is loaded while the watch is on."""
    with fast_folder() as folder:
        trainer(folder / "checkpoint-2")
        accelerate(folder / "step_2")
        distributed(folder / "dcp")
        lightning(folder / "last.ckpt")
        torch.save(WEIGHTS, folder / "plain.pt")
        assert import_root(folder, folder / "root").is_complete


@pytest.fixture
def place(warm):
    with fast_folder() as folder:
        yield folder


def run(source, root, marker):
    """Import under watch; assert that nothing was executed."""
    with watched() as seen:
        report = import_root(source, root)
    assert seen == []
    assert not marker.exists()
    return report


def test_the_watch_sees_what_a_pickle_runs(place):
    marker = place / "ran"
    with watched() as seen:
        pickle.loads(opcodes(marker)["STACK_GLOBAL"])
    assert [event for event, _ in seen] == ["os.system"]
    assert marker.exists()


def test_nothing_is_run_from_files_of_torch(place):
    marker, source = place / "ran", place / "source"
    source.mkdir()
    for name, call in calls(marker).items():
        save_all_ways(source, name, call)
    torch.save(WEIGHTS, source / "good.pt")
    report = run(source, place / "root", marker)
    assert [c.key for c in report.checkpoints if c.status == "imported"] == ["good.pt"]
    assert len(report.failed) == 4 * len(calls(marker))
    assert any("would make a posix.system, which may run code" in c.reason for c in report.failed)
    assert any("--trust" in c.reason for c in report.failed)


def test_nothing_is_run_from_raw_opcodes(place):
    marker, source = place / "ran", place / "source"
    source.mkdir()
    for name, data in opcodes(marker).items():
        (source / f"{name}.pt").write_bytes(data)
        (source / f"{name}.ckpt").write_bytes(data)
        huggingface(source / name)
        (source / name / "model.safetensors").unlink()
        (source / name / "pytorch_model.bin").write_bytes(data)
    report = run(source, place / "root", marker)
    assert {c.status for c in report.checkpoints} == {"failed"}
    assert len(report.failed) == 3 * len(opcodes(marker))


def test_nothing_is_run_from_the_parts_of_trainers(place):
    marker, source = place / "ran", place / "source"
    bad = calls(marker)["os.system"]
    names = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt")
    folder = trainer(source / "checkpoint-2")
    for name in names:
        torch.save({"state": {0: bad}}, folder / name)
    folder = accelerate(source / "step_2")
    others = ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "custom_checkpoint_0.pkl")
    for name in (*others, "sampler.bin"):
        torch.save({"state": [bad]}, folder / name)
    report = run(source, place / "root", marker)
    assert [c.status for c in report.checkpoints] == ["imported", "imported"]
    told = {c.key: {line.split(" ")[0] for line in c.damaged} for c in report.checkpoints}
    assert told["checkpoint-2"] == set(names) - {"training_args.bin"}
    assert told["step_2"] == set(others)
    assert not report.is_complete


def test_nothing_is_run_from_the_metadata_of_a_distributed_checkpoint(place):
    marker, source = place / "ran", place / "source"
    raw = {name: pickle.dumps(call) for name, call in calls(marker).items()} | opcodes(marker)
    for name, data in raw.items():
        (source / name).mkdir(parents=True)
        (source / name / ".metadata").write_bytes(data)
    whole = distributed(source / "whole")
    found = pickle.loads((whole / ".metadata").read_bytes())
    found.planner_data = {"x": calls(marker)["os.system"]}
    (whole / ".metadata").write_bytes(pickle.dumps(found))
    report = run(source, place / "root", marker)
    assert report.checkpoints == ()
    assert len(report.problems) == len(raw) + 1
    assert any("would make a posix.system" in reason for _, reason in report.problems)


def test_nothing_is_run_from_the_objects_of_a_distributed_checkpoint(place):
    marker = place / "ran"
    folder = distributed(
        place / "source" / "dcp", {"model": dict(WEIGHTS), "more": calls(marker)["os.system"]}
    )
    assert b"system" in (folder / "__0_0.distcp").read_bytes()
    report = run(folder, place / "root", marker)
    assert [c.status for c in report.checkpoints] == ["imported"]
    assert "would make a posix.system" in report.checkpoints[0].damaged[0]


def test_a_pickle_cannot_change_the_stand_ins_of_another(place):
    folder = distributed(place / "good")
    bad = place / "bad"
    bad.mkdir()
    # BUILD with slots on the class itself: Metadata.get = 1
    (bad / ".metadata").write_bytes(
        b"\x80\x04\x8c\x25torch.distributed.checkpoint.metadata\x8c\x08Metadata\x93"
        b"N}\x8c\x03getK\x01s\x86b."
    )
    report = run(place, place / "root", place / "ran")
    assert [name for name, _ in report.problems] == ["bad"]
    assert [c.status for c in report.checkpoints] == ["imported"]
    assert folder.exists()


# ---------------------------------------------------------------- other bad files
def test_files_that_are_no_checkpoints_are_named_and_the_rest_comes_in(place):
    source = place / "source"
    source.mkdir()
    torch.save({"state_dict": WEIGHTS}, source / "good.pt")
    whole = (source / "good.pt").read_bytes()
    (source / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (source / "empty.pt").write_bytes(b"")
    (source / "text.ckpt").write_text("this is a text")
    (source / "image.pth").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (source / "zeros.safetensors").write_bytes(bytes(64))
    with zipfile.ZipFile(source / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(64 << 20))
    _encrypt(source / "locked.pt", whole)
    torch.save([1, 2], source / "list.pt")
    torch.save({"a": {"b": 1}}, source / "no_model.ckpt")
    (source / "folder.pt").mkdir()
    report = run(source, place / "root", place / "ran")
    assert [c.key for c in report.checkpoints if c.status == "imported"] == ["good.pt"]
    reasons = {c.key: c.reason for c in report.failed}
    assert set(reasons) == {
        "bomb.pt", "cut.pt", "empty.pt", "image.pth", "list.pt", "locked.pt", "no_model.ckpt",
        "text.ckpt", "zeros.safetensors",
    }  # fmt: skip
    assert "far more than its" in reasons["bomb.pt"]
    assert "cut off" in reasons["cut.pt"]
    assert "is empty" in reasons["empty.pt"]
    assert "password" in reasons["locked.pt"]


def _encrypt(path, whole):
    """Set the flag of encryption on every entry of a zip."""
    data = bytearray(whole)
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + at] |= 1
    path.write_bytes(data)


def test_a_legacy_tar_is_refused_without_reading_its_pickles(place):
    (place / "source").mkdir()
    legacy_tar(place / "source" / "old.pt", calls(place / "ran")["eval"])
    report = run(place / "source", place / "root", place / "ran")
    assert [c.status for c in report.checkpoints] == ["failed"]
