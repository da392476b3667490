"""`root.usage`: bytes by experiment and kind; shared bytes once on disk, and what deleting frees."""

import json
import os

import pytest
from support.roots import begin, content_of, draft_of, save, small_root

from weightslab.engine.care.usage import readable
from weightslab.engine.repository import layout
from weightslab.engine.saving.writer import write_checkpoint

LARGE = 1_200_000  # above the 1 MiB from which tensors are linked instead of written


@pytest.fixture
def root(tmp_path):
    return small_root(tmp_path / "root")


def on_disk(paths):
    """What these names take, each inode once, by asking the system."""
    stats = {(s.st_dev, s.st_ino): s for s in (p.lstat() for p in paths if not p.is_dir())}
    return sum(s.st_blocks * 512 for s in stats.values())


def names_in(folder):
    return [p for p in folder.rglob("*") if not p.is_dir()]


def test_total_is_that_of_the_system_and_every_kind_is_told(root):
    a = begin(root, 0, num_samples=5)[0]
    for step in (1, 2, 3):
        save(root, a, step, f"{step}" * 50)
    root.pin(a, step=1)
    root.trash.put(a, 2)
    (root.path / layout.QUARANTINE / "x").mkdir(parents=True)
    (root.path / layout.QUARANTINE / "x" / "y").write_bytes(b"1234")
    (root.path / "logs" / "metrics.jsonl").write_text("{}\n")
    (root.path / "data" / "mine.h5").write_bytes(b"12")
    (root.path / "notes.txt").write_bytes(b"1")
    (root.path / "checkpoints" / "loose").write_bytes(b"1")
    found = root.usage()
    files = names_in(root.path)
    assert found.num_files == len(files)
    assert found.size_bytes == sum(p.lstat().st_size for p in files)
    assert found.disk_bytes == on_disk(files)
    assert set(found.kinds) == {
        "weights", "training", "config", "samples", "notes", "records", "trash", "quarantine", "logs", "data", "other",
    }  # fmt: skip
    assert found.kinds["quarantine"].size_bytes == 4
    assert found.kinds["other"].num_files == 2
    assert (found.kinds["weights"].num_files, found.kinds["trash"].num_files) == (2, 4)
    (one,) = found.experiments
    assert one.own_bytes == on_disk(names_in(root.path / "checkpoints" / a))
    assert sum(one.kinds.values()) == one.size_bytes
    assert found.problems == ()


def test_linked_weights_are_shared_until_the_other_experiment_is_gone(root):
    a, b = begin(root, 0)[0], begin(root, 1)[0]
    parts = {"model": content_of("m", LARGE)["model"], "training": b"t"}
    for exp_hash in (a, b):
        write_checkpoint(root, draft_of(exp_hash, 1, parts))
    found = root.usage()
    both = {e.exp_hash: e for e in found.experiments}
    assert both[a].shared_bytes == both[b].shared_bytes >= LARGE
    assert both[a].own_bytes < 100_000
    assert found.size_bytes - LARGE < found.disk_bytes + 100_000 < found.size_bytes + 100_000
    root.delete(a)
    (left,) = root.usage().experiments
    assert (left.shared_bytes, left.own_bytes >= LARGE) == (0, True)


def test_links_within_an_experiment_are_its_own_and_links_to_elsewhere_are_not(root, tmp_path):
    a = begin(root, 0)[0]
    save(root, a, 1, "x", LARGE)
    weights = (
        root.path
        / layout.model_folder(a)
        / layout.CheckpointName(exp_hash=a, step=1).file_name("model")
    )
    os.link(weights, weights.with_name("second.safetensors"))
    (one,) = root.usage().experiments
    assert (one.shared_bytes, one.own_bytes >= LARGE) == (0, True)
    assert one.size_bytes > one.own_bytes
    os.link(weights, tmp_path / "outside")
    assert root.usage().experiments[0].shared_bytes >= LARGE


def test_order_is_by_what_deleting_frees_and_the_text_is_short(root):
    for number, size in ((0, 10), (1, 200_000), (2, 50_000)):
        save(root, begin(root, number)[0], 1, "x", size)
    found = root.usage()
    own = [e.own_bytes for e in found.experiments]
    assert own == sorted(own, reverse=True)
    text = str(found)
    assert "own" in text.splitlines()[1]
    assert "without links" in text.splitlines()[0]
    assert json.loads(json.dumps(found.to_dict()))["experiments"][0]["own_bytes"] == own[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_links_pipes_and_strange_names_are_counted_and_not_followed(root, tmp_path):
    a = begin(root, 0)[0]
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "big").write_bytes(b"x" * 100_000)
    folder = root.path / layout.experiment_folder(a)
    (folder / "hp" / "far").symlink_to(tmp_path / "far", target_is_directory=True)
    (root.path / "checkpoints" / ("a" * 16)).symlink_to(tmp_path / "far", target_is_directory=True)
    os.mkfifo(folder / "pipe")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x\x1b[2J").write_bytes(b"12345")
    found = root.usage()
    assert found.size_bytes < 50_000
    assert found.experiments[0].kinds["other"] == 5
    assert [e.exp_hash for e in found.experiments] == [a]


def test_empty_root_takes_nothing_and_a_read_only_one_is_counted(tmp_path):
    (tmp_path / "empty").mkdir()
    found = small_root(tmp_path / "empty", read_only=True).usage()
    assert (found.num_files, found.experiments, found.disk_bytes) == (0, (), 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (1 << 60, "1024.0 PiB")],
)
def test_bytes_are_told_in_units(size, text):
    assert readable(size) == text
