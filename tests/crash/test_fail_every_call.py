"""A process that dies at each single writing call: before it, or just after it."""

import pytest
from support.mortal import MortalStore
from support.roots import (
    begin,
    content_of,
    fast_folder,
    hash_of,
    listing,
    read,
    save,
    small_root,
    strangers,
    tidy_all,
)

from weightslab.engine.errors import StorageError, StorageFullError
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.testing.faults import FaultyStore, SimulatedCrash

HASH = hash_of(0)
EARLIER = (HASH, 1, 1, False)


def earlier_root(path):
    """Make a root with an experiment and two checkpoints."""
    root = small_root(path)
    begin(root, 0)
    save(root, HASH, 1, "first")
    save(root, HASH, 2, "second")
    return root


WORKS = {
    "open": lambda root: begin(root, 1, num_samples=5),
    "save": lambda root: save(root, HASH, 3, "third"),
    "revise": lambda root: save(root, HASH, 2, "other"),
    "save again": lambda root: save(root, HASH, 2, "second"),
    "delete step": lambda root: root.delete(HASH, step=2),
}
# what is visible afterwards: without the work, and with it
BEFORE = [EARLIER, (HASH, 2, 1, False)]
AFTER = {
    "open": BEFORE,
    "save": [*BEFORE, (HASH, 3, 1, False)],
    "revise": [*BEFORE, (HASH, 2, 2, False)],
    "save again": BEFORE,
    "delete step": [EARLIER],
}


def num_calls(path, work):
    earlier_root(path)
    root = small_root(path, MortalStore)
    work(root)
    root.store.bury()
    return root.store.calls


def die_at(path, work, call, *, after):
    """Do `work` in a process that dies at a call; return the root as the next process finds it."""
    root = small_root(path, lambda local: MortalStore(local, fail_at=call, after=after))
    with pytest.raises(SimulatedCrash):
        work(root)
    root.store.bury()
    return small_root(path)


def check_all_good(root):
    assert root.verify() == []
    for exp_hash, step, revision, _ in listing(root):
        read(root, CheckpointName(exp_hash=exp_hash, step=step, revision=revision))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", sorted(WORKS))
def test_death_at_any_call_leaves_the_old_or_the_new_state(what, after):
    with fast_folder() as folder:
        calls = num_calls(folder / "count", WORKS[what])
        assert calls >= 1
        for call in range(1, calls + 1):
            path = folder / f"at-{call}"
            earlier_root(path)
            root = die_at(path, WORKS[what], call, after=after)
            assert listing(root) in (BEFORE, AFTER[what])
            check_all_good(root)
            if what != "delete step" or (HASH, 2, 1, False) in listing(root):
                WORKS[what](root)
            assert listing(root) == AFTER[what]
            tidy_all(root)
            assert strangers(root) == []
            check_all_good(root)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_death_while_an_experiment_is_deleted_leaves_whole_checkpoints(after):
    with fast_folder() as folder:
        delete = lambda root: root.delete(HASH)  # noqa: E731
        calls = num_calls(folder / "count", delete)
        for call in range(1, calls + 1):
            path = folder / f"at-{call}"
            earlier_root(path)
            root = die_at(path, delete, call, after=after)
            assert set(listing(root)) <= set(BEFORE)
            check_all_good(root)
            begin(root, 0)
            manifest = save(root, HASH, 9, "next")
            assert read(root, manifest.name) == content_of("next")
            root.delete(HASH)
            assert not (path / "checkpoints" / HASH).exists()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_full_disk_at_any_call_leaves_the_old_or_the_new_state(lasting):
    with fast_folder() as folder:
        calls = num_calls(folder / "count", WORKS["save"])
        for call in range(1, calls + 1):
            path = folder / f"at-{call}"
            earlier_root(path)
            full = small_root(path, lambda local, call=call: full_at(local, call, lasting=lasting))
            with pytest.raises(StorageFullError):
                WORKS["save"](full)
            root = small_root(path)
            assert listing(root) in (BEFORE, AFTER["save"])
            check_all_good(root)


def full_at(local, call, *, lasting):
    return FaultyStore(
        local, fail_at=call, lasting=lasting, error=lambda: StorageFullError("no space")
    )


class Unreadable:
    """A store that cannot read one manifest at present, as without free descriptors."""

    def __init__(self, local, key):
        self._local, self._key = local, key

    def __getattr__(self, name):
        return getattr(self._local, name)

    def map(self, key):
        if key == self._key:
            raise StorageError("too many open files")
        return self._local.map(key)


def test_order_survives_a_manifest_that_cannot_be_read_for_the_moment():
    with fast_folder() as folder:
        earlier_root(folder)
        newest = CheckpointName(exp_hash=HASH, step=2).manifest_key
        save(small_root(folder, lambda local: Unreadable(local, newest)), HASH, 3, "third")
        entries = small_root(folder).checkpoints(HASH)
        assert [(e.name.step, e.sequence) for e in entries] == [(1, 1), (2, 2), (3, 3)]
