"""Summary: what an experiment has, for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.identity.canonical import SCHEME
from weightslab.engine.repository import layout
from weightslab.engine.repository.notes import read_notes

if TYPE_CHECKING:
    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.experiment import ExperimentRecord
    from weightslab.engine.storage.store import Store

__all__ = ["info"]


def info(root: Keeper, exp_hash: str) -> dict[str, Any]:
    """Return a summary of an experiment for people and programs; see the guide for its keys."""
    entry = root.get_experiment(exp_hash)
    full = entry.exp_hash
    checkpoints = root.catalog.checkpoints(full)
    data = [n for n in root.store.list(layout.data_folder(full)) if n.endswith(".h5")]
    return {
        "exp_hash": full,
        "name": read_notes(root.store, full).name,
        "created_at": entry.record.created_at.isoformat() if entry.record else None,
        "steps": sorted({e.name.step for e in checkpoints if e.damaged is None}),
        "model_checkpoints": _weights_files(root.store, full, checkpoints),
        "damaged": {e.name.stem: e.damaged for e in checkpoints if e.damaged},
        "architecture_saved": root.store.stat(layout.architecture_key(full)) is not None,
        "configs": root.store.list(layout.config_folder(full)),
        "data_backups": [n for n in data if not n.startswith(f"{full}_samples.")],
        "size_bytes": sum(e.size_bytes for e in checkpoints),
        "parents": sorted(
            {e.parent.exp_hash for e in checkpoints if e.parent and e.parent.exp_hash} - {full}
        ),
        "changed_from": entry.record.changed_from if entry.record else None,
        "identity": _identity_facts(entry.record) if entry.record else None,
    }


def _weights_files(store: Store, exp_hash: str, entries: list[CheckpointEntry]) -> list[str]:
    """Return the files with model tensors, in the order of the checkpoints."""
    of_name: dict[layout.CheckpointName, list[str]] = {}
    for file in store.list(layout.model_folder(exp_hash)):
        found = layout.parse_checkpoint_file(file)
        if found is None or not found[1].endswith("safetensors"):
            continue
        if not found[1].startswith("training."):
            of_name.setdefault(found[0], []).append(file)
    return [file for entry in entries for file in of_name.get(entry.name, ())]


def _identity_facts(record: ExperimentRecord) -> dict[str, Any]:
    """Return what an identity is made of, and what stands beside it without counting."""
    parts = record.components
    return {
        "scheme": SCHEME,
        "digests": {"model": parts.model, "config": parts.config, "data": parts.data},
        "facets": list(record.facets),
        "excluded": list(record.excluded),
        "weak": list(record.weak),
        "environment": dict(record.environment),
    }
