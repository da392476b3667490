"""What came over, what was there already, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["TransferReport", "TransferredCheckpoint", "TransferredExperiment", "inert"]

SCHEMA: Final = "weightslab.transfer-report"
SCHEMA_VERSION: Final = 1
_MAX_LINES: Final = 40  # what a terminal shows without scrolling
_GOOD: Final = ("copied", "known", "gone", "would copy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferredExperiment:
    """What became of an experiment.

    Attributes:
        exp_hash: the experiment.
        status: `created`, `known`, `would create` or `failed`.
        problems: what of its files was left out: (file, reason).
        reason: why it failed; then none of its checkpoints came over.
    """

    exp_hash: str
    status: str
    problems: tuple[tuple[str, str], ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferredCheckpoint:
    """What became of a checkpoint.

    Attributes:
        exp_hash, step, revision: its name, the same on both sides.
        status: `copied`; `known`: it was there; `would copy`; `gone`: deleted before its turn came;
            `conflict`: another one has its name there; `busy`: somebody writes it; `failed`.
        size_bytes: of its tensor files.
        reason: why it was left out.
    """

    exp_hash: str
    step: int
    revision: int
    status: str
    size_bytes: int = 0
    reason: str | None = None

    @property
    def reference(self) -> str:
        """How people name it."""
        revision = "" if self.revision == 1 else f".r{self.revision}"
        return f"{self.exp_hash}@{self.step}{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """All of a transfer.

    Attributes:
        source: path of the root, or of the bundle.
        root: path of the root that it went to.
        is_dry_run: nothing was written.
        experiments, checkpoints: what became of each.
        gaps: what belongs to the lineage and was not in the source.
        written_bytes: of tensor files that were written.
        linked_bytes: of tensor files that got a further name instead.
    """

    source: str
    root: str
    is_dry_run: bool = False
    experiments: tuple[TransferredExperiment, ...] = ()
    checkpoints: tuple[TransferredCheckpoint, ...] = ()
    gaps: tuple[str, ...] = ()
    written_bytes: int = 0
    linked_bytes: int = 0

    @property
    def left_out(self) -> tuple[TransferredCheckpoint, ...]:
        """The checkpoints that are not there now, and were not deleted in the source."""
        return tuple(c for c in self.checkpoints if c.status not in _GOOD)

    @property
    def is_complete(self) -> bool:
        """True if everything that was chosen is there, or would be."""
        bad = (e for e in self.experiments if e.status == "failed" or e.problems)
        return not self.left_out and not any(bad)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "root": self.root,
            "is_dry_run": self.is_dry_run,
            "is_complete": self.is_complete,
            "written_bytes": self.written_bytes,
            "linked_bytes": self.linked_bytes,
            "experiments": [
                asdict(e) | {"problems": [{"name": n, "reason": r} for n, r in e.problems]}
                for e in self.experiments
            ],
            "checkpoints": [asdict(c) for c in self.checkpoints],
            "gaps": list(self.gaps),
        }

    def __str__(self) -> str:
        """Return at most 40 lines; what goes beyond is counted."""
        counts = Counter(c.status for c in self.checkpoints)
        told = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
        lines = [f"{self.source} -> {self.root}: {told or 'no checkpoints'}"]
        for experiment in self.experiments:
            if experiment.status == "failed":
                lines.append(f"failed: {experiment.exp_hash}: {experiment.reason}")
            lines += [f"not taken: {name}: {reason}" for name, reason in experiment.problems]
        lines += [f"{c.status}: {c.reference}: {c.reason}" for c in self.left_out]
        lines += [f"not in the source: {gap}" for gap in self.gaps]
        shown, left = lines[: _MAX_LINES - 1], lines[_MAX_LINES - 1 :]
        more = [f"... and {len(left):,} more"] if left else []
        return "\n".join(inert(line) for line in [*shown, *more])


def inert(text: str) -> str:
    """Escape what a terminal would obey: names come from files of others."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
