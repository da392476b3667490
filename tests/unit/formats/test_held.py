"""Held files: the bytes of one moment, in memory that is used again."""

import os

import pytest

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import FormatError, NotFoundError, SourceChangedError, StorageError
from weightslab.formats import held as held_module
from weightslab.formats.held import HeldMemory, hold_file


def file(folder, name="a", content=b"0123456789"):
    (folder / name).write_bytes(content)
    return folder / name


def test_a_held_file_has_the_bytes_and_their_digest(tmp_path):
    content = os.urandom((1 << 20) + 5)
    with hold_file(file(tmp_path, content=content)) as held:
        assert bytes(held.view) == content
        assert held.digest == digest_bytes(content)
        with open(held.name_or_file(), "rb") as again:  # noqa: PTH123
            assert again.read() == content


def test_an_empty_file_is_held_too(tmp_path):
    with hold_file(file(tmp_path, content=b"")) as held:
        assert (bytes(held.view), held.size_bytes) == (b"", 0)


def test_memory_is_used_for_one_file_after_another_whatever_their_sizes(tmp_path):
    with HeldMemory() as memory:
        for number, size in enumerate((3000, 9000, 3000, 0, 8999, 5 << 20, 9000, 0)):
            content = bytes([number]) * size
            with hold_file(file(tmp_path, content=content), memory) as held:
                assert bytes(held.view) == content
                if held.can_be_mapped:
                    assert os.path.getsize(held.name_or_file()) == size  # noqa: PTH202
        assert [region.capacity_bytes for region in memory._free] == [8 << 20]
        memory.trim()
        assert memory._free == []


def test_a_part_looks_at_its_bytes_and_reads_as_a_file(tmp_path):
    with hold_file(file(tmp_path)) as held:
        part = held.part(2, 5)
        assert bytes(part.view) == b"23456"
        found = part.name_or_file()
        assert (found.read(2), found.seek(-1, os.SEEK_END), found.read()) == (b"23", 4, b"6")
        for start, size in ((8, 3), (-1, 2), (11, 0), (0, 2**70)):
            with pytest.raises(FormatError, match="has 10 bytes"):
                held.part(start, size)


def test_what_cannot_be_read_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it must not wait for a writer
    for name, error in (("gone", NotFoundError), (".", StorageError), ("pipe", StorageError)):
        with pytest.raises(error):
            hold_file(tmp_path / name)


@pytest.mark.parametrize("change", ["written", "cut", "grown"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = file(tmp_path, content=bytes(100))
    fill = held_module._fill

    def fill_and_change(held, opened):
        if change == "cut":
            os.truncate(path, 50)
        fill(held, opened)
        with path.open("r+b" if change == "written" else "ab") as other:
            other.write(b"x")

    monkeypatch.setattr(held_module, "_fill", fill_and_change)
    with HeldMemory() as memory:
        with pytest.raises(SourceChangedError):
            hold_file(path, memory)
        assert len(memory._free) == 1
