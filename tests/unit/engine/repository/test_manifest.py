"""The manifest: strict in, exact out."""

import json

import pytest
from support.repo import HASH

from weightslab.engine.errors import (
    DigestMismatchError,
    InvalidManifestError,
    TruncatedError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest

NAME = CheckpointName(exp_hash=HASH, step=100)


@pytest.fixture
def data(repo):
    repo.commit(metadata={"note": "x"}, metrics={"loss": 0.25})
    return bytes(repo.store.map(NAME.manifest_key))


def changed(data, **changes):
    document, _ = unseal(data, what="test")
    return seal(document | changes)


def test_manifest_survives_a_round_trip(data):
    manifest = Manifest.from_bytes(data, name=NAME)
    assert manifest.to_bytes() == data
    assert manifest.metadata == {"note": "x"}
    assert manifest.metric_values() == {"loss": 0.25}
    assert manifest.tensors["model/weight"].offset == 4


def test_manifest_is_plain_json_for_other_tools(data):
    document = json.loads(data)
    assert document["schema"] == "weightslab.checkpoint"
    assert document["files"][f"{NAME.stem}.safetensors"]["digest"].startswith("xxh3-128:")


def test_every_flipped_bit_of_a_manifest_is_noticed(data):
    for position in range(len(data) * 8):
        broken = bytearray(data)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises((DigestMismatchError, TruncatedError)):
            Manifest.from_bytes(bytes(broken), name=NAME)


def test_every_cut_of_a_manifest_is_noticed(data):
    for size in range(len(data)):
        with pytest.raises((DigestMismatchError, TruncatedError)):
            Manifest.from_bytes(data[:size], name=NAME)


def test_renamed_manifest_is_refused(data):
    with pytest.raises(InvalidManifestError, match="renamed or swapped"):
        Manifest.from_bytes(data, name=CheckpointName(exp_hash=HASH, step=101))


def test_newer_schema_is_refused_with_the_remedy(data):
    with pytest.raises(UnsupportedVersionError, match="pip install --upgrade"):
        Manifest.from_bytes(changed(data, schema_version=2), name=NAME)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "100"},
        {"step": -1},
        {"step": True},
        {"revision": 0},
        {"sequence": 0},
        {"created_at": "yesterday"},
        {"created_at": "2026-01-01T00:00:00"},
        {"files": []},
        {"files": {"../../evil.safetensors": {}}},
        {"files": {f"{HASH}_step_000100.safetensors": {"part": "model"}}},
        {"tensors": {"model/x": {"file": "other.safetensors"}}},
        {"aliases": {"model/a": "model/b"}},
        {"parent": {"kind": "stork"}},
        {"state": None},
        {"schema": "something.else"},
    ],
)
def test_sealed_nonsense_is_refused(data, change):
    with pytest.raises(InvalidManifestError):
        Manifest.from_bytes(changed(data, **change), name=NAME)
