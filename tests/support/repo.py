"""A repository in memory, with images of one tensor of bytes."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.commit import Draft, commit_checkpoint
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.tensors.header import HeaderEntry
from weightslab.engine.tensors.packing import FileImage
from weightslab.engine.values import ParentLink

HASH = "0123456789abcdef"


def plain_image(content):
    """Return a file of four header bytes and one tensor of bytes."""
    entry = HeaderEntry(dtype="U8", shape=(len(content),), offset=4, size_bytes=len(content))
    return FileImage(parts=[b"head", memoryview(content)], entries={"weight": entry})


class Repo:
    """Store, catalog and a clock that ticks once a call."""

    def __init__(self, store=None):
        self.store = store if store is not None else MemoryStore()
        self.catalog = ScanCatalog(self.store)
        ticks = itertools.count()
        start = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.clock = lambda: start + timedelta(seconds=next(ticks))

    def draft(self, step=100, content=b"weights", **more):
        facts = {
            "images": {"model": plain_image(content)},
            "aliases": {},
            "state": {"model": {}},
            "metadata": None,
            "metrics": {},
            "parent": ParentLink(kind="fresh", exact=True),
            "config_file": None,
            "versions": {"python": "3"},
        }
        return Draft(
            exp_hash=HASH,
            experiment_digest="wl1:sha256:" + HASH * 4,
            step=step,
            **(facts | more),
        )

    def commit(self, *args, **more):
        return commit_checkpoint(
            self.store, self.catalog, self.draft(*args, **more), clock=self.clock
        )

    def files(self):
        return self.store.list(f"checkpoints/{HASH}/model/")

    def steps(self):
        return [(e.name.step, e.name.revision) for e in self.catalog.checkpoints(HASH)]
