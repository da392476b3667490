"""The pages on the format say what is really in the files; the example that checks a seal does."""

from __future__ import annotations

import json
import re
import sys
from datetime import timedelta

import h5py
import pytest
import torch
from support.documents import REPOSITORY, fenced_blocks

from weightslab.components import CheckpointManagerV2
from weightslab.engine import jsonform
from weightslab.engine.care.trashing import thin
from weightslab.engine.tensors import tree

LAYOUT = (REPOSITORY / "docs" / "design" / "layout.md").read_text("utf-8")
(SEAL_CHECK,) = (block.text for block in fenced_blocks(LAYOUT) if block.language == "python")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root in which every kind of file and every event occurs once at least."""
    folder = tmp_path_factory.mktemp("root")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    manager = CheckpointManagerV2(folder)
    manager.update_experiment_hash(model, {"lr": 0.1}, [1, "x", 3])
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metrics={"loss": 1.0})
    manager.save_config({"lr": 0.1, "is_training": True})
    with h5py.File(folder / "data" / "labels.h5", "w") as file:
        file["labels"] = [1]
    manager.save_data_backup(folder / "data" / "labels.h5")
    manager.update_experiment_hash(config={"lr": 0.2})
    manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    manager.save_model_checkpoint(model, step=2, save_optimizer=False)
    bad = manager.save_model_checkpoint(model, step=3, save_optimizer=False)
    bad.write_bytes(bad.read_bytes()[:-1])
    assert manager.load_latest_checkpoint(model)["step"] == 2
    manager.root.transplant(f"{manager.current_hash}@1", torch.nn.Linear(3, 2))
    assert len(manager.root.quarantine(manager.current_hash)) == 1
    _care(manager.root, manager.current_hash)
    return folder


def _care(root, exp_hash):
    root.notes.remove(root.pin(exp_hash, step=1))
    root.notes.add(exp_hash, "a note")
    root.trash.put(exp_hash, 2)
    root.restore(f"{exp_hash}_step_000002")
    root.trash.empty(older_than=timedelta(0))
    thin(root, root.get_checkpoint(exp_hash, 1).name)
    root.delete(exp_hash, step=2)
    other = CheckpointManagerV2(root.path).update_experiment_hash(config={"lr": 0.3})
    root.delete(other.exp_hash)


def _section(heading):
    """The text below a heading that contains `heading`."""
    return next(part for part in LAYOUT.split("\n## ") if heading in part.split("\n", 1)[0])


def _rows(heading):
    rows = re.findall(r"^\| (`.+?) \|", _section(heading), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def _record(root, pattern):
    path = min(root.glob(f"checkpoints/*/{pattern}"))
    return jsonform.unseal(path.read_bytes(), what=path.name)[0]


# ---------------------------------------------------------------- seals
def _check_seal(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check_seal.py", str(path)])
    exec(compile(SEAL_CHECK, "layout.md", "exec"), {})


def _sealed(root):
    checkpoints = root / "checkpoints"
    return [p for p in sorted(checkpoints.rglob("*")) if p.suffix in (".json", ".yaml", ".txt")]


def test_the_example_that_checks_a_seal_has_six_lines():
    assert SEAL_CHECK.count("\n") + 1 == 6


def test_the_example_accepts_every_sealed_file_of_a_root(root, monkeypatch):
    paths = _sealed(root)
    kinds = {re.sub(r"^[0-9a-f]{16}_", "", path.name) for path in paths}

    assert kinds >= {"experiment.json", "architecture.json", "architecture.txt", "config.yaml"}
    assert kinds >= {"config.r2.yaml", "samples.h5.json", "labels.h5.json", "step_000001.json"}
    for path in paths:
        _check_seal(path, monkeypatch)


@pytest.mark.parametrize("name", ["experiment.json", "hp/*_config.yaml"])
@pytest.mark.slow
def test_the_example_notices_a_flipped_bit_in_every_byte(root, tmp_path, monkeypatch, name):
    whole = min(root.glob(f"checkpoints/*/{name}")).read_bytes()
    path = tmp_path / "damaged"
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        with pytest.raises(AssertionError):
            _check_seal(path, monkeypatch)


# ---------------------------------------------------------------- keys
FRAME = {"schema", "schema_version"}


@pytest.mark.parametrize(
    ("heading", "pattern"),
    [
        ("experiment.json:", "experiment.json"),
        ("the manifest:", "model/*_step_000001.json"),
        ("a note:", "notes/*_note_*.json"),
        ("a session:", "provenance/*.json"),
    ],
)
def test_the_tables_have_exactly_the_keys_of_the_records(root, heading, pattern):
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", _section(heading), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    assert named == set(_record(root, pattern)) - FRAME


def test_nested_keys_are_named(root):
    manifest = _record(root, "model/*_step_000001.json")
    file, tensor = (next(iter(manifest[key].values())) for key in ("files", "tensors"))
    optimizer = manifest["state"]["training"]["optimizer"]["optimizer"]
    experiment = _record(root, "experiment.json")

    page = _section("the manifest:")
    for key in {*file, *tensor, *manifest["parent"], *optimizer}:
        assert f"`{key}`" in page, key
    page = _section("experiment.json:")
    for key in {*experiment["identity"], *experiment["environment"], *experiment["facts"]}:
        assert f"`{key}`" in page, key


def test_the_sidecar_and_the_architecture_have_the_keys_that_are_named(root):
    for heading, pattern in (
        ("the sidecar:", "data/*.h5.json"),
        ("architecture.json:", "model/*_architecture.json"),
    ):
        record = _record(root, pattern)
        for key in set(record) - FRAME:
            assert f"`{key}`" in _section(heading), key
        assert record["schema"] in _section(heading)
    for key in record["description"]:
        assert f"`{key}`" in _section("architecture.json:"), key


def test_the_datasets_of_the_samples_are_named(root):
    page = _section("samples.h5:")
    with h5py.File(min(root.glob("checkpoints/*/data/*_samples.h5"))) as file:
        assert set(file.attrs) == {"schema", "schema_version", "digest"}
        assert file.attrs["schema"] in page
        for name in file["active"]:
            assert f"`/active/{name}`" in page


def test_every_tag_is_named():
    page = _section("Tagged JSON")
    tags = {*jsonform._BUILDERS, tree._TENSOR, tree._DTYPE, tree._DEVICE, tree._SIZE}

    assert {t for t in tags if f'"{t}"' not in page} == set()
    assert set(re.findall(r'"(\$[\w.]+)"', page)) == tags


def test_the_events_have_exactly_the_keys_that_are_named(root):
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", _section("logs/events.jsonl"), re.MULTILINE)
    named = {event: set(re.findall(r"`(\w+)`", keys)) | {"time", "event"} for event, keys in rows}
    lines = (root / "logs" / "events.jsonl").read_text("ascii").splitlines()
    real = {record["event"]: set(record) for record in map(json.loads, lines)}

    assert named == real


def test_the_note_of_a_quarantined_checkpoint_has_exactly_the_keys_that_are_named(root):
    (path,) = root.glob("checkpoints/.quarantine/*/why.json")
    document = jsonform.unseal(path.read_bytes(), what=path.name)[0]
    section = _section(".quarantine/{name")
    named = set(re.findall(r"`(\w+)`", section.split("\n", 2)[2])) - {"key", "problem"}
    assert set(document) - {"schema", "schema_version"} == named - {"model"}


def test_the_note_of_a_trashed_checkpoint_has_exactly_the_keys_that_are_named(root):
    (path,) = root.glob("checkpoints/.trash/*/why.json")
    document = jsonform.unseal(path.read_bytes(), what=path.name)[0]
    named = set(re.findall(r"`(\w+)`", _section(".trash/{name").split("\n", 2)[2]))
    assert set(document) - FRAME == named


def test_every_file_of_a_root_has_a_place_in_the_picture(root):
    in_experiment = [
        r"experiment\.json",
        r"model/H_architecture\.(json|txt)",
        r"model/H_step_\d{6,18}(\.r\d+)?(\.model\.[\w-]+|\.training)?\.(json|safetensors)",
        r"hp/H_[\w-]+(\.r\d+)?\.yaml",
        r"data/H_[\w-]+(\.r\d+)?\.h5(\.json)?",
        r"notes/\d{8}T\d{12}Z_(name|note|tag|pin)_[0-9a-f]{16}\.json",
        r"provenance/\d{8}T\d{12}Z_[0-9a-f]{16}\.json",
    ]
    aside = r"[0-9a-f]{16}_step_\d{6,18}(\.\d+)?/(why\.json|[0-9a-f]{16}_step_\S+)"
    for folder in (root / "checkpoints").iterdir():
        forms = [aside] if folder.name in (".quarantine", ".trash") else in_experiment
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix().replace(folder.name, "H")
            assert path.is_dir() or any(re.fullmatch(form, name) for form in forms), name
