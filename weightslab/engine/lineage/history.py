"""History: the exact sequence of experiments and steps that led to the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.lineage.records import Records, reference_of
from weightslab.engine.lineage.tree import plain_line
from weightslab.engine.repository.layout import CheckpointName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from weightslab.engine.lineage.records import Holder, Hop

__all__ = ["History", "HistoryStep", "history"]

SCHEMA: Final = "weightslab.history"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """One checkpoint on the way.

    Attributes:
        exp_hash, step, revision: the checkpoint; of one that was thinned, its thin revision.
        digest: of its manifest.
        state: `present`, `thinned`, `trashed`, `quarantined`, or, where its record is gone, `missing`,
            `replaced` (another checkpoint has its name now), `damaged`.
        created_at: aware UTC time; None where the record is gone.
        origin: `checkpoint`: the step before this one; `fresh`: a new model; `import`, `unknown`.
        via: experiments that were current since the step before, in order, that saved nothing.
        exact: no other experiment was current since the step before; None: unknown.
        gap: why it is not known exactly what came before; None where it is.
    """

    exp_hash: str
    step: int
    revision: int
    digest: str
    state: str
    created_at: datetime | None
    origin: str
    via: tuple[str, ...] = ()
    exact: bool | None = None
    gap: str | None = None

    @property
    def name(self) -> CheckpointName:
        """The checkpoint."""
        return CheckpointName(exp_hash=self.exp_hash, step=self.step, revision=self.revision)

    @property
    def reference(self) -> str:
        """How people name it: `3f2a9c1b00d14e77@100`."""
        return reference_of(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found = {name: getattr(self, name) for name in self.__slots__}
        moment = self.created_at
        return found | {"via": [*self.via], "created_at": moment and moment.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What led to the weights of a checkpoint, the oldest first; iterates over its steps."""

    steps: tuple[HistoryStep, ...]

    def __iter__(self) -> Iterator[HistoryStep]:
        """Yield the steps."""
        return iter(self.steps)

    def __len__(self) -> int:
        """Return the number of checkpoints, the last one included."""
        return len(self.steps)

    @property
    def gaps(self) -> tuple[str, ...]:
        """What is not known exactly, in words; empty if all is."""
        return tuple(step.gap for step in self.steps if step.gap)

    @property
    def is_complete(self) -> bool:
        """Every record is here, down to a new model, and nothing else was current between two."""
        return not self.gaps

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments in the order in which they trained these weights: A, B, A."""
        trained = (h for step in self.steps for h in (*step.via, step.exp_hash))
        return tuple(exp_hash for exp_hash, _ in groupby(trained))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "is_complete": self.is_complete,
            "experiments": [*self.experiments],
            "steps": [step.to_dict() for step in self.steps],
        }

    def __str__(self) -> str:
        """Return a line for each run of steps in one experiment, and one for each gap."""
        lines = []
        for exp_hash, group in groupby(self.steps, key=lambda step: step.exp_hash):
            part: list[HistoryStep] = []
            for step in group:
                if part and step.gap:
                    lines.append(_line(exp_hash, part))
                    part = []
                if step.gap:
                    lines.append(f"  ? {step.gap}")
                part.append(step)
            lines.append(_line(exp_hash, part))
        return "\n".join(map(plain_line, lines))


def _line(exp_hash: str, part: list[HistoryStep]) -> str:
    first, last = part[0], part[-1]
    steps = f"step {first.step}" if len(part) == 1 else f"steps {first.step} to {last.step}"
    count = "" if len(part) < 3 else f" ({len(part)} checkpoints)"  # noqa: PLR2004 - two are named
    begin = "new model, " if first.origin == "fresh" else ""
    states = sorted({step.state for step in part} - {"present"})
    told = f"  [{', '.join(states)}]" if states else ""
    return f"{exp_hash}  {begin}{steps}{count}{told}"


def history(root: Holder, reference: str) -> History:
    """Return the experiments and steps that led to the weights of a checkpoint. O(these).

    A parent counts only if it is the very checkpoint that was loaded: one whose manifest has another
    digest now is a gap. What lies in the trash or the quarantine, or was thinned, is followed.

    Args:
        root: the root.
        reference: as for `at`: `3f2a@100`, `latest`, ...; a hash alone is its newest checkpoint.
    Raises: ValueError, TypeError for other texts; ExperimentNotFoundError, CheckpointNotFoundError.
    """
    records = Records(root.store, root.catalog)
    hops = list(records.way_back(records.found(root.at(reference))))
    return History(steps=tuple(step_of(hop) for hop in reversed(hops)))


def step_of(hop: Hop) -> HistoryStep:
    """Return a hop as a step of a history."""
    found, link = hop.found, hop.link
    return HistoryStep(
        exp_hash=found.name.exp_hash,
        step=found.name.step,
        revision=found.name.revision,
        digest=found.digest,
        state=found.state,
        created_at=None if found.entry is None else found.entry.created_at,
        origin="unknown" if link is None else link.kind,
        via=() if link is None else link.via,
        exact=None if link is None else link.exact,
        gap=hop.gap,
    )
