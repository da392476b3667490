"""The header of a tensor file: read strictly, whatever it claims."""

from __future__ import annotations

import json
import struct

import pytest

from weightslab.engine.errors import InvalidManifestError, NotStorableError, TruncatedError
from weightslab.engine.tensors.header import HeaderEntry, num_bytes, read_header, render_header


def file_of(header, data=b"\0" * 8):
    """A file with this header: JSON text, bytes, or an object."""
    if not isinstance(header, bytes):
        header = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def test_header_is_read():
    document = {"__metadata__": {"format": "pt"}, "b": tensor(), "a": tensor(offsets=(8, 16))}
    data = file_of(document, b"\0" * 16)
    start = len(data) - 16

    header = read_header(data, what="file")

    assert list(header.entries) == ["b", "a"]
    assert header.entries["a"] == HeaderEntry(
        dtype="F32", shape=(2,), offset=start + 8, size_bytes=8
    )
    assert header.metadata == {"format": "pt"}
    assert header.size_bytes == start


HOSTILE = {
    "not JSON": "{nonsense}",
    "a list": "[]",
    "leading space": ' {"a":' + json.dumps(tensor()) + "}",
    "UTF-16": json.dumps({"a": tensor()}).encode("utf-16-le"),
    "not UTF-8": b'{"\xff":' + json.dumps(tensor()).encode() + b"}",
    "two objects": '{"a":' + json.dumps(tensor()) + "}{}",
    "duplicate name": '{"a":' + json.dumps(tensor()) + ',"a":' + json.dumps(tensor()) + "}",
    "duplicate key in an entry": '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "nested a million deep": '{"a":' + "[" * 1_000_000,
    "metadata is a list": {"__metadata__": [], "a": tensor()},
    "metadata with a number": {"__metadata__": {"step": 1}, "a": tensor()},
    "entry is a list": {"a": []},
    "entry without shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    "entry with more keys": {"a": tensor(stride=[1])},
    "unknown dtype": {"a": tensor("F31")},
    "dtype is a number": {"a": tensor(32)},
    "dtype is a list": {"a": tensor(["F32"])},
    "negative dimension": {"a": tensor(shape=(-2,))},
    "two negative dimensions": {"a": tensor(shape=(-1, -2))},
    "dimension is true": {"a": tensor(shape=(2, True))},
    "dimension is a float": {"a": tensor(shape=(2.0,))},
    "dimension is text": {"a": tensor(shape=("2",))},
    "shape is null": {"a": {**tensor(), "shape": None}},
    "65 dimensions": {"a": tensor(shape=(2, *[1] * 64))},
    "product beyond 64 bits": {"a": tensor(shape=(2**40, 2**40))},
    "product that wraps to 8": {"a": tensor(shape=(2**62 + 2**61, 2, 2))},
    "dimension beyond 64 bits beside a zero": {"a": tensor(shape=(10**30, 0), offsets=(0, 0))},
    "offsets too far": {"a": tensor(shape=(0,), offsets=(2**63, 2**63))},
    "offsets reversed": {"a": tensor(offsets=(8, 0))},
    "three offsets": {"a": tensor(offsets=(0, 8, 8))},
    "negative offset": {"a": tensor(offsets=(-8, 0))},
    "offset is false": {"a": tensor(offsets=(False, 8))},
    "more bytes than the shape": {"a": tensor(shape=(1,))},
    "fewer bytes than the shape": {"a": tensor(shape=(3,))},
    "half a byte": {"a": tensor("F4", (3,), (0, 1))},
    "overlap": {"a": tensor(), "b": tensor("U8", (4,), (4, 8))},
    "the same bytes twice": {"a": tensor(), "b": tensor()},
    "gap at the start": {"a": tensor("U8", (4,), (4, 8))},
    "gap in the middle": {"a": tensor("U8", (2,), (0, 2)), "b": tensor("U8", (4,), (4, 8))},
    "bytes of nobody at the end": {"a": tensor("U8", (4,), (0, 4))},
    "bytes of nobody without tensors": {},
}


@pytest.mark.parametrize("document", HOSTILE.values(), ids=HOSTILE)
def test_hostile_header_is_refused(document):
    with pytest.raises(InvalidManifestError):
        read_header(file_of(document), what="file")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 100) + b"{}",
        file_of({"a": tensor(offsets=(0, 8))}, b"\0" * 7),
        file_of({"a": tensor(shape=(2**40,), offsets=(0, 2**42))}),
    ],
    ids=["empty", "seven bytes", "cut in the header", "cut by a byte", "longer than any disk"],
)
def test_cut_file_is_refused_as_cut(data):
    with pytest.raises(TruncatedError, match="file"):
        read_header(data, what="file")


def test_header_longer_than_100_mb_is_refused_before_it_is_read():
    with pytest.raises(InvalidManifestError, match="100000000"):
        read_header(struct.pack("<Q", 2**63) + b"{}", what="file")


def test_tensors_without_bytes_stand_between_others():
    document = {
        "a": tensor(),
        "b": tensor(shape=(0, 3), offsets=(8, 8)),
        "c": tensor(offsets=(8, 16)),
    }

    assert list(read_header(file_of(document, b"\0" * 16), what="f").entries) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        ("F32", (), 4),
        ("BOOL", (3,), 3),
        ("C64", (2, 2), 32),
        ("F4", (3, 2), 3),
        ("F6_E2M3", (4,), 3),
    ],
)
def test_size_in_bytes(dtype, shape, expected):
    assert num_bytes(dtype, shape) == expected


@pytest.mark.parametrize("shape", [(2**62, 4), (2**62,) * 64, (2**63,), (2**63, 0), (1,) * 65])
def test_size_that_no_file_has_is_refused(shape):
    with pytest.raises(InvalidManifestError, match=r"2\*\*63|65 dimensions"):
        num_bytes("U8", shape)


def test_data_starts_at_a_multiple_of_64():
    for name in ("a", "ab" * 20, "abc" * 33):
        entry = HeaderEntry(dtype="U8", shape=(1,), offset=0, size_bytes=1)
        assert len(render_header({name: entry}, {"format": "pt"})) % 64 == 0


def test_name_that_is_not_unicode_is_refused():
    entry = HeaderEntry(dtype="U8", shape=(0,), offset=0, size_bytes=0)

    with pytest.raises(NotStorableError, match="not Unicode"):
        render_header({"\ud800": entry}, {})
