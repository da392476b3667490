"""File images: whatever goes in comes out bit for bit, here and through safetensors itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.errors import FormatError, TruncatedError
from weightslab.engine.tensors.check import verify_file
from weightslab.engine.tensors.dtypes import dtype_name, torch_dtype
from weightslab.engine.tensors.header import ITEM_BITS, read_header
from weightslab.engine.tensors.image import build_image, tensor_view

MODEST = settings(max_examples=100, deadline=None)
DTYPES = [torch_dtype(n) for n in ITEM_BITS if not n.startswith("F6_") and n != "F4"]

names = st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda n: n != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def bits(tensor):
    """The bytes of a tensor in the order of its items."""
    plain = tensor.resolve_conj().clone(memory_format=torch.contiguous_format).reshape(-1)
    return bytes(plain.view(torch.uint8).numpy()) if plain.numel() else b""


@st.composite
def tensors(draw):
    """A tensor of any dtype, of any bits, in one of several memory layouts."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
    count = torch.Size(shape).numel()
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if dtype is torch.bool:  # other bytes are no bool
        raw = bytes(b & 1 for b in raw)
    flat = torch.tensor(list(raw), dtype=torch.uint8)
    tensor = (flat.view(dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
    layout = draw(st.sampled_from(["plain", "transposed", "sliced", "expanded", "conjugated"]))
    if layout == "transposed":
        return tensor.permute(tuple(reversed(range(tensor.ndim))))
    if layout == "sliced" and tensor.ndim:
        return tensor[::2]
    if layout == "expanded":
        return tensor.expand(2, *shape)
    return tensor.conj() if layout == "conjugated" else tensor


@st.composite
def states(draw):
    """name -> tensor, some of them tied."""
    state = draw(st.dictionaries(names, tensors(), max_size=5))
    for name in draw(st.lists(names, max_size=2)):
        if state:
            state[name] = state[draw(st.sampled_from(sorted(state)))]
    return state


@MODEST
@given(states())
def test_every_state_comes_back_bit_for_bit(state):
    image = build_image(state)
    file, records = image.records("x.safetensors", "model")
    data = b"".join(image.parts)
    verify_file(data, file, records)

    assert set(records) | set(image.aliases) == set(state)
    for name, tensor in state.items():
        back = tensor_view(data, records[image.aliases.get(name, name)])
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        assert bits(back) == bits(tensor)


@MODEST
@given(states())
def test_safetensors_reads_the_same_file(state):
    image = build_image(state)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(b"".join(image.parts))
        theirs = safetensors.torch.load_file(path)

    assert set(theirs) == set(image.entries)
    for name, back in theirs.items():
        entry = image.entries[name]
        assert (dtype_name(back.dtype), back.shape) == (entry.dtype, state[name].shape)
        assert bits(back) == bits(state[name])


@MODEST
@given(states())
def test_files_of_safetensors_are_read_here(state):
    kept = {
        name: tensor.resolve_conj().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    data = safetensors.torch.save(kept)
    header = read_header(data, what="x")

    assert set(header.entries) == set(kept)
    for name, entry in header.entries.items():
        assert bits(tensor_view(data, entry)) == bits(kept[name])


@MODEST
@given(states(), st.integers(0, 2**32), st.integers(1, 255))
def test_damaged_header_never_leads_outside_the_file(state, place, change):
    image = build_image(state)
    data = bytearray(b"".join(image.parts))
    data[place % len(image.parts[0])] ^= change
    try:
        header = read_header(data, what="x")
    except (FormatError, TruncatedError):
        return
    for entry in header.entries.values():
        if not entry.dtype.startswith(("F6_", "F4")):
            view = tensor_view(data, entry)
            assert view.numel() * ITEM_BITS[entry.dtype] == entry.size_bytes * 8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_has_a_case(dtype):
    tensor = torch.arange(8 * dtype.itemsize, dtype=torch.uint8)
    tensor = (tensor % 2 if dtype is torch.bool else tensor).view(dtype).reshape(2, 4)
    image = build_image({"t": tensor.t()})

    assert bits(tensor_view(b"".join(image.parts), image.entries["t"])) == bits(tensor.t())
