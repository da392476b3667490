"""Copying between roots: without duplicates, nothing replaced, and what cannot come is named."""

import json
from dataclasses import replace

import pytest
from support.collected import parent_of, save
from support.roots import begin, content_of, draft_of, hash_of, small_root
from support.transfers import FROZEN_BYTES, family, files_of, statuses

from weightslab.engine.care.trashing import thin
from weightslab.engine.errors import ReadOnlyStoreError
from weightslab.engine.repository.claim import claimed, held
from weightslab.engine.repository.opening import write_config_revision
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint


@pytest.fixture
def two(tmp_path):
    """A root with much in it, and an empty one."""
    root, a, b = family(tmp_path / "root", size_bytes=FROZEN_BYTES)
    return root, small_root(tmp_path / "other"), a, b


def test_everything_is_copied_as_links_and_a_second_time_nothing(two):
    root, other, _, _ = two
    report = root.copy_to(other)
    assert statuses(report) == (["created"], ["copied"])
    assert files_of(other) == files_of(root)
    assert report.written_bytes == 3 * 48 + 8  # that of C is small
    weights = [p for p in other.path.rglob("*_step_*.safetensors") if hash_of(2) not in p.name]
    assert {p.stat().st_nlink for p in weights} == {2}
    small = list(other.path.rglob("*.yaml"))
    assert {p.stat().st_nlink for p in small} == {1}  # people edit those
    assert other.verify() == []
    before = files_of(other)
    assert statuses(root.copy_to(other.path)) == (["known"], ["known"])
    assert files_of(other) == before


def test_bytes_are_written_where_links_are_not_wanted(two):
    root, other, a, _ = two
    report = root.copy_to(other, a, links=False)
    assert report.linked_bytes == 0
    assert files_of(other, a) == files_of(root, a)
    assert {p.stat().st_nlink for p in other.path.rglob("*.safetensors")} == {1}


def test_a_root_goes_on_when_the_one_it_was_copied_from_is_gone(two):
    root, other, a, b = two
    root.copy_to(other)
    for h in root.list_hashes():
        root.delete(h, force=True)
    assert other.verify() == []
    assert other.history(f"{b}@2").is_complete
    assert save(other, a, 9).name.step == 9


def test_tensors_that_are_in_the_other_root_already_are_not_written_again(tmp_path):
    root, other = small_root(tmp_path / "root"), small_root(tmp_path / "other")
    a, _ = begin(root, 0)
    b, _ = begin(other, 1)
    save(root, a, 1, text="same", size_bytes=5000)
    save(other, b, 1, text="same", size_bytes=5000)
    report = root.copy_to(other, links=False)
    assert (report.written_bytes, report.linked_bytes) == (0, 3 * 5000 + 8)
    assert other.verify() == []


