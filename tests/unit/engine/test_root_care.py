"""A root is cared for: notes, pins, the trash, and what is told to the journal."""

from datetime import timedelta

import pytest
from support.roots import ORIGIN, begin, hash_of, read, save, small_root

from weightslab.engine.care.trashing import thin
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    LockedError,
    ObjectNotFoundError,
    PinnedError,
    ReadOnlyStoreError,
)
from weightslab.engine.repository.claim import reading
from weightslab.engine.repository.trash import LIFETIME
from weightslab.engine.root import CheckpointRoot

HASH = hash_of(0)
STEM = f"{HASH}_step_000002"


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = ORIGIN

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def root(tmp_path):
    made = small_root(tmp_path / "root", clock=Clock())
    begin(made, 0)
    for step in (1, 2, 3):
        save(made, HASH, step, f"{step}")
    return made


def steps(root):
    return [(e.name.step, e.name.revision) for e in root.checkpoints(HASH)]


def events(root, *names):
    return [r for r in root.journal.read() if r["event"] in names]


# ---------------------------------------------------------------- notes
def test_notes_never_change_the_hash_or_what_verify_says(root):
    root.notes.name(HASH[:5], "baseline")
    root.notes.add(HASH, "lr was too high", step=2)
    root.notes.tag(HASH, "paper")
    found = root.notes.read(HASH)
    assert (found.name, [n.text for n in found.tags]) == ("baseline", ["paper"])
    assert root.list_hashes() == [HASH]
    assert root.verify() == []
    assert root.info(HASH)["name"] == "baseline"


def test_what_was_said_is_taken_back(root):
    root.notes.name(HASH, "x")
    root.notes.remove(root.notes.add(HASH, "wrong"))
    root.notes.remove(root.notes.tag(HASH, "good", step=2))
    root.notes.remove(root.notes.name(HASH, "baseline"))
    found = root.notes.read(HASH)
    assert (found.name, found.notes, found.tags) == (None, (), ())


def test_note_about_what_is_not_there_is_refused(root):
    with pytest.raises(CheckpointNotFoundError, match="nearest: 1, 2, 3"):
        root.notes.add(HASH, "x", step=9)
    with pytest.raises(CheckpointNotFoundError, match="revision 7"):
        root.pin(HASH, step=2, revision=7)
    with pytest.raises(ValueError, match="needs step"):
        root.pin(HASH, revision=1)
    assert root.notes.read(HASH).pins == ()


def test_notes_go_with_a_copy_of_the_experiment_and_with_the_experiment(root, tmp_path):
    root.notes.name(HASH, "baseline")
    other = small_root(tmp_path / "other")
    (root.path / "checkpoints" / HASH).rename(other.path / "checkpoints" / HASH)
    other.refresh()
    assert other.notes.read(HASH).name == "baseline"
    other.delete(HASH)
    assert not (other.path / "checkpoints" / HASH).exists()


# ---------------------------------------------------------------- pins
@pytest.mark.parametrize("pin", [{}, {"step": 2}, {"step": 2, "revision": 1}])
def test_pinned_checkpoint_is_not_deleted_until_it_is_unpinned(root, pin):
    root.pin(HASH, **pin)
    for way in (
        lambda: root.delete(HASH, step=2),
        lambda: root.delete(HASH),
        lambda: root.trash.put(HASH, 2),
    ):
        with pytest.raises(PinnedError, match=r"is pinned; root\.unpin\(\.\.\.\) takes"):
            way()
    assert steps(root) == [(1, 1), (2, 1), (3, 1)]
    root.unpin(HASH, **pin)
    assert root.delete(HASH, step=2) == [STEM]


def test_pinned_checkpoint_is_deleted_by_force(root):
    root.pin(HASH)
    assert root.trash.put(HASH, 1, force=True) == [f"{HASH}_step_000001"]
    assert root.delete(HASH, step=2, force=True) == [STEM]
    root.delete(HASH, force=True)
    assert root.list_hashes() == []


def test_experiment_that_is_pinned_stays_although_it_has_no_checkpoints(tmp_path):
    root = small_root(tmp_path)
    begin(root, 0)
    root.pin(HASH)
    with pytest.raises(PinnedError, match=HASH):
        root.delete(HASH)


def test_unpinning_what_has_no_pin_of_its_own_names_the_pins(root):
    root.pin(HASH)
    root.pin(HASH, step=3, revision=1)
    with pytest.raises(
        ObjectNotFoundError,
        match=r"step 2 .* has no pin of its own; .*the whole experiment; step=3, revision=1",
    ):
        root.unpin(HASH, step=2)


