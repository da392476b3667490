"""File images and safetensors: what goes in comes out bit for bit, whichever of them reads it."""

import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.training import bits

from weightslab.engine.tensors.check import verify_file
from weightslab.engine.tensors.image import build_image, read_header, tensor_view

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.complex64, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)


@st.composite
def tensors(draw):
    """A tensor of any dtype and shape; empty, 0-d, transposed, strided or offset."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = int(torch.Size(shape).numel())
    item = torch.empty(0, dtype=dtype).itemsize
    raw = draw(st.binary(min_size=(count + 2) * item, max_size=(count + 2) * item))
    if dtype == torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype)
    start = draw(st.integers(0, 2))
    plain = flat[start : start + count].reshape(shape)
    if len(shape) > 1 and draw(st.booleans()):
        plain = plain.transpose(0, -1)
    if shape and shape[0] and draw(st.booleans()):
        plain = plain[:: draw(st.integers(1, 2))]
    return plain


def file_of(image):
    return memoryview(b"".join(image.parts))


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=5))
def test_every_tensor_comes_back_bit_for_bit(state):
    image = build_image(state)
    data = file_of(image)
    file, records = image.records("f.safetensors", "model")
    verify_file(data, file, records)
    found = {name: tensor_view(data, record) for name, record in records.items()}
    found |= {name: found[kept] for name, kept in image.aliases.items()}
    assert bits(found) == bits(state)
    assert len(data) == image.size_bytes == file.size_bytes


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=5))
def test_safetensors_reads_the_same(state):
    image = build_image(state)
    found = safetensors.torch.load(bytes(file_of(image)))
    found |= {name: found[kept] for name, kept in image.aliases.items()}
    assert bits(found) == bits(state)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=5))
def test_files_of_safetensors_have_a_header_that_is_read_here(state):
    data = safetensors.torch.save({name: t.contiguous().clone() for name, t in state.items()})
    header = read_header(memoryview(data), what="f")
    assert {name: entry.shape for name, entry in header.entries.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, tensors(), min_size=1, max_size=4), st.data())
def test_tied_tensors_are_stored_once(state, data):
    original = data.draw(st.sampled_from(sorted(state)))
    tied = state | {"tied/again": state[original]}
    image = build_image(tied)
    if state[original].numel():
        assert "tied/again" in {*image.aliases, *image.aliases.values()}
        assert set(image.entries) | set(image.aliases) == set(tied)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=4))
def test_equal_states_make_equal_files_whatever_their_strides(state):
    plain = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    apart = {name: tensor.clone() for name, tensor in state.items()}
    assert bytes(file_of(build_image(plain))) == bytes(file_of(build_image(apart)))