def test_a_file_that_is_damaged_there_is_not_relied_on(tmp_path):
    root, other = small_root(tmp_path / "root"), small_root(tmp_path / "other")
    a, _ = begin(root, 0)
    b, _ = begin(other, 1)
    save(root, a, 1, text="same", size_bytes=5000)
    save(other, b, 1, text="same", size_bytes=5000)
    (file,) = other.path.rglob("*_step_000001.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    report = root.copy_to(other, links=False)
    assert report.is_complete
    assert report.written_bytes == 5004
    assert other.verify(a) == []


def test_another_checkpoint_of_that_name_is_a_conflict_and_the_others_come(two):
    root, other, a, _ = two
    begin(other, 0, num_samples=12)
    mine = save(other, a, 2, text="mine")
    report = root.copy_to(other, a)
    assert [c.status for c in report.checkpoints] == ["copied", "conflict", "copied"]
    assert not report.is_complete
    assert f"another checkpoint is called {a}_step_000002 here" in report.checkpoints[1].reason
    assert f"conflict: {a}@2: another checkpoint is called" in str(report)
    assert other.manifest(other.get_checkpoint(a, 2)).digest == mine.digest
    assert other.verify() == []


def test_a_checkpoint_whose_config_is_another_one_there_stays_out(two):
    root, other, _, b = two
    begin(other, 1)
    write_config_revision(other.store, b, {"experiment": 1, "other": 3}, name="config")
    draft = draft_of(b, 3, content_of("x"))
    write_checkpoint(
        root, replace(draft, config_file=f"{b}_config.r2.yaml", parent=parent_of(None))
    )
    report = root.copy_to(other, b, lineage="none")
    assert [c.status for c in report.checkpoints] == ["copied", "copied", "conflict"]
    assert "here that is another config" in report.checkpoints[2].reason
    assert report.experiments[0].problems == (
        (
            f"{b}_config.r2.yaml",
            f"another file is called {b}_config.r2.yaml here, and nothing is replaced",
        ),
    )
    assert other.verify() == []


def test_what_is_damaged_in_the_source_is_named_and_hides_no_other(two):
    root, other, a, b = two
    (file,) = root.path.rglob(f"{a}_step_000002.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (root.path / "checkpoints" / b / "hp" / f"{b}_config.yaml").write_bytes(b"{}")
    report = root.copy_to(other)
    assert {c.reference: c.status for c in report.left_out} == {
        f"{a}@2": "failed", f"{b}@1": "failed", f"{b}@2": "failed",
    }  # fmt: skip
    assert [e.exp_hash for e in report.experiments if e.status == "failed"] == [b]
    assert b not in other.list_hashes()
    assert not [*(other.path / "checkpoints").glob(f"{b}/**/*.json")]
    assert other.verify() == []


def test_what_is_damaged_in_the_other_root_is_not_taken_for_known(two):
    root, other, a, _ = two
    root.copy_to(other, a, links=False)
    (file,) = other.path.rglob(f"{a}_step_000002.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    report = root.copy_to(other, a)
    assert [c.status for c in report.checkpoints] == ["known", "failed", "known"]
    other.quarantine(a)
    assert root.copy_to(other, a).is_complete
    assert other.verify() == []


def test_what_was_thinned_there_does_not_come_back(two):
    root, other, a, _ = two
    root.copy_to(other, a)
    thin(other, other.get_checkpoint(a, 2).name)
    report = root.copy_to(other, a)
    assert statuses(report) == (["known"], ["known"])
    assert other.get_checkpoint(a, 2).name.revision == 2


def test_what_is_being_written_there_is_busy_and_comes_the_next_time(two):
    root, other, a, _ = two
    root.copy_to(other, f"{a}@1", lineage="none")
    name = root.get_checkpoint(a, 2).name
    with held(other.store, name):
        report = root.copy_to(other, a)
        assert [c.status for c in report.checkpoints] == ["known", "busy", "copied"]
    assert not report.is_complete
    assert root.copy_to(other, a).is_complete


def test_what_is_being_deleted_in_the_source_is_passed_over(two):
    root, other, a, _ = two
    with claimed(root.store, root.get_checkpoint(a, 2).name):
        report = root.copy_to(other, a)
    assert [c.status for c in report.checkpoints] == ["copied", "busy", "copied"]


def test_the_root_itself_and_roots_that_are_only_read_are_refused(two):
    root, other, a, _ = two
    with pytest.raises(ValueError, match="is the root itself"):
        root.copy_to(root.path / ".." / "root")
    with pytest.raises(ReadOnlyStoreError, match="copy something there"):
        root.copy_to(CheckpointRoot(other.path, read_only=True), a)
    report = root.copy_to(other.path.parent / "none", a, dry_run=True)
    assert statuses(report) == (["would create"], ["would copy"])
    assert not (other.path.parent / "none").exists()


def test_pins_are_there_before_what_they_keep(two):
    root, other, _, b = two
    root.copy_to(other, b)
    assert [pin.step for pin in other.notes.read(b).pins] == [2]
    lines = (other.path / "logs" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("checkpoint_begun") == events.count("checkpoint_committed") == 4
