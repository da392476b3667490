"""A repository in memory, with images that are plain bytes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from weightslab.engine.digests import digest_bytes
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.commit import Draft, commit_checkpoint
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.values import FileRecord, ParentLink, TensorRecord

HASH = "0123456789abcdef"


@dataclass
class PlainImage:
    """A file of four header bytes and one tensor of bytes."""

    content: bytes

    @property
    def parts(self):
        return [b"head", self.content]

    def records(self, file_name, part):
        whole = b"head" + self.content
        tensor = TensorRecord(
            file=file_name,
            dtype="U8",
            shape=(len(self.content),),
            offset=4,
            size_bytes=len(self.content),
            digest=digest_bytes(self.content),
        )
        file = FileRecord(
            name=file_name,
            part=part,
            size_bytes=len(whole),
            digest=digest_bytes(whole),
            header_size_bytes=4,
            header_digest=digest_bytes(b"head"),
        )
        return file, {"weight": tensor}


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
            "images": {"model": PlainImage(content)},
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
