"""Tensors of CUDA devices in a snapshot; where there is no device, host tensors play their part."""

import contextlib
import mmap

import pytest
import torch
from safetensors.torch import load

from weightslab.components import CheckpointManagerV2
from weightslab.engine.saving import device, snapshot
from weightslab.engine.saving.buffers import HostBuffers
from weightslab.engine.saving.device import copy_from_devices
from weightslab.engine.saving.snapshot import hold_still, take_snapshot
from weightslab.engine.tensors import image
from weightslab.engine.tensors.image import build_image
from weightslab.engine.training.state import ModelState

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Driver:
    """Notes which memory was pinned and unpinned."""

    def __init__(self):
        self.pinned, self.unpinned = [], []

    def pin(self, buffer):
        self.pinned.append(buffer)
        return lambda: self.unpinned.append(buffer)


@pytest.fixture
def driver(monkeypatch):
    """Have float64 tensors count as tensors of a device, copied on a stream that notes its use."""
    found = Driver()
    found.waits = []

    @contextlib.contextmanager
    def beside(where):
        yield lambda: found.waits.append(where)

    monkeypatch.setattr(image, "_is_copied_later", lambda t: t.dtype == torch.float64)
    monkeypatch.setattr(image, "_NUMPY_DTYPES", image._NUMPY_DTYPES - {torch.float64})
    monkeypatch.setattr(device, "_beside", beside)
    monkeypatch.setattr(snapshot, "pin", found.pin)
    return found


def tensors():
    return {
        "far": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,  # not contiguous
        "near": torch.arange(5, dtype=torch.float32),
        "none": torch.empty(0, dtype=torch.float64),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }


def held(found, buffers):
    images = take_snapshot({"model": ModelState(tensors=found)}, None).images
    return hold_still(images, buffers)


def test_bytes_of_a_device_are_in_the_file_at_their_place(driver):
    found = tensors()
    images, _ = held(found, HostBuffers(keep=1))
    loaded = load(bytes(images["model"].whole))
    assert loaded.keys() == found.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.items())
    assert driver.waits == [torch.device("cpu")]  # once for all tensors of a device


def test_a_held_image_has_the_digests_of_one_from_the_host(driver, monkeypatch):
    found = tensors()
    images, _ = held(found, HostBuffers(keep=1))
    monkeypatch.setattr(image, "_is_copied_later", lambda t: False)
    plain = build_image(found)
    assert images["model"].records("f", "model") == plain.records("f", "model")


def test_values_changed_after_the_copy_are_not_in_the_file(driver):
    found = tensors()
    images, _ = held(found, HostBuffers(keep=1))
    for tensor in found.values():
        tensor.fill_(7)
    loaded = load(bytes(images["model"].whole))
    assert loaded["scalar"].item() == 2.5


def test_an_image_of_a_device_cannot_be_hashed_where_it_lies(driver):
    with pytest.raises(AssertionError, match="place the image first"):
        build_image(tensors()).records("f", "model")


def test_memory_is_pinned_once_and_unpinned_before_it_is_given_back(driver):
    buffers = HostBuffers(keep=1)
    for _ in range(3):
        _, give_back = held(tensors(), buffers)
        give_back()
    assert len(driver.pinned) == 1
    assert isinstance(driver.pinned[0], mmap.mmap)
    assert driver.unpinned == []
    buffers.clear()
    assert driver.unpinned == driver.pinned


def test_memory_that_is_too_small_or_too_much_is_unpinned(driver):
    buffers = HostBuffers(keep=1)
    first = buffers.take(10, pin=driver.pin)
    second = buffers.take(10, pin=driver.pin)
    buffers.give(first)
    buffers.give(second)  # one is kept
    assert driver.unpinned == [second]
    buffers.take(10_000_000, pin=driver.pin)
    assert driver.unpinned == [second, first]


def test_a_host_snapshot_pins_nothing(driver):
    held({"near": torch.ones(3)}, HostBuffers(keep=1))
    assert driver.pinned == []


@pytest.mark.parametrize("async_save", [False, True])
def test_a_model_on_a_device_is_saved_and_loaded(driver, tmp_path, async_save):
    model = torch.nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with CheckpointManagerV2(tmp_path, async_save=async_save) as manager:
        manager.update_experiment_hash(model)
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        manager.load_checkpoint(1, model=model, optimizer=optimizer)
        assert list(manager.root.verify()) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(driver.pinned) == 1
    assert driver.unpinned == driver.pinned


def test_a_driver_that_refuses_to_pin_is_a_warning(monkeypatch, caplog):
    class Refusing:
        def cudaHostRegister(self, address, size, flags):  # the name is CUDA's
            return 2

    monkeypatch.setattr(torch.cuda, "cudart", Refusing)
    device.pin(mmap.mmap(-1, 4096))()
    assert "cannot be pinned (CUDA error 2)" in caplog.text


def test_pinned_memory_is_unpinned_at_its_address(monkeypatch):
    calls = []

    class Noting:
        def cudaHostRegister(self, address, size, flags):
            calls.append(("register", address, size))
            return 0

        def cudaHostUnregister(self, address):
            calls.append(("unregister", address))
            return 0

    monkeypatch.setattr(torch.cuda, "cudart", Noting)
    device.pin(mmap.mmap(-1, 8192))()
    (_, address, size), (_, released) = calls
    assert (size, released, address % mmap.PAGESIZE) == (8192, address, 0)


@needs_cuda
def test_a_device_copies_into_pinned_memory_what_was_queued_before():
    tensor = torch.zeros(1 << 20, device="cuda")
    for _ in range(100):
        tensor += 1
    images, give_back = held({"far": tensor}, HostBuffers(keep=1))
    tensor.zero_()
    assert load(bytes(images["model"].whole))["far"].unique().tolist() == [100.0]
    give_back()


@needs_cuda
def test_copies_of_several_tensors_are_complete_on_return():
    found = [torch.full((1000,), float(n), device="cuda") for n in range(5)]
    places = [bytearray(4000) for _ in found]
    pairs = [
        (memoryview(place), image._bytes_of(tensor))
        for place, tensor in zip(places, found, strict=True)
    ]
    copy_from_devices(pairs)
    values = [torch.frombuffer(place, dtype=torch.float32)[0].item() for place in places]
    assert values == [0.0, 1.0, 2.0, 3.0, 4.0]
