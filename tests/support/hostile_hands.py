"""Reads a hostile root in a process of its own: watched, timed, and with little memory."""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from pathlib import Path

import h5py  # noqa: F401 - loaded before the fork
import torch

from support.roots import fast_folder
from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.tensors.image import read_header

torch.set_num_threads(1)
warnings.simplefilter("ignore")
MEMORY_BYTES = 256 << 20
WATCHED = {
    *("exec", "compile", "import", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec"),
    *("os.posix_spawn", "ctypes.dlopen", "socket.connect", "marshal.loads", "builtins.input"),
}


def make_root(path):
    """Make a root with one experiment and one checkpoint."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with CheckpointManagerV2(path) as manager:
        manager.update_experiment_hash(model, {"lr": 0.1}, range(5))
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer, metrics={"loss": 1})
        manager.save_model_checkpoint(model, step=2, save_optimizer=False)
        manager.root.trash.put(manager.current_hash, 2)
        manager.root.notes.add(manager.current_hash, "a note")


def calls_of(path):
    """Yield name -> call of everything that reads a root with one experiment."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    root = CheckpointRoot(path, read_only=True)
    manager = CheckpointManagerV2(path, read_only=True)
    (one,) = (p.name for p in (Path(path) / "checkpoints").iterdir() if len(p.name) == 16)
    weights = f"checkpoints/{one}/model/{one}_step_000001.safetensors"
    return {
        "experiments": root.experiments,
        "latest": root.latest,
        "info": lambda: root.info(one),
        "config": lambda: root.config(one),
        "config of a step": lambda: root.config(one, step=1),
        "architecture": lambda: root.architecture(one),
        "samples": lambda: root.samples(one),
        "header": lambda: read_header(root.store.map(weights), what="weights"),
        "load": lambda: manager.load_checkpoint(1, one, model, optimizer=optimizer),
        "load latest": lambda: manager.load_latest_checkpoint(model, exp_hash=one),
        "verify": lambda: root.verify(one),
        "notes": lambda: root.notes.read(one).damaged,
        "trash": lambda: [entry.key for entry in root.trash.list() if entry.is_damaged],
    }


def visit(path):
    """Do everything that reads.

    Returns: what raised an error of the house, other errors, seconds of the slowest.
    """
    refused, odd, slowest = [], [], 0.0
    for name, call in calls_of(path).items():
        began = time.process_time()
        try:
            found = call()
        except CheckpointError as error:
            refused.append(f"{name}: {type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            odd.append(f"{name}: {type(error).__name__}: {error}"[:200])
        else:
            if name in ("verify", "notes", "trash") and list(found):
                refused.append(f"{name}: findings")
        slowest = max(slowest, time.process_time() - began)
    return refused, odd, slowest


def read_hostile(ready, path):
    """Visit a root under watch.

    Returns: `refused` and `odd` as `visit`, `seen` (what was executed or written), `seconds` of the
        slowest call.
    """
    ready()
    seen = []

    def watch(event, arguments):
        is_write = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in WATCHED or (is_write and not _may_write(arguments[0])):
            seen.append(f"{event} {arguments[:2]!r:.150}")

    sys.addaudithook(watch)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refused, odd, seconds = visit(path)
    return {"refused": refused, "odd": odd, "seen": seen, "seconds": seconds}


def _may_write(path):
    catalogs = os.environ.get("WEIGHTSLAB_CATALOG", "")
    return bool(catalogs) and str(path).startswith(catalogs)


def warm_up():
    """Read a harmless root once: what is imported late is imported now."""
    with fast_folder() as folder:
        make_root(folder / "root")
        refused, odd, _ = visit(folder / "root")
        assert (refused, odd) == ([], []), (refused, odd)


warm_up()
