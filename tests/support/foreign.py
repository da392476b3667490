"""Roots of other systems, what has to be found in them, and what was found."""

import hashlib
import json
import shutil
from pathlib import Path

from weightslab.engine.jsonform import decode
from weightslab.engine.loading.reading import read_state
from weightslab.engine.repository.catalog import read_manifest

FOREIGN = Path(__file__).parents[1] / "compat" / "foreign"


def copy_of(name, folder):
    """Copy a root to a place where it was not written."""
    return Path(shutil.copytree(FOREIGN / name, folder / name))


def expected_of(name):
    return json.loads((FOREIGN / f"{name}_expected.json").read_text())


def imported(root):
    """Return key in the source -> (entry, loaded state, metadata)."""
    found = {}
    for entry in root.checkpoints():
        state = read_state(root.store, read_manifest(root.store, entry.name))
        metadata = decode(state.manifest.metadata, path="metadata")
        found[metadata["imported_from"]["key"]] = entry, state, metadata
    return found


def told_of(tensor):
    """Return a tensor as the expectations tell it."""
    data = tensor.detach().cpu().contiguous().numpy().tobytes()
    return {
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def without_sums(expected):
    return {k: {n: v for n, v in e.items() if n != "sum"} for k, e in expected.items()}


def bytes_of(folder):
    return {p: p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
