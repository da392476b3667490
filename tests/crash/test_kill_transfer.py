"""Death at every writing call of unbundling and copying: the root is whole, and going on ends well."""

import pytest
from support.mortal import MortalStore
from support.roots import begin, fast_folder, listing, save, small_root, strangers, tidy_all
from support.transfers import files_of

from weightslab.engine.errors import CheckpointError, StorageFullError
from weightslab.engine.testing.faults import SimulatedCrash


def source(path):
    """Make a root with one experiment of two checkpoints that share their weights, and a note."""
    root = small_root(path)
    h, _ = begin(root, 0, num_samples=5)
    for step in (1, 2):
        save(root, h, step, "same", 70_000)
    root.notes.name(h, "moved")
    root.bundle(path / "data" / "b.wlb")
    return root


def beginning(path):
    """Make the other root, with an experiment of its own."""
    begin(small_root(path), 1)


WORKS = {
    "unbundle": lambda root, other: other.unbundle(root.path / "data" / "b.wlb"),
    "copy": lambda root, other: root.copy_to(other),
}


def check_whole(other, root):
    """Everything that shows is as it is in the source, and nothing lies there half."""
    assert other.verify() == []
    theirs = {k: v for k, v in files_of(root).items() if k.endswith(".json") and "_step_" in k}
    ours = {k: v for k, v in files_of(other).items() if k.endswith(".json") and "_step_" in k}
    assert all(theirs[key] == data for key, data in ours.items())
    for entry in other.checkpoints():
        assert other.store.stat(f"checkpoints/{entry.name.exp_hash}/experiment.json")


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", WORKS)
def test_death_at_any_call_leaves_whole_checkpoints_and_a_second_call_goes_on(what, after):
    with fast_folder() as folder:
        root = source(folder / "source")
        beginning(folder / "count")
        counted = small_root(folder / "count", MortalStore)
        assert WORKS[what](root, counted).is_complete
        counted.store.bury()
        calls, wanted = counted.store.calls, listing(small_root(folder / "count"))
        assert calls > 12
        # dead after a call is dead before the next, but for what that one leaves half done
        for call in range(1, calls + 1, 4 if after else 1):
            path = folder / f"at-{call}"
            beginning(path)
            dying = small_root(
                path, lambda local, n=call: MortalStore(local, fail_at=n, after=after)
            )
            with pytest.raises(SimulatedCrash):
                WORKS[what](root, dying)
            dying.store.bury()
            other = small_root(path)
            assert set(listing(other)) <= set(wanted)
            check_whole(other, root)
            assert WORKS[what](root, other).is_complete
            assert listing(other) == wanted
            tidy_all(other)
            check_whole(other, root)
            assert [key for key in strangers(other) if not key.startswith(_notes(root))] == []
            h = root.list_hashes()[0]
            assert files_of(other, h) == files_of(root, h)


def _notes(root):
    return tuple(f"checkpoints/{h}/notes/" for h in root.list_hashes())


@pytest.mark.slow
def test_a_full_disk_at_any_call_leaves_whole_checkpoints():
    with fast_folder() as folder:
        root = source(folder / "source")
        counted = small_root(folder / "count", MortalStore)
        root.copy_to(counted, links=False)
        for call in range(1, counted.store.calls + 1, 2):
            path = folder / f"at-{call}"
            full = lambda local, n=call: MortalStore(  # noqa: E731
                local, fail_at=n, error=lambda: StorageFullError("no space"), lasting=True
            )
            small_root(path)
            other = small_root(path, full)
            try:
                report = root.copy_to(other, links=False)
            except CheckpointError:
                pass
            else:
                assert not report.is_complete or call == counted.store.calls
            other.store.bury()
            again = small_root(path)
            check_whole(again, root)
            assert root.copy_to(again, links=False).is_complete
            tidy_all(again)
            assert files_of(again) == files_of(root)
