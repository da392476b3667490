"""File images: readable by safetensors, zero-copy both ways, tied tensors once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    FormatError,
    InvalidManifestError,
    NotStorableError,
    TruncatedError,
)
from weightslab.engine.tensors.header import read_header
from weightslab.engine.tensors.image import HeaderEntry, build_image, tensor_view


def bytes_of(image):
    return b"".join(image.parts)


def write(image, path):
    path.write_bytes(bytes_of(image))
    return path


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_widest_items_come_first_and_every_tensor_is_aligned():
    image = build_image(
        {
            "a": torch.zeros(3, dtype=torch.uint8),
            "b": torch.zeros(3, dtype=torch.float16),
            "c": torch.zeros(1, dtype=torch.int64),
            "d": torch.zeros(3),
        }
    )

    assert list(image.entries) == ["c", "d", "b", "a"]
    assert [entry.offset % 8 for entry in image.entries.values()] == [0, 0, 4, 2]
    assert len(image.parts[0]) % 64 == 0
    assert image.size_bytes == len(bytes_of(image))


def test_contiguous_tensor_is_not_copied():
    weight = torch.arange(6.0).reshape(2, 3)
    image = build_image({"weight": nn.Parameter(weight)})

    weight[0, 0] = 7.0

    assert np.frombuffer(image.parts[1], np.float32)[0] == 7.0


def test_parts_keep_their_memory_alive():
    image = build_image({"t": torch.arange(1000).t() + 1})

    assert np.frombuffer(image.parts[1], np.int64).sum() == 500_500


def test_records_cover_the_file_and_fit_the_header():
    image = build_image({"b": torch.ones(2, 3), "a": torch.zeros(5, dtype=torch.int8)})
    file, tensors = image.records("x.safetensors", "model")
    header = read_header(bytes_of(image), what="x")

    assert (file.name, file.part, file.codec) == ("x.safetensors", "model", "safetensors")
    assert file.header_size_bytes == header.size_bytes == tensors["b"].offset
    assert {n: (t.dtype, t.shape, t.offset, t.size_bytes) for n, t in tensors.items()} == {
        n: (e.dtype, e.shape, e.offset, e.size_bytes) for n, e in header.entries.items()
    }
    assert file.size_bytes == tensors["a"].offset + 5


def test_digests_are_those_of_xxh3():
    image = build_image({"a": torch.tensor([1, 2, 3], dtype=torch.uint8)})
    file, tensors = image.records("x", "model")

    assert (
        tensors["a"].digest == "xxh3-128:ac77eb88cbc4b8d4ebce9b7632ae733b"
    )  # of the bytes 01 02 03
    assert file.digest == digest_bytes(bytes_of(image))
    assert file.header_digest == digest_bytes(image.parts[0])


def test_records_under_another_name_are_not_hashed_again():
    weight = torch.zeros(3)
    image = build_image({"weight": weight})
    first = image.records("a", "model")[0]
    weight += 1

    assert image.records("b", "model")[0].digest == first.digest


def test_tied_tensors_are_stored_once_and_load_model_restores_them(tmp_path):
    model = Tied()
    image = build_image(model.state_dict())

    assert image.aliases == {"head.weight": "embedding.weight"}
    assert list(image.entries) == ["embedding.weight"]
    path = write(image, tmp_path / "tied.safetensors")
    other = Tied()
    assert safetensors.torch.load_model(other, path) == (set(), [])
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_header_says_what_save_model_says(tmp_path):
    model = Tied()
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_model(model, path, metadata={"format": "pt"})
    theirs = read_header(path.read_bytes(), what="theirs")
    ours = read_header(bytes_of(build_image(model.state_dict())), what="ours")

    assert ours.metadata == theirs.metadata
    assert list(ours.entries) == list(theirs.entries)


def test_own_metadata_stands_beside_the_format():
    image = build_image({"a": torch.zeros(1)}, metadata={"step": "100", "format": "tf"})

    assert read_header(bytes_of(image), what="x").metadata == {"format": "pt", "step": "100"}


@pytest.mark.parametrize(
    "pair",
    [
        lambda t: (t, t.t()),
        lambda t: (t[:2], t[2:]),
        lambda t: (t, t.view(torch.int32)),
        lambda t: (t, t.clone()),
        lambda t: (t[:0], t[:0]),
        lambda t: (
            (torch.view_as_complex(t[:, :2].contiguous()),) * 1
            + (torch.view_as_complex(t[:, :2].contiguous()).conj(),)
        ),
    ],
    ids=["transposed", "halves", "other dtype", "equal values", "no items", "conjugated"],
)
def test_tensors_that_only_share_memory_are_not_tied(pair):
    one, other = pair(torch.arange(16.0).reshape(4, 4))

    assert build_image({"a": one, "b": other}).aliases == {}


def test_conjugated_view_keeps_its_own_values():
    plain = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    data = bytes_of(image := build_image({"a": plain, "b": plain.conj()}))

    assert tensor_view(data, image.entries["b"]).tolist() == [1 - 2j, 3 + 4j]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(12.0).reshape(3, 4)[:, ::2],
        torch.tensor([1.0]).expand(3, 4),
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last) + 1,
        torch.ones(2, requires_grad=True) * 2,
        torch.view_as_complex(torch.ones(3, 2)).conj().imag,
        torch.tensor(3.5),
        torch.zeros(0, 3),
        torch.arange(2.0)[::2],
        torch._neg_view(torch.arange(3.0)),
    ],
    ids=[
        "transposed",
        "strided",
        "expanded",
        "channels last",
        "graph",
        "negative",
        "0-d",
        "empty",
        "one item of any stride",
        "negated view",
    ],
)
def test_any_dense_tensor_comes_back_equal(tensor):
    image = build_image({"t": tensor})
    back = tensor_view(bytes_of(image), image.entries["t"])

    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_float4_counts_two_items_a_byte(tmp_path):
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this torch has no float4")
    packed = torch.arange(6, dtype=torch.uint8).reshape(2, 3).view(torch.float4_e2m1fn_x2)
    image = build_image({"t": packed})

    assert image.entries["t"].shape == (2, 6)
    back = tensor_view(bytes_of(image), image.entries["t"])
    theirs = safetensors.torch.load_file(write(image, tmp_path / "f4.safetensors"))["t"]
    assert back.shape == theirs.shape == packed.shape
    assert torch.equal(back.view(torch.uint8), theirs.view(torch.uint8))


def test_view_is_zero_copy_and_keeps_the_buffer_alive():
    data = bytearray(b"\0" * 64 + np.arange(4, dtype=np.float32).tobytes())
    view = tensor_view(data, HeaderEntry(dtype="F32", shape=(4,), offset=64, size_bytes=16))
    data[64:68] = np.float32(9).tobytes()

    with pytest.raises(BufferError):
        data.clear()
    del data
    assert view.tolist() == [9.0, 1.0, 2.0, 3.0]


@pytest.mark.slow
def test_view_of_read_only_memory_does_not_warn():
    script = (
        "import warnings; warnings.simplefilter('error')\n"
        "from weightslab.engine.tensors.image import HeaderEntry, tensor_view\n"
        "entry = HeaderEntry(dtype='I64', shape=(2,), offset=0, size_bytes=16)\n"
        "print(tensor_view(bytes(16), entry).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[0, 0]\n", "")


def test_unaligned_tensor_is_read_through_a_copy():
    data = b"\0" + np.array([5.0, 6.0], np.float64).tobytes()

    view = tensor_view(data, HeaderEntry(dtype="F64", shape=(2,), offset=1, size_bytes=16))
    assert view.tolist() == [5.0, 6.0]
    assert view.data_ptr() % 8 == 0


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (("F32", (2,), 60, 8), TruncatedError),
        (("F32", (2,), 2**70, 8), TruncatedError),
        (("F32", (2,), 0, 4), InvalidManifestError),
        (("F32", (2**62, 4), 0, 8), InvalidManifestError),
        (("F6_E2M3", (4,), 0, 3), FormatError),
        (("float32", (2,), 0, 8), FormatError),
        (("F4", (3, 2, 1), 0, 3), InvalidManifestError),
    ],
)
def test_record_that_cannot_be_right_is_refused(entry, error):
    dtype, shape, offset, size_bytes = entry

    with pytest.raises(error):
        tensor_view(
            bytes(64),
            HeaderEntry(dtype=dtype, shape=shape, offset=offset, size_bytes=size_bytes),
        )


def test_reserved_name_is_refused():
    with pytest.raises(NotStorableError, match="__metadata__"):
        build_image({"__metadata__": torch.zeros(1)})


def test_empty_image_is_a_file_that_safetensors_reads(tmp_path):
    image = build_image({})
    file, tensors = image.records("x", "model")

    assert tensors == {}
    assert file.size_bytes == file.header_size_bytes == 64
    assert safetensors.torch.load_file(write(image, tmp_path / "none.safetensors")) == {}
