"""The tables `origins` and `samples` of the index: what lineage and audits ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.repository.index_rows import check_seal, row_of, seal_of
from weightslab.engine.repository.layout import CheckpointName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.index import Index

__all__ = [
    "count_checkpoints",
    "get_crossings",
    "get_samplers",
    "get_samples",
    "put_origin",
    "put_samples",
]


def put_origin(index: Index, name: CheckpointName, *, crosses: bool, samplers: str) -> None:
    """Write what a checkpoint that has a row tells of its origin."""
    index.run(
        "INSERT OR REPLACE INTO origins SELECT id, ?, ?, ? FROM checkpoints"
        " WHERE exp_hash = ? AND step = ? AND revision = ?",
        *(crosses, samplers, seal_of(int(crosses), samplers)),
        *(name.exp_hash, name.step, name.revision),
    )


def get_crossings(index: Index) -> list[CheckpointEntry]:
    """Return the checkpoints that cross. O(these)."""
    found = index.run(
        "SELECT exp_hash, step, revision, stamp, moment, sequence, body, seal FROM checkpoints"
        " WHERE id IN (SELECT checkpoint FROM origins WHERE crosses)"
    )
    return [row_of(values).entry for values in found]


def count_checkpoints(index: Index) -> dict[str, int]:
    """Return experiment -> number of checkpoints. O(checkpoints), 0.1 us each."""
    return dict(index.run("SELECT exp_hash, count(*) FROM checkpoints GROUP BY exp_hash"))


def get_samplers(index: Index, exp_hash: str) -> dict[CheckpointName, str]:
    """Return checkpoint -> text of its samplers, for those of an experiment that have some."""
    found = index.run(
        "SELECT step, revision, crosses, samplers, origins.seal FROM checkpoints"
        " JOIN origins ON id = checkpoint WHERE exp_hash = ? AND samplers != ''",
        exp_hash,
    )
    texts = {}
    for step, revision, crosses, samplers, seal in found:
        check_seal(seal, crosses, samplers)
        name = CheckpointName(exp_hash=exp_hash, step=step, revision=revision)
        texts[name] = samplers
    return texts


def get_samples(index: Index) -> dict[str, tuple[str, str]]:
    """Return experiment -> (stamp, body) of samples files."""
    found = {}
    for exp_hash, stamp, body, seal in index.run("SELECT * FROM samples"):
        check_seal(seal, exp_hash, stamp, body)
        found[exp_hash] = stamp, body
    return found


def put_samples(index: Index, made: Mapping[str, tuple[str, str]]) -> None:
    """Write what was made of samples files: (stamp, body)."""
    rows = [(h, stamp, body, seal_of(h, stamp, body)) for h, (stamp, body) in made.items()]
    with index.batch():
        index.run_many("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", rows)
