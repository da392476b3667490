"""The check of a tensor file: every bit, with and without records that cover it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    TruncatedError,
)
from weightslab.engine.tensors.check import verify_file
from weightslab.engine.tensors.image import build_image


@pytest.fixture
def stored():
    """bytes, file record, tensor records of a small file"""
    image = build_image(
        {
            "weight": torch.arange(6.0).reshape(2, 3),
            "bias": torch.ones(2, dtype=torch.bfloat16),
            "count": torch.tensor(7),
            "none": torch.zeros(0, 4),
        }
    )
    return (bytearray(b"".join(image.parts)), *image.records("x.safetensors", "model"))


def test_intact_file_passes(stored):
    verify_file(*stored)
    verify_file(bytes(stored[0]), *stored[1:])
    verify_file(memoryview(stored[0]), *stored[1:], names=["weight", "none"])


def test_every_flipped_bit_is_noticed(stored):
    data, file, tensors = stored
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DigestMismatchError, match=r"^x\.safetensors is damaged"):
            verify_file(data, file, tensors)
        data[bit // 8] ^= 1 << bit % 8
    verify_file(data, file, tensors)


def test_every_cut_and_every_addition_is_noticed(stored):
    data, file, tensors = stored
    for length in range(len(data)):
        with pytest.raises(TruncatedError, match=f"{length} bytes instead of {len(data)}: cut"):
            verify_file(data[:length], file, tensors)
    with pytest.raises(TruncatedError, match="appended"):
        verify_file(data + b"\0", file, tensors)


def test_message_names_the_damaged_tensor_and_the_file(stored):
    data, file, tensors = stored
    data[tensors["bias"].offset] ^= 1

    with pytest.raises(DigestMismatchError, match=r"x\.safetensors is damaged: tensor 'bias' does"):
        verify_file(data, file, tensors)


def test_message_counts_what_it_does_not_name(stored):
    data, file, tensors = stored
    records = {f"t{i}": replace(tensors["count"]) for i in range(7)} | tensors
    data[tensors["count"].offset] ^= 1

    with pytest.raises(DigestMismatchError, match=r"'t4' and 3 more do not") as caught:
        verify_file(data, file, records)
    assert len(caught.value.context["damaged"]) == 8


def test_chosen_tensors_are_checked_alone(stored):
    data, file, tensors = stored
    data[tensors["bias"].offset] ^= 1
    data[8] ^= 1

    verify_file(data, file, tensors, names={"weight", "count"})
    with pytest.raises(DigestMismatchError, match="'bias'"):
        verify_file(data, file, tensors, names={"bias"})


def test_unknown_name_is_a_wrong_argument(stored):
    with pytest.raises(ValueError, match="no tensor 'wieght'"):
        verify_file(*stored, names=["wieght"])


@pytest.mark.parametrize("dropped", ["weight", "bias", "count"])
def test_bytes_that_no_record_covers_are_checked_with_the_whole_file(stored, dropped):
    data, file, tensors = stored
    data[tensors[dropped].offset] ^= 1

    with pytest.raises(DigestMismatchError, match="the whole file does"):
        verify_file(data, file, {n: t for n, t in tensors.items() if n != dropped})


def test_header_record_that_is_too_short_does_not_uncover_bytes(stored):
    data, file, tensors = stored
    short = replace(file, header_size_bytes=8, header_digest=digest_bytes(data[:8]))
    data[20] ^= 1

    with pytest.raises(DigestMismatchError, match="the whole file does"):
        verify_file(data, short, tensors)


@pytest.mark.parametrize("change", [{"offset": 10**6}, {"size_bytes": 10**6}, {"file": "y"}])
def test_record_that_points_elsewhere_is_refused(stored, change):
    data, file, tensors = stored

    with pytest.raises(InvalidManifestError, match="tensor 'bias' is said to lie"):
        verify_file(data, file, {**tensors, "bias": replace(tensors["bias"], **change)})


def test_unknown_digest_is_not_taken_for_damage(stored):
    data, file, tensors = stored
    newer = {**tensors, "bias": replace(tensors["bias"], digest="blake9:00")}

    with pytest.raises(FormatError, match="blake9"):
        verify_file(data, file, newer)


def test_big_tensors_are_checked_in_threads():
    image = build_image({name: torch.zeros(1 << 19) for name in "abc"})
    file, tensors = image.records("x", "model")
    data = bytearray(b"".join(image.parts))
    verify_file(data, file, tensors)
    data[tensors["b"].offset + (1 << 20)] ^= 64

    with pytest.raises(DigestMismatchError, match="tensor 'b' does"):
        verify_file(data, file, tensors)


def test_check_does_not_import_torch():
    script = (
        "import json, sys\nimport weightslab.engine.tensors.check, weightslab.engine.tensors.header\n"
        "print(json.dumps(sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
