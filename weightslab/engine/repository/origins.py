"""Origins: what is remembered of checkpoints so that lineage and audits need not read each manifest.

A checkpoint *crosses* where it tells more than "from the one before it in this experiment": its weights
came from another experiment, through others that saved nothing, or from somewhere unknown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.values import ParentLink

__all__ = ["Origins", "Sampled", "Sampler", "crosses", "samplers_of"]

_SAMPLER: Final = "weightslab.engine.training.sampler.ResumableSampler"

Sampler = dict[str, Any]
Sampled = tuple[str, tuple[Sampler, ...]]  # digest of the manifest, states of the samplers in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where the experiments of a root came from.

    Attributes:
        num_checkpoints: experiment -> checkpoints, damaged ones too; none for those without.
        crossings: the checkpoints that cross, by experiment and sequence.
    """

    num_checkpoints: dict[str, int]
    crossings: tuple[CheckpointEntry, ...]

    @classmethod
    def of(cls, entries: Iterable[CheckpointEntry]) -> Origins:
        """Return the origins that all checkpoints of a root tell."""
        counts: dict[str, int] = {}
        found = []
        for entry in entries:
            exp_hash = entry.name.exp_hash
            counts[exp_hash] = counts.get(exp_hash, 0) + 1
            if crosses(exp_hash, entry.parent):
                found.append(entry)
        return cls(num_checkpoints=counts, crossings=in_sequence(found))


def in_sequence(entries: Iterable[CheckpointEntry]) -> tuple[CheckpointEntry, ...]:
    return tuple(
        sorted(entries, key=lambda e: (e.name.exp_hash, e.sequence, e.name.step, e.name.revision))
    )


def crosses(exp_hash: str, parent: ParentLink | None) -> bool:
    """Tell whether a checkpoint of an experiment with this parent crosses."""
    if parent is None:
        return False
    if parent.via or parent.kind in ("import", "unknown"):
        return True
    return parent.kind == "checkpoint" and parent.exp_hash != exp_hash


def samplers_of(manifest: Manifest) -> tuple[Sampler, ...]:
    """Return the states of the `ResumableSampler`s in a checkpoint, in the order of their names."""
    training = manifest.state.get("training")
    tracked = training.get("tracked") if isinstance(training, dict) else None
    if not isinstance(tracked, dict):
        return ()
    states = (
        item["state"]
        for _, item in sorted(tracked.items())
        if isinstance(item, dict) and item.get("class") == _SAMPLER
    )
    return tuple(state for state in states if isinstance(state, dict))


def sampled_to_text(digest: str, samplers: tuple[Sampler, ...]) -> str:
    """Return samplers of a manifest as text; empty if there are none."""
    return json.dumps([digest, *samplers], separators=(",", ":")) if samplers else ""


def sampled_from_text(text: str) -> Sampled:
    """Return what `sampled_to_text` made a text of."""
    digest, *samplers = json.loads(text)
    return digest, tuple(samplers)
