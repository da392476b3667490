"""Every store of the package passes the contract."""

from __future__ import annotations

import pytest

from weightslab.engine.storage import LocalStore, MemoryStore
from weightslab.engine.testing import FaultyStore, RecordingStore, StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self):
        return MemoryStore()

    def reader_of(self, store):
        return store.reopened(read_only=True)


class TestLocalStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path):
        self.root = tmp_path / "not" / "yet there"

    def make_store(self):
        return LocalStore(self.root)

    def reader_of(self, store):
        return LocalStore(store.describe(), read_only=True)


class TestLocalStoreWithoutLinks(TestLocalStore):
    """A file system such as FAT: names are made by renaming, under a lock of the process."""

    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)


class TestLocalStoreThatWritesAllItCanPastTheCache(TestLocalStore):
    def make_store(self):
        return LocalStore(self.root, direct_from_bytes=1)


class TestFaultyStoreThatNeverFails(TestMemoryStore):
    def make_store(self):
        return FaultyStore(MemoryStore())

    def reader_of(self, store):
        return FaultyStore(store.store.reopened(read_only=True))


class TestRecordingStore(TestMemoryStore):
    def make_store(self):
        return RecordingStore(MemoryStore())

    def reader_of(self, store):
        return RecordingStore(store.store.reopened(read_only=True))
