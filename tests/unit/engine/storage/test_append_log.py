"""The append log: what is where, when; files that fill up, vanish or are links."""

from __future__ import annotations

import os

import pytest

from weightslab.engine.errors import StorageError
from weightslab.engine.storage import append_log
from weightslab.engine.storage.append_log import AppendLog
from weightslab.engine.storage.journal import LocalJournal


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def syncs(monkeypatch):
    """Descriptors that were synced."""
    found = []
    sync = append_log._sync_data
    monkeypatch.setattr(append_log, "_sync_data", lambda fd: found.append(fd) or sync(fd))
    return found


@pytest.fixture
def log(tmp_path, clock):
    opened = AppendLog(tmp_path / "logs" / "metrics.jsonl", clock=clock)
    yield opened
    opened.close()


def records(log):
    return list(LocalJournal(log.path).read())


def test_a_line_is_in_the_file_on_return(log):
    log.append({"a": 1})
    assert log.path.read_bytes() == b'{"a": 1}\n'


def test_append_syncs_at_most_once_a_second(log, clock, syncs):
    for clock.now in (100.0, 100.5, 100.9):
        log.append({"a": 1})
    assert syncs == []
    clock.now = 101.0
    log.append({"a": 2})
    assert len(syncs) == 1
    clock.now = 101.9
    log.append({"a": 3})
    assert len(syncs) == 1


def test_sync_and_close_leave_nothing_unsynced_and_cost_nothing_twice(log, syncs):
    log.append({"a": 1})
    log.sync()
    log.sync()
    assert len(syncs) == 1
    log.append({"a": 2})
    log.close()
    log.close()
    assert len(syncs) == 2
    log.append({"a": 3})
    assert records(log) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_nothing_is_created_where_nothing_is_appended(tmp_path, clock):
    AppendLog(tmp_path / "logs" / "m.jsonl", clock=clock).close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_off_by_a_full_disk_is_closed_off_by_the_next(log, monkeypatch):
    write, calls = os.write, []

    def writes_a_part(descriptor, data):
        calls.append(len(data))
        if len(calls) == 2:
            return write(descriptor, bytes(data)[:4])
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", writes_a_part)
    log.append({"a": 1})
    with pytest.raises(StorageError, match="cannot be written"):
        log.append({"a": 2})
    log.append({"a": 3})
    assert records(log) == [{"a": 1}, {"a": 3}]


def test_two_logs_on_one_file_keep_their_lines_apart(log, clock):
    other = AppendLog(log.path, clock=clock)
    for number in range(50):
        log.append({"log": number})
        other.append({"other": number})
    other.close()
    assert len(records(log)) == 100


def test_a_file_that_was_deleted_is_made_again_after_a_sync(log, clock):
    log.append({"a": 1})
    log.path.unlink()
    log.sync()
    log.append({"a": 2})
    assert records(log) == [{"a": 2}]


def test_a_link_is_not_followed(log, tmp_path):
    log.path.parent.mkdir()
    log.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        log.append({"a": 1})
    assert not (tmp_path / "elsewhere").exists()
