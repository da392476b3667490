"""Pickles of others: plain data comes in, everything else is refused by name."""

import os
import zipfile

import numpy as np
import pytest
import torch

from weightslab.engine.errors import FormatError, TruncatedError, UnsafePickleError
from weightslab.formats.held import hold_file
from weightslab.formats.pickles import load_pickle, stand_in


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load(path, **options):
    with hold_file(path) as held:
        return load_pickle(held, **options)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.pt"


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_numbers_and_arrays_come_in(file, is_zip):
    state = {
        "w": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "rng": np.arange(3, dtype=np.uint32),
        "mean": np.float64(0.5),
        "step": 7,
    }
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    found = load(file)
    assert torch.equal(found["w"], state["w"])
    assert torch.equal(found["b"], state["b"])
    assert found["rng"].tolist() == [0, 1, 2]
    assert (found["mean"], found["step"]) == (0.5, 7)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_that_calls_code_is_refused_by_name_and_not_run(file, tmp_path, is_zip):
    torch.save({"w": Evil(tmp_path / "made")}, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(
        UnsafePickleError, match=r"would make a posix.mkdir, which may run code; if"
    ):
        load(file)
    assert not (tmp_path / "made").exists()


def test_trust_runs_what_the_pickle_names(file, tmp_path):
    torch.save({"w": Evil(tmp_path / "made")}, file)
    load(file, trust=True)
    assert (tmp_path / "made").is_dir()


def test_a_stand_in_takes_the_place_of_a_class_that_is_not_installed(file):
    import sys
    import types

    module = types.ModuleType("their_package")
    kind, _ = stand_in("their_package.Mode", {"OFF": "off"})
    kind.__module__, module.Mode = "their_package", kind
    sys.modules["their_package"] = module
    try:
        torch.save({"mode": kind.OFF}, file)
    finally:
        del sys.modules["their_package"]
    with pytest.raises(UnsafePickleError, match=r"their_package\.Mode"):
        load(file)
    mine = stand_in("their_package.Mode", {"OFF": "off"})
    assert load(file, stand_ins=(mine,))["mode"].value == "off"
    with pytest.raises(UnsafePickleError, match=r"their_package\.Mode"):
        load(file)  # it was allowed for one call


@pytest.mark.parametrize("size_bytes", [1, 3, 40, 300, 600])
def test_a_file_that_was_cut_is_told(file, size_bytes):
    torch.save({"w": torch.zeros(100)}, file)
    file.write_bytes(file.read_bytes()[:size_bytes])
    with pytest.raises((TruncatedError, FormatError), match=r"a\.pt"):
        load(file)


def test_an_empty_file_is_told(file):
    file.touch()
    with pytest.raises(TruncatedError, match=r"a\.pt is empty"):
        load(file)


def test_a_file_of_another_kind_is_told(file):
    file.write_bytes(b"\x89PNG\r\n" + bytes(100))
    with pytest.raises(FormatError, match=r"a\.pt"):
        load(file)


def test_a_file_under_a_password_is_told(file):
    torch.save({"w": torch.zeros(3)}, file)
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02")  # the first entry of the central directory
    data[at + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(FormatError, match="is protected by a password; unpack it first"):
        load(file)


def test_a_file_that_swells_is_refused(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(FormatError, match="says it holds far more than its"):
        load(file)
