"""Every flipped bit, and every cut, of every file of a small root is noticed."""

import pytest
import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError
from weightslab.engine.jsonform import unseal, unseal_text
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.verify import verify_checkpoint, verify_experiment
from weightslab.engine.storage.memory import MemoryStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small root in memory: the store, and the name of its only checkpoint."""
    root = tmp_path_factory.mktemp("flips")
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    with CheckpointManagerV2(root) as manager:
        exp_hash, _ = manager.update_experiment_hash(model, {"lr": 0.1}, range(5))
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metrics={"loss": 1})
    store = MemoryStore()
    for path in root.rglob("*"):
        if path.is_file() and "logs" not in path.parts:
            store.put(path.relative_to(root).as_posix(), [path.read_bytes()])
    return store, CheckpointName(exp_hash=exp_hash, step=1)


FILES = {
    "weights": lambda name: name.file_key(name.file_name("model")),
    "training": lambda name: name.file_key(name.file_name("training")),
    "manifest": lambda name: name.manifest_key,
    "record": lambda name: layout.experiment_key(name.exp_hash),
    "config": lambda name: layout.config_key(name.exp_hash),
    "architecture": lambda name: layout.architecture_key(name.exp_hash),
    "picture": lambda name: layout.architecture_key(name.exp_hash, "txt"),
    "samples": lambda name: layout.data_key(name.exp_hash),
    "sidecar": lambda name: layout.data_key(name.exp_hash) + ".json",
}
IN_CHECKPOINT = ("weights", "training", "manifest")
# Who reads one of these opens its seal first; `verify`, which reads all of them at each flip, sees a sample.
SEALS = {
    "record": unseal,
    "architecture": unseal,
    "sidecar": unseal,
    "config": unseal_text,
    "picture": unseal_text,
}
VERIFIED = 1500  # flips


def findings(store, name, file):
    if file in IN_CHECKPOINT:
        return verify_checkpoint(store, name)
    return verify_experiment(store, name.exp_hash)


def is_seal_broken(file, data):
    try:
        SEALS[file](data, what=file)
    except CheckpointError:
        return True
    return False


def test_there_is_no_other_file_and_nothing_is_wrong_with_them(whole):
    store, name = whole
    keys = {make(name) for make in FILES.values()}
    folder = layout.experiment_folder(name.exp_hash)
    assert {
        folder + part + file
        for part in ("", "model/", "hp/", "data/")
        for file in store.list(folder + part)
        if not file.endswith("/")
    } == keys
    assert verify_checkpoint(store, name) + verify_experiment(store, name.exp_hash) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_flipped_bit_is_noticed(whole, file):
    store, name = whole
    key = FILES[file](name)
    good = bytes(store.map(key))
    # the digest of the samples file covers its bytes one like the other: a few of each are enough
    stride = max(1, len(good) * 8 // 6000)
    missed = []
    verified = max(1, len(good) * 8 // VERIFIED) if file in SEALS else stride
    try:
        for place in range(0, len(good) * 8, 1 if file in SEALS else stride):
            bad = bytearray(good)
            bad[place // 8] ^= 1 << place % 8
            if file in SEALS and not is_seal_broken(file, bytes(bad)):
                missed.append(place)
            if place % verified == 0:
                store.put(key, [bad])
                if not findings(store, name, file):
                    missed.append(place)
    finally:
        store.put(key, [good])
    assert missed == []


@pytest.mark.parametrize("file", FILES)
def test_every_cut_and_everything_appended_is_noticed(whole, file):
    store, name = whole
    key = FILES[file](name)
    good = bytes(store.map(key))
    missed = []
    try:
        for bad in [good[:n] for n in range(0, len(good), max(1, len(good) // 200))] + [
            good + b"\0",
            good + b"\n",
            good + good,
            b"\n" + good,
        ]:
            store.put(key, [bad])
            if not findings(store, name, file):
                missed.append(len(bad))
    finally:
        store.put(key, [good])
    assert missed == []


def test_flipped_manifest_is_listed_as_damaged_not_left_out(whole):
    store, name = whole
    good = bytes(store.map(name.manifest_key))
    try:
        store.put(name.manifest_key, [good[:-10] + b"?" + good[-9:]])
        (entry,) = ScanCatalog(store).checkpoints(name.exp_hash)
    finally:
        store.put(name.manifest_key, [good])
    assert entry.name == name
    assert "damaged" in entry.damaged or "cut" in entry.damaged