def test_damaged_note_keeps_everything_and_says_which_file_it_is(root):
    note = root.notes.add(HASH, "x")
    (root.path / note.key).write_bytes(b"{")
    with pytest.raises(PinnedError, match=r"may be pinned, as a note cannot be read: .*_note_"):
        root.delete(HASH, step=2)
    (root.path / note.key).unlink()
    root.delete(HASH, step=2)


# ---------------------------------------------------------------- the trash
def test_checkpoint_comes_back_by_its_name(root):
    before = read(root, root.get_checkpoint(HASH, 2).name)
    assert root.trash.put(HASH, 2, reason="by mistake") == [STEM]
    assert steps(root) == [(1, 1), (3, 1)]
    assert [entry.reason for entry in root.trash.list()] == ["by mistake"]
    name = root.restore(STEM)
    assert read(root, name) == before
    assert steps(root) == [(1, 1), (2, 1), (3, 1)]
    assert root.verify() == []


def test_all_revisions_of_a_step_go_to_the_trash_or_the_one_that_is_named(root):
    save(root, HASH, 2, "again")
    assert root.trash.put(HASH, 2, revision=1) == [STEM]
    save(root, HASH, 2, "more")
    assert root.trash.put(HASH, 2) == [f"{STEM}.r2", f"{STEM}.r3"]
    assert [e.name.revision for e in root.trash.list()] == [1, 2, 3]


def test_trash_is_emptied_of_what_was_there_for_its_lifetime(root):
    root.trash.put(HASH, 1)
    root.clock.now += LIFETIME
    root.trash.put(HASH, 2)
    (gone,) = root.trash.empty()
    assert gone.name.step == 1
    (gone,) = root.trash.empty(older_than=timedelta(0))
    assert gone.name.step == 2
    assert root.trash.list() == []


def test_tensors_that_others_share_survive_the_emptying(root):
    content = "large"
    save(root, HASH, 10, content, size_bytes=1_500_000)
    save(root, HASH, 11, content, size_bytes=1_500_000)
    second = root.get_checkpoint(HASH, 11).name
    before = read(root, second)
    root.trash.put(HASH, 10)
    root.trash.empty(older_than=timedelta(0))
    assert read(root, second) == before


def test_checkpoint_that_is_read_is_not_deleted(root):
    with reading(root.store, root.get_checkpoint(HASH, 2).name):
        with pytest.raises(LockedError, match="is being read"):
            root.delete(HASH, step=2)
        with pytest.raises(LockedError, match="is being read"):
            thin(root, root.get_checkpoint(HASH, 2).name)
    root.delete(HASH, step=2)


def test_root_that_is_read_only_reads_notes_and_trash_and_changes_nothing(root):
    root.trash.put(HASH, 2)
    root.notes.name(HASH, "x")
    reader = CheckpointRoot(root.path, read_only=True)
    assert reader.notes.read(HASH).name == "x"
    assert len(reader.trash.list()) == 1
    for way in (
        lambda: reader.pin(HASH),
        lambda: reader.notes.remove(reader.notes.name(HASH, "y")),
        lambda: reader.trash.put(HASH, 1),
        reader.trash.empty,
        lambda: reader.restore(STEM),
    ):
        with pytest.raises(ReadOnlyStoreError):
            way()


def test_journal_tells_what_was_done(root):
    root.pin(HASH, step=1)
    root.unpin(HASH, step=1)
    root.trash.put(HASH, 2, reason="x")
    root.restore(STEM)
    root.delete(HASH, step=1)
    thin(root, root.get_checkpoint(HASH, 2).name)
    root.trash.empty(older_than=timedelta(0))
    names = [
        "note_added",
        "note_removed",
        "checkpoint_trashed",
        "checkpoint_restored",
        "checkpoint_deleted",
        "checkpoint_thinned",
        "trash_emptied",
    ]
    assert [record["event"] for record in events(root, *names)] == names


def test_catalog_of_another_process_sees_what_came_back_and_what_was_thinned(root):
    other = CheckpointRoot(root.path)
    assert other.latest().name.step == 3
    root.trash.put(HASH, 3)
    assert other.latest().name.step == 2
    root.restore(f"{HASH}_step_000003")
    assert other.latest().name.step == 3
    thin(root, root.get_checkpoint(HASH, 3).name)
    assert (other.latest().name.step, other.latest().name.revision) == (3, 2)
    assert other.latest(HASH).name.revision == 2


def test_failed_restore_is_told_as_ended(root):
    root.trash.put(HASH, 2)
    save(root, HASH, 2, "other")
    with pytest.raises(FileExistsError):
        root.restore(STEM)
    assert [r["event"] for r in root.journal.read()][-2:] == [
        "checkpoint_begun",
        "checkpoint_failed",
    ]
