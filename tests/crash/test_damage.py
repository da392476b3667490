"""Every flipped bit, cut, zeroed block and exchange of every file of a root is noticed.

By whatever reads the file, and by `verify`. The journal is left out, and so is the catalog: they are
not what a checkpoint is made of.
"""

import itertools
import random

import h5py
import numpy as np
import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.loading.reading import read_state
from weightslab.engine.repository import layout, reuse, sample_base
from weightslab.engine.repository.catalog import ScanCatalog, read_manifest
from weightslab.engine.repository.component_file import (
    read_architecture,
    read_architecture_text,
    read_config,
    read_samples,
)
from weightslab.engine.repository.data_file import read_data_file
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.layout import parse_checkpoint_file
from weightslab.engine.repository.provenance import read_provenance
from weightslab.engine.repository.verify import verify_checkpoint, verify_experiment
from weightslab.engine.saving import drafting
from weightslab.engine.storage.memory import MemoryStore

FEW = 100  # flips of each file in the fast set


def small_limits(patch):
    """Have small tensors reused and small sample sets stored as deltas: few bits in every class.

    The random state is 5 kB of bytes like others.
    """
    patch.setattr(drafting, "capture_random", lambda: {"bytes": torch.zeros(8)})
    patch.setattr(reuse, "_MIN_BYTES", 1)
    patch.setattr(sample_base, "MIN_FOR_DELTA", 4)


def fill(path):
    """Make a root with every kind of file, in two experiments."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(17, 16, bias=False), torch.nn.Linear(16, 17))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(2, 17)).square().sum().backward()
    optimizer.step()
    samples = SampleSet.from_uids(range(64))
    with h5py.File(path / "table.h5", "w") as table:
        table["x"] = np.arange(3)
    with CheckpointManagerV2(path / "root") as manager:
        manager.update_experiment_hash(model, {"lr": 0.1}, samples)
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metrics={"loss": 1})
        with torch.no_grad():
            model[1].weight.add_(1)
        manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
        samples.discard([3])
        manager.update_experiment_hash(model, {"lr": 0.2}, samples)
        manager.save_config({"lr": 0.2, "note": 1})
        manager.save_data_backup(path / "table.h5")
        model[0].weight.data.mul_(2)
        manager.save_model_checkpoint(model, step=3, optimizer=optimizer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The root in memory, and the records of its experiments."""
    path = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        small_limits(patch)
        fill(path)
    store = MemoryStore()
    for file in (path / "root" / "checkpoints").rglob("*"):
        if file.is_file():
            store.put(file.relative_to(path / "root").as_posix(), [file.read_bytes()])
    records = {}
    for exp_hash in ScanCatalog(store).exp_hashes():
        data = store.map(layout.experiment_key(exp_hash))
        records[exp_hash] = ExperimentRecord.from_bytes(data, exp_hash=exp_hash)
    return store, records


def keys_of(store, prefix=layout.CHECKPOINTS):
    found = []
    for name in store.list(prefix):
        found += keys_of(store, prefix + name) if name.endswith("/") else [prefix + name]
    return found


def kind_of(key):
    """Return what a key is without hash and step: `model.training.safetensors`."""
    name = key.rpartition("/")[2]
    if "/provenance/" in key:
        return "provenance.json"
    parsed = parse_checkpoint_file(name)
    return f"step.{parsed[1]}" if parsed else name.partition("_")[2] or name


def test_the_root_has_every_kind_of_file_and_nothing_is_wrong_with_it(whole):
    store, records = whole
    assert {kind_of(key) for key in keys_of(store)} == {
        "experiment.json", "architecture.json", "architecture.txt", "config.yaml", "config.r2.yaml",
        "samples.h5", "samples.h5.json", "samples.base.h5", "samples.base.h5.json", "table.h5",
        "table.h5.json", "step.json", "step.safetensors", "step.training.safetensors",
        "step.ref1.safetensors", "step.ref2.safetensors",
        "step.training.partial.safetensors", "step.stable.safetensors", "step.partial.safetensors", "provenance.json",
    }  # fmt: skip
    assert [(key, is_noticed(store, records, key)) for key in keys_of(store)] == [
        (key, (False, False)) for key in keys_of(store)
    ]


