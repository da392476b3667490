"""Golden roots: what an old release wrote is read by this one, whatever it has become."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from weightslab.components import CheckpointManagerV2
from weightslab.engine.root import CheckpointRoot

HERE = Path(__file__).parent
VERSIONS = sorted(p.name for p in HERE.glob("v*"))
_spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)


@pytest.fixture(params=VERSIONS)
def place(request, tmp_path):
    """Copy the golden folder, so that nothing can change it."""
    shutil.copytree(HERE / request.param, tmp_path / "golden")
    return tmp_path / "golden"


@pytest.fixture
def expected(place):
    return json.loads((place / "expected.json").read_text())


@pytest.fixture
def root(place):
    return CheckpointRoot(place / "root", read_only=True)


def test_there_is_a_golden_root_for_the_format_of_today():
    assert VERSIONS == ["v1"]


def test_every_byte_of_it_verifies(root):
    assert root.verify() == []


def test_its_experiments_and_their_difference_are_found(root, expected):
    assert root.list_hashes() == expected["hashes"]
    assert [c.text for c in root.changes(*root.list_hashes()[:2])] == expected["changes"]


def test_its_checkpoints_are_listed_in_the_order_of_commit(root, expected):
    found = [
        (e.name.exp_hash, e.name.step, e.name.revision, e.sequence) for e in root.checkpoints()
    ]
    assert found == [
        (c["exp_hash"], c["step"], c["revision"], c["sequence"]) for c in expected["checkpoints"]
    ]


def test_its_metrics_and_parents_are_read(root, expected):
    for entry, saved in zip(root.checkpoints(), expected["checkpoints"], strict=True):
        loss = saved["metrics"]["loss"]
        assert entry.metrics["loss"] == loss or math.isnan(loss)
        assert entry.parent.step == saved["parent_step"]


def test_its_tensors_load_bit_for_bit(place, expected):
    manager = CheckpointManagerV2(place / "root", read_only=True)
    for saved in expected["checkpoints"]:
        model, optimizer = golden.build()
        manager.load_checkpoint(
            saved["step"], saved["exp_hash"], model, optimizer=optimizer, revision=saved["revision"]
        )
        assert {k: golden.digest_of(v) for k, v in model.state_dict().items()} == saved["model"]
        moments = optimizer.state_dict()["state"]
        found = {str(k): golden.digest_of(v["exp_avg"]) for k, v in moments.items()}
        assert found == saved["exp_avg"]


def test_its_samples_config_and_metadata_are_read(place, root, expected):
    first = expected["hashes"][0]
    assert set(root.samples(first)) == {*range(20), "a/b.png", "\u00fc.png", "007"}
    assert root.config(first)["comment"] == "later"
    assert root.config(first, step=10) == {
        "lr": 1e-2,
        "betas": [0.9, 0.999],
        "name": "golden",
        "root_log_dir": "x",
    }
    model, _ = golden.build()
    manager = CheckpointManagerV2(place / "root", read_only=True)
    found = manager.load_checkpoint(10, first, model, load_optimizer=False)
    assert found["metadata"] == {"note": (1, b"\x00", None)}


def test_its_samples_that_are_a_delta_are_read(root, expected):
    whole, delta = (root.samples(exp_hash) for exp_hash in expected["hashes"][2:])
    added, removed = whole.difference(delta)
    assert (list(added), list(removed)) == ([7, "8000", "new"], [5, "a/b.png"])
    assert (list(whole.discarded), list(delta.discarded)) == ([7], [5, "a/b.png"])
    assert (len(whole), len(delta), delta.facets) == (6000, 6001, ("labels",))
    folder = root.path / "checkpoints" / expected["hashes"][3] / "data"
    assert sorted(p.name[17:] for p in folder.iterdir()) == [
        "samples.base.h5",
        "samples.base.h5.json",
        "samples.h5",
        "samples.h5.json",
    ]


def test_its_weights_are_plain_safetensors(place, expected):
    first = expected["checkpoints"][0]
    stem = f"{first['exp_hash']}_step_000010"
    file = place / "root" / "checkpoints" / first["exp_hash"] / "model" / f"{stem}.safetensors"
    tensors = load_file(file)
    assert tensors["scale"].dtype == torch.bfloat16
    assert golden.digest_of(tensors["0.weight"]) == first["model"]["0.weight"]


def test_checkpoints_that_share_tensors_are_read_each_for_itself(place):
    """A copy through git has no links left: every name is a file of its own."""
    root = CheckpointRoot(place / "reused", read_only=True)
    files = json.loads((place / "reused.json").read_text())
    assert files == {
        "1": ["json", "safetensors"],
        "2": ["json", "partial.safetensors", "stable.safetensors"],
        "3": ["json", "partial.safetensors", "ref1.safetensors"],
    }
    assert root.verify() == []
    model = golden.build_half_frozen()
    with CheckpointManagerV2(place / "reused", read_only=True) as manager:
        for step in (1, 2, 3):
            manager.load_checkpoint(step, model=model)
            assert model.trained.eq(step).all()
            assert model.frozen.eq(0).all()
