"""Digests: golden values, and that parts and wholes agree."""

from __future__ import annotations

import pytest

from weightslab.engine.digests import (
    SHA256,
    XXH3_128,
    ByteHasher,
    digest_bytes,
    digest_parts,
    seal_digest,
)
from weightslab.engine.errors import FormatError

# Published test vectors: the empty input of XXH3-128 and of SHA-256, and "abc" of FIPS 180-2.
XXH3_EMPTY = "xxh3-128:99aa06d3014798d86001c324468d497f"
SHA_EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SHA_ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
XXH3_ABC = "xxh3-128:06b05ab6733a618578af5f94892f3950"


def test_names_of_the_algorithms_are_fixed():
    assert (SHA256, XXH3_128) == ("sha256", "xxh3-128")


@pytest.mark.parametrize(("data", "expected"), [(b"", XXH3_EMPTY), (b"abc", XXH3_ABC)])
def test_bytes_are_covered_by_xxh3_128(data, expected):
    assert digest_bytes(data) == expected


@pytest.mark.parametrize(("data", "expected"), [(b"", SHA_EMPTY), (b"abc", SHA_ABC)])
def test_records_are_sealed_by_sha256(data, expected):
    assert seal_digest(data) == expected
    assert digest_bytes(data, algorithm=SHA256) == expected


def test_unknown_algorithm_is_an_error_that_names_the_known_ones():
    with pytest.raises(FormatError, match=r"unknown digest algorithm 'md5'; .* sha256, xxh3-128"):
        digest_bytes(b"", algorithm="md5")


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_kind_of_buffer_does_not_matter(wrap):
    assert digest_bytes(wrap(b"abc")) == XXH3_ABC


def test_hasher_gives_the_digest_so_far():
    hasher = ByteHasher()
    assert hasher.text() == XXH3_EMPTY
    hasher.update(b"a")
    hasher.update(b"bc")
    assert hasher.text() == XXH3_ABC


def test_parts_have_their_own_digests_and_one_of_the_whole():
    assert digest_parts([b"a", b"", b"bc"]) == (
        XXH3_ABC,
        [digest_bytes(b"a"), XXH3_EMPTY, digest_bytes(b"bc")],
    )
    assert digest_parts([]) == (XXH3_EMPTY, [])


def test_parts_longer_than_a_chunk_are_covered_to_the_last_byte():
    part = bytes(range(256)) * 4097  # 1 MiB and 256 bytes
    whole, (own,) = digest_parts([part])
    assert whole == own == digest_bytes(part)
    changed = part[:-1] + b"\0"
    assert digest_parts([changed])[0] != whole


def test_parts_of_other_item_sizes_are_read_as_bytes():
    numbers = memoryview(b"\1\0\0\0\2\0\0\0").cast("I")
    assert digest_parts([numbers])[0] == digest_bytes(b"\1\0\0\0\2\0\0\0")
