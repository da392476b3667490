"""A root from a stranger: opening, listing, comparing and loading it runs nothing of it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import hostile
from support.training import tree_of

from weightslab.components import CheckpointManagerV2
from weightslab.engine.digests import seal_digest
from weightslab.engine.errors import CheckpointError
from weightslab.engine.jsonform import seal, seal_text, unseal
from weightslab.engine.root import CheckpointRoot

SCRIPT = Path(hostile.__file__)


class Evil:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    """Three experiments of a small model, two checkpoints each."""
    root = tmp_path_factory.mktemp("harmless") / "root"
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with CheckpointManagerV2(root) as manager:
        for number in range(3):
            manager.update_experiment_hash(model, {"lr": number, "d": {"a": [1]}}, range(number, 9))
            for step in (1, 2):
                manager.save_model_checkpoint(
                    model, step=step, optimizer=optimizer, metrics={"loss": 0.5}, metadata={"a": 1}
                )
    return root


@pytest.fixture
def root(harmless, tmp_path):
    shutil.copytree(harmless, tmp_path / "root")
    return tmp_path / "root"


def experiments(root):
    return sorted(path for path in (root / "checkpoints").iterdir() if path.is_dir())


def put_traps(root, outside):
    """Place everything that a careless reader would run, follow, wait for or swallow."""
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        for name in ("__init__.py", "sitecustomize.py", "conftest.py", "torch.py", "state.pth"):
            (folder / name).write_text("print('ran')")
        (folder / "model.pkl").write_bytes(pickle.dumps(Evil()))
        os.mkfifo(folder / "pipe.json")
        (folder / "link.json").symlink_to(outside)
    first, second, third = experiments(root)
    stem = f"{first.name}_step_00000"
    (first / "model" / f"{stem}3.json").write_bytes(pickle.dumps(Evil()))
    os.mkfifo(first / "model" / f"{stem}4.json")
    os.mkfifo(first / "model" / f"{stem}2.training.safetensors.new")
    (first / "model" / f"{stem}5.json").symlink_to(outside)
    (first / "model" / f"{stem}6.json").mkdir()
    (first / "model" / f"{stem}7.json").write_bytes(b"[" * 200_000)
    (first / "model" / f"{stem}8.json").write_bytes(seal_deep())
    weights = first / "model" / f"{stem}1.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    weights = first / "model" / f"{stem}2.safetensors"
    weights.unlink()
    torch.save({"weight": Evil()}, weights)
    config = second / "hp" / f"{second.name}_config.yaml"
    config.write_bytes(seal_text("a: !!python/object/apply:os.system ['echo ran']\n"))
    (third / "hp" / f"{third.name}_config.yaml").write_bytes(seal_text("{a: " * 5_000))
    samples = third / "data" / f"{third.name}_samples.h5"
    samples.unlink()
    samples.symlink_to(outside)
    (root / "checkpoints" / ("a" * 16)).symlink_to(outside.parent, target_is_directory=True)
    (root / "checkpoints" / ("b" * 16)).mkdir()
    os.mkfifo(root / "checkpoints" / ("b" * 16) / "experiment.json")


def seal_deep():
    body = b'{\n"a":' + b"[" * 50_000 + b"]" * 50_000
    return body + f',\n"digest":"{seal_digest(body)}"\n}}\n'.encode()


def visit(harmless, root, mode):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(harmless), str(root), mode],
        capture_output=True, text=True, timeout=60, check=False, cwd=root,
        env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ran" not in done.stdout + done.stderr
    assert "unpickled" not in done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_root_full_of_traps_runs_nothing_hangs_nowhere_and_changes_nothing(
    harmless, root, tmp_path
):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    put_traps(root, outside)
    before = tree_of(tmp_path)
    assert visit(harmless, root, "read") == {"seen": [], "odd": []}
    assert tree_of(tmp_path) == before


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_root_full_of_traps_may_be_written_to_and_nothing_outside_is(harmless, root, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    put_traps(root, outside)
    (root / "logs" / "events.jsonl").unlink()
    (root / "logs" / "events.jsonl").symlink_to(outside)
    warm = tmp_path / "warm"
    shutil.copytree(harmless, warm)
    assert visit(warm, root, "write") == {"seen": [], "odd": []}
    assert outside.read_text() == "{}"


# ---------------------------------------------------------------- sealed lies
WRONG = [None, -1, "../../x", {"$tuple": [1]}]


def mutants(document):
    """Return the document with one value at a time, two levels deep, put wrong or left out."""
    for key, value in document.items():
        for wrong in WRONG:
            yield f"{key}={wrong!r:.20}", document | {key: wrong}
        yield f"{key} left out", {k: v for k, v in document.items() if k != key}
        if isinstance(value, dict):
            for inner, content in list(value.items())[:6]:
                for wrong in WRONG:
                    yield f"{key}.{inner}={wrong!r:.20}", document | {key: value | {inner: wrong}}
                if isinstance(content, dict):
                    for deep in content:
                        for wrong in WRONG:
                            changed = value | {inner: content | {deep: wrong}}
                            yield f"{key}.{inner}.{deep}={wrong!r:.20}", document | {key: changed}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["model/{}_step_000002.json", "experiment.json", "data/{}_samples.h5.json"]
)
def test_records_that_are_sealed_and_lie_are_errors_of_the_house(root, name):
    folder = experiments(root)[0]
    path = folder / name.format(folder.name)
    good = path.read_bytes()
    document, _ = unseal(good, what=path.name)
    odd = []
    for label, lie in mutants(document):
        path.write_bytes(seal(lie))
        odd += [f"{label}: {text}" for text in look(root, folder.name)]
    assert odd == []


def look(root, exp_hash):
    """Read one experiment in every way; return errors that are not of the house."""
    opened = CheckpointRoot(root, read_only=True)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    manager = CheckpointManagerV2(root, read_only=True)
    calls = {
        "info": lambda: opened.info(exp_hash),
        "latest": opened.latest,
        "best": lambda: opened.best("loss"),
        "config": lambda: opened.config(exp_hash, step=2),
        "samples": lambda: opened.samples(exp_hash),
        "changes": lambda: opened.changes(*opened.list_hashes()[:2]),
        "verify": lambda: opened.verify(exp_hash),
        "load": lambda: manager.load_checkpoint(2, exp_hash, model, optimizer=optimizer),
    }
    return [f"{name}: {found}" for name, call in calls.items() if (found := odd_error(call))]


def odd_error(call):
    """Return the error of `call` if it is not one of the house."""
    try:
        call()
    except CheckpointError:
        return None
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"{type(error).__name__}: {error}"[:150]
    return None


def test_architecture_that_is_sealed_and_lies_is_an_error_of_the_house(root):
    folder = experiments(root)[0]
    path = folder / "model" / f"{folder.name}_architecture.json"
    document, _ = unseal(path.read_bytes(), what=path.name)
    odd = []
    for label, lie in mutants(document["description"]):
        path.write_bytes(seal(document | {"description": lie}))
        found = odd_error(lambda: identify_another(root))
        odd += [f"{label}: {found}"] if found else []
    assert odd == []


def identify_another(root):
    with CheckpointManagerV2(root) as manager:
        manager.update_experiment_hash(torch.nn.Linear(2, 3))
        manager.root.delete(manager.current_hash)


@pytest.mark.parametrize("file", ["../../../x.yaml", "/etc/passwd", "nothing.yaml", "", "a/b"])
def test_manifest_cannot_point_outside_its_folder(root, file):
    folder = experiments(root)[0]
    path = folder / "model" / f"{folder.name}_step_000002.json"
    document, _ = unseal(path.read_bytes(), what="manifest")
    path.write_bytes(seal(document | {"config_file": file}))
    assert look(root, folder.name) == []
