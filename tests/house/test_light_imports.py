"""What is imported when: torch only where tensors are, nothing heavy behind the doors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "weightslab"

# Modules, or packages with all their modules, that never import torch.
TORCH_FREE = (
    "weightslab.backend",
    "weightslab.engine.errors",
    "weightslab.engine.values",
    "weightslab.engine.digests",
    "weightslab.engine.jsonform",
    "weightslab.engine.storage",
    "weightslab.engine.repository",
    "weightslab.engine.saving.held_signals",
    "weightslab.engine.saving.policies",
    "weightslab.engine.saving.loop",
    "weightslab.engine.saving.trail",
    "weightslab.engine.saving.writer",
    "weightslab.engine.audit",
    "weightslab.engine.care",
    "weightslab.engine.collecting",
    "weightslab.engine.lineage",
    "weightslab.engine.replay",
    "weightslab.engine.resume",
    "weightslab.engine.retention",
    "weightslab.engine.root",
    "weightslab.cli",
    "weightslab.web",
)
BEHIND_THE_DOORS = {"h5py", "sqlite3", "typer", "rich", "pandas", "starlette", "obstore"}


def modules_of(name):
    """Return `name` and all modules in it that exist; nothing is imported."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    if path.with_suffix(".py").exists():
        return [name]
    found = sorted(path.rglob("*.py")) if path.is_dir() else []
    dotted = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in found)
    return [module.removesuffix(".__init__") for module in dotted]


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_torch_free_modules_do_not_import_torch():
    """One process imports all; the first module after which torch is there is the culprit."""
    names = [module for name in TORCH_FREE for module in modules_of(name)]
    assert "weightslab.engine.storage.local" in names
    script = (
        "import importlib, json, sys\n"
        "culprits = []\n"
        "for name in sys.argv[1:]:\n"
        "    before = 'torch' in sys.modules\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules and not before:\n"
        "        culprits.append(name)\n"
        "print(json.dumps(culprits))\n"
    )
    assert run(script, *names) == []


@pytest.mark.parametrize("name", TORCH_FREE)
def test_list_of_torch_free_modules_is_true(name):
    if not modules_of(name):
        pytest.skip(f"{name} does not exist yet")
    assert importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "import weightslab",
        "import weightslab.components",
        "from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator",
        "from weightslab.components import CheckpointManager",
        "import weightslab.engine.root",
    ],
)
@pytest.mark.slow
def test_doors_open_without_heavy_packages(statement):
    """On top of torch, which brings what it brings."""
    module = statement.split()[1]
    if module != "weightslab" and not modules_of(module):
        pytest.skip(f"{module} does not exist yet")
    doors = (PACKAGE / "components" / "__init__.py").read_text(encoding="utf-8")
    if statement.endswith(" CheckpointManager") and '"CheckpointManager"' not in doors:
        pytest.skip("the old CheckpointManager does not exist yet")
    script = (
        "import json, sys, torch\n"
        "before = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    assert BEHIND_THE_DOORS.intersection(run(script)) == set()


def test_storage_needs_neither_numpy_nor_pytest():
    script = (
        "import json, sys, weightslab.engine.storage\n"
        "print(json.dumps(sorted({'numpy', 'pytest', 'torch', 'h5py'} & set(sys.modules))))\n"
    )
    assert run(script) == []


def test_the_command_line_imports_only_what_it_shows(tmp_path):
    """No torch and no h5py for what reads names and records; nothing else that takes its time."""
    pytest.importorskip("typer", reason="the command line comes with the extra `cli`")
    from support.command_line import FIRST, make_root

    make_root(tmp_path / "root")
    asked = [["--help"], ["ls"], ["show", FIRST], ["tree"], ["log"]]
    script = (
        "import contextlib, io, json, sys\n"
        "from weightslab.cli.start import main\n"
        "found = []\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()):\n"
        "        assert main(['--root', sys.argv[2], *words]) == 0\n"
        "    found.append(sorted(sys.modules))\n"
        "print(json.dumps(found))\n"
    )
    found = run(script, json.dumps(asked), str(tmp_path / "root"))
    assert "weightslab.engine.root" not in found[0]
    heavy = {"torch", "h5py", "numpy", "pandas", "matplotlib", "rich", "lark"}
    assert [heavy & set(modules) for modules in found] == [set()] * len(asked)


LOOP = """
import sys, torch
from weightslab.components import CheckpointManagerV2
model = torch.nn.Linear(2, 2)
with CheckpointManagerV2(sys.argv[1]) as manager:
    manager.update_experiment_hash(model=model, config={"lr": 0.1}, active_data_uids=range(3))
    manager.save_model_checkpoint(model, step=1, save_optimizer=False)
    manager.load_latest_checkpoint(model, load_optimizer=False)
    manager.load_checkpoint(1, model=model, load_optimizer=False)
print(sorted(name for name in sys.modules if name.startswith(("weightslab.engine.query", "lark"))))
"""


@pytest.mark.slow
def test_saving_and_loading_do_not_import_what_queries_need(tmp_path):
    command = [sys.executable, "-c", LOOP, str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
