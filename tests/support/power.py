"""Power loss as a model: which files may be there after a cut at any point of a log.

The bytes of a `put` are on disk when it returns; a name, and the removal of a name, only after a
`sync` of its folder. Until then any subset of them may have reached the disk, in any order, as in
Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), section 3. A hold file is
never synced, so its bytes may be missing, too.
"""

from __future__ import annotations

import itertools
import random

from weightslab.engine.storage.memory import MemoryStore

MAX_EXHAUSTIVE = 8  # 256 subsets; above that extremes and samples
NUM_SAMPLES = 40


class Disk:
    """What is certainly on disk, and what is pending, after a part of a log."""

    def __init__(self, files=()):
        self.certain = dict(files)
        self.pending = []  # (key, bytes or None for a removal), in the order of the log

    def apply(self, operation):
        """Take in one operation of a `RecordingStore`."""
        if operation.op == "sync":
            self._sync(operation.key)
        elif operation.op == "put":
            self.pending.append((operation.key, operation.data))
        elif operation.op == "hold":
            self.pending.append((operation.key, b""))
        elif operation.op in ("release", "delete"):
            self.pending.append((operation.key, None))
        else:
            raise AssertionError(f"the model does not know {operation.op}")

    def _sync(self, folder):
        for key, data in self.pending:
            if is_in(key, folder):
                self._settle(self.certain, key, data)
        self.pending = [(key, data) for key, data in self.pending if not is_in(key, folder)]

    @staticmethod
    def _settle(files, key, data):
        if data is None:
            files.pop(key, None)
        else:
            files[key] = data

    def states(self, chance):
        """Yield the stores that a cut at this point may leave."""
        for chosen in subsets(len(self.pending), chance):
            files = dict(self.certain)
            for index in chosen:
                self._settle(files, *self.pending[index])
            yield store_of(files)


def is_in(key, folder):
    """Tell whether `key` lies directly in `folder`."""
    return key.rpartition("/")[0] == folder.rstrip("/")


def subsets(count, chance):
    """Return the subsets of `count` things: all of a few, extremes and samples of many."""
    if count <= MAX_EXHAUSTIVE:
        sizes = range(count + 1)
        return [s for size in sizes for s in itertools.combinations(range(count), size)]
    everything = tuple(range(count))
    found = [(), everything]
    found += [everything[:n] for n in everything] + [everything[n:] for n in everything]
    found += [tuple(i for i in everything if i != n) for n in everything]
    return found + [
        tuple(i for i in everything if chance.random() < 0.5) for _ in range(NUM_SAMPLES)
    ]


def store_of(files):
    """Return a store with these files, as a machine that starts anew finds it."""
    store = MemoryStore()
    for key, data in files.items():
        store.put(key, [data])
    return store


def files_of(store, prefix=""):
    """Return key -> bytes of everything in a store."""
    found = {}
    for name in store.list(prefix):
        if name.endswith("/"):
            found |= files_of(store, prefix + name)
        else:
            found[prefix + name] = bytes(store.map(prefix + name))
    return found


def all_states(files, log, seed=0):
    """Yield (number of operations done, store) for every cut and every legal state."""
    chance = random.Random(seed)
    disk = Disk(files)
    yield from ((0, state) for state in disk.states(chance))
    for done, operation in enumerate(log, start=1):
        disk.apply(operation)
        yield from ((done, state) for state in disk.states(chance))