def findings(store, key):
    """Return what `verify` says about the experiment or checkpoint that a file belongs to."""
    exp_hash, name = key.split("/")[1], key.rpartition("/")[2]
    parsed = parse_checkpoint_file(name)
    if parsed is not None:
        return verify_checkpoint(store, parsed[0])
    return verify_experiment(store, exp_hash)


def read(store, records, key):
    """Read a file as the package does when somebody wants what is in it."""
    exp_hash, name = key.split("/")[1], key.rpartition("/")[2]
    record, parsed = records[exp_hash], parse_checkpoint_file(name)
    if parsed is not None:
        read_state(store, read_manifest(store, parsed[0]))
    elif "/provenance/" in key:
        read_provenance(store, exp_hash, key)
    elif name == "experiment.json":
        ExperimentRecord.from_bytes(store.map(key), exp_hash=exp_hash)
    elif name.endswith(".yaml"):
        read_config(store, record, file=name)
    elif name.endswith("architecture.json"):
        read_architecture(store, record)
    elif name.endswith("architecture.txt"):
        read_architecture_text(store, exp_hash)
    elif "_samples." in name:
        read_samples(store, record)
    else:
        read_data_file(store, key.removesuffix(".json"))


def is_noticed(store, records, key):
    """Return whether (a reader, `verify`) notices that something is wrong with a file."""
    try:
        read(store, records, key)
    except CheckpointError:
        return True, bool(findings(store, key))
    return False, bool(findings(store, key))


def unnoticed(store, records, key, versions):
    """Return the labels of versions of a file that are not noticed by both; how many there were."""
    good, missed, count = bytes(store.map(key)), [], 0
    # a load reads of a reused file what this checkpoint needs: not its header, nor what else it holds
    expected = (False, True) if ".ref" in key or ".stable" in key else (True, True)
    try:
        for label, bad in versions(good):
            store.put(key, [bad])
            count += 1
            seen = is_noticed(store, records, key)
            missed += [] if seen >= expected else [(label, *seen)]
    finally:
        store.put(key, [good])
    return missed, count


def flips(good, few):
    # a step that is prime to 8 goes through all positions within a byte
    step = 1 if few is None else max(1, len(good) * 8 // few) | 1
    for place in range(0, len(good) * 8, step):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        yield place, bad


def cuts(good, few):
    step = 1 if few is None else max(1, len(good) * 4 // few)
    for size in range(0, len(good), step):
        yield f"cut to {size}", good[:size]
    yield "a byte more", good + b"\0"
    yield "twice", good + good


def zeroed(good):
    for block in (16, 512, 4096):
        for start in range(0, len(good), block):
            bad = good[:start] + bytes(len(good[start : start + block])) + good[start + block :]
            if bad != good:
                yield f"{block} zeros at {start}", bad


def check_all(whole, few, record_property):
    store, records = whole
    missed, count = [], 0
    for key in keys_of(store):
        for versions in (lambda g: flips(g, few), lambda g: cuts(g, few), zeroed):
            found, number = unnoticed(store, records, key, versions)
            missed += [(kind_of(key), *one) for one in found]
            count += number
    record_property("damaged", count)
    assert missed == []
    return count


@pytest.mark.slow
def test_some_damage_to_every_file_is_noticed(whole, record_property):
    assert check_all(whole, FEW, record_property) > 2500


@pytest.mark.crash_long
@pytest.mark.timeout(3600)
def test_every_bit_and_every_cut_of_every_file_is_noticed(whole, record_property):
    assert check_all(whole, None, record_property) > 200_000


@pytest.mark.slow
def test_two_files_that_changed_places_are_both_noticed(whole, record_property):
    store, records = whole
    contents = {key: bytes(store.map(key)) for key in keys_of(store)}
    pairs = [p for p in itertools.combinations(contents, 2) if contents[p[0]] != contents[p[1]]]
    alike = [(a, b) for a, b in pairs if kind_of(a) == kind_of(b)]
    others = random.Random(3).sample([p for p in pairs if p not in alike], 200)
    missed = []
    for one, other in alike + others:
        store.put(one, [contents[other]])
        store.put(other, [contents[one]])
        missed += [(k, one, other) for k in (one, other) if not is_noticed(store, records, k)[1]]
        store.put(one, [contents[one]])
        store.put(other, [contents[other]])
    record_property("swapped", len(alike + others))
    assert missed == []
    assert len(alike) >= 8
