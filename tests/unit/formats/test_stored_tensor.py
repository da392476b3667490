"""The tensor of a file in a file is used where it lies, whatever its form."""

import contextlib
import pickle
import zipfile

import pytest
import torch

from weightslab.engine.errors import CheckpointError, FormatError, UnsafePickleError
from weightslab.formats.held import hold_file
from weightslab.formats.stored_tensor import load_tensor


def held(folder, write):
    """Hold what `write(path)` writes, with other bytes before and behind."""
    write(folder / "inner")
    data = (folder / "inner").read_bytes()
    (folder / "outer").write_bytes(b"xyz" + data + b"more")
    return hold_file(folder / "outer"), len(data)


def load(folder, tensor):
    whole, size = held(folder, lambda path: torch.save(tensor, path))
    return load_tensor(whole.part(3, size)), whole


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6).reshape(2, 3).t(),
        torch.arange(10.0)[3:9:2],
        torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.tensor(5, dtype=torch.int16),
        torch.ones(3, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.ones(2).expand(3, 2),
        torch.nn.Parameter(torch.ones(2)),
        torch.tensor([1 + 2j]),
        torch.tensor([1 + 2j]).conj(),
    ],
)
def test_a_tensor_comes_back_as_it_was(tmp_path, tensor):
    found, _ = load(tmp_path, tensor)
    assert torch.equal(found, tensor)
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)


def test_it_looks_at_the_held_bytes(tmp_path):
    tensor = torch.arange(1000.0)
    found, whole = load(tmp_path, tensor)
    at = bytes(whole.view).index(tensor.numpy().tobytes())
    whole.view[at : at + 4] = torch.tensor(-1.0).numpy().tobytes()
    assert found[0] == -1


def test_what_is_no_tensor_comes_back_too(tmp_path):
    assert load(tmp_path, {"a": 1})[0] == {"a": 1}
    assert load(tmp_path, [torch.ones(1), torch.zeros(1)])[0] == [torch.ones(1), torch.zeros(1)]


def test_a_storage_that_is_too_short_is_refused(tmp_path):
    def write(path):
        torch.save(torch.ones(100), tmp_path / "whole")
        with zipfile.ZipFile(tmp_path / "whole") as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.infolist():
                data = old.read(entry)
                new.writestr(entry.filename, data[:40] if "/data/" in entry.filename else data)

    whole, size = held(tmp_path, write)
    with pytest.raises(FormatError):
        load_tensor(whole.part(3, size))


def test_a_compressed_storage_is_read_the_long_way_or_refused(tmp_path):
    def write(path):
        torch.save(torch.ones(2), tmp_path / "whole")
        whole, packed = tmp_path / "whole", zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", packed) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))

    whole, size = held(tmp_path, write)
    with contextlib.suppress(CheckpointError):
        assert torch.equal(load_tensor(whole.part(3, size)), torch.ones(2))


def test_a_file_of_an_old_torch_is_read_too(tmp_path):
    def write(path):
        torch.save(torch.ones(2), path, _use_new_zipfile_serialization=False)

    whole, size = held(tmp_path, write)
    assert torch.equal(load_tensor(whole.part(3, size)), torch.ones(2))


def test_code_is_refused(tmp_path):
    whole, size = held(tmp_path, lambda path: torch.save(print, path))
    with pytest.raises(UnsafePickleError, match="print"):
        load_tensor(whole.part(3, size))
    whole, size = held(tmp_path, lambda path: path.write_bytes(pickle.dumps(print)))
    with pytest.raises(FormatError):
        load_tensor(whole.part(3, size))
