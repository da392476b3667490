"""Component files: an exchanged file is damage, however valid it is in itself."""

import shutil

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError

FILES = {
    "architecture.json": ("model/{}_architecture.json", "architecture"),
    "architecture.txt": ("model/{}_architecture.txt", None),
    "config": ("hp/{}_config.yaml", None),
    "later config": ("hp/{}_config.r2.yaml", "config"),
    "samples": ("data/{}_samples.h5", "samples"),
    "sidecar": ("data/{}_samples.h5.json", "samples"),
    "record": ("experiment.json", "config"),
}


@pytest.fixture
def two(tmp_path):
    """Two experiments that differ in everything, each with a second config."""
    manager = CheckpointManagerV2(tmp_path)
    hashes = []
    for number in (1, 2):
        found = manager.update_experiment_hash(
            torch.nn.Linear(number, 1), {"lr": number}, range(number)
        )
        manager.save_config({"lr": number, "note": f"run {number}"})
        hashes.append(found.exp_hash)
    return manager.root, hashes


@pytest.mark.parametrize("name", FILES)
def test_file_of_another_experiment_is_noticed_by_verify_and_by_its_reader(two, name):
    root, (one, other) = two
    assert root.verify() == []
    pattern, reader = FILES[name]
    folder = root.path / "checkpoints"
    shutil.copy(folder / other / pattern.format(other), folder / one / pattern.format(one))
    root.refresh()
    assert [finding.key for finding in root.verify(one)] != []
    assert root.verify(other) == []
    if reader is not None:
        with pytest.raises(CheckpointError):
            getattr(root, reader)(one)


def test_samples_and_sidecar_of_another_experiment_together_are_noticed(two):
    root, (one, other) = two
    for pattern in ("data/{}_samples.h5", "data/{}_samples.h5.json"):
        folder = root.path / "checkpoints"
        shutil.copy(folder / other / pattern.format(other), folder / one / pattern.format(one))
    with pytest.raises(CheckpointError):
        root.samples(one)
