"""Held files: what was read is what is seen, whatever happens to the source."""

import os
from pathlib import Path

import pytest

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import NotFoundError, SourceChangedError, StorageError
from weightslab.formats import held
from weightslab.formats.held import hold_file


def test_bytes_stay_what_they_were_when_the_source_is_cut(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"x" * 10_000)
    with hold_file(path) as found:
        os.truncate(path, 0)
        assert bytes(found.view) == b"x" * 10_000
        assert found.digest == digest_bytes(b"x" * 10_000)


def test_a_view_outlives_the_file_that_was_held(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"12345")
    with hold_file(path) as found:
        view = found.view
    assert bytes(view) == b"12345"


def test_an_empty_file_has_no_bytes_and_a_digest(tmp_path):
    path = tmp_path / "a.pt"
    path.touch()
    with hold_file(path) as found:
        assert (bytes(found.view), found.digest) == (b"", digest_bytes(b""))


def test_a_source_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"x" * 100)
    fill = held._fill

    def grown(view, file, name):
        fill(view, file, name)
        with path.open("ab") as more:
            more.write(b"y")

    monkeypatch.setattr(held, "_fill", grown)
    with pytest.raises(SourceChangedError, match="changed while it was read; import it again"):
        hold_file(path)


def test_a_source_that_is_cut_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"x" * 100)
    fill = held._fill

    def cut(view, file, name):
        os.truncate(path, 10)
        fill(view, file, name)

    monkeypatch.setattr(held, "_fill", cut)
    with pytest.raises(SourceChangedError, match="was cut while it was read"):
        hold_file(path)


def test_what_is_not_there_or_no_file_is_told(tmp_path):
    with pytest.raises(NotFoundError, match=r"a\.pt is not there"):
        hold_file(tmp_path / "a.pt")
    with pytest.raises(StorageError, match="is a folder, not a file"):
        hold_file(tmp_path)


def test_no_descriptor_stays_open(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        hold_file(path).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
