"""What an import did, would do, or could not do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["ImportReport", "ImportedCheckpoint"]

SCHEMA: Final = "weightslab.import-report"
SCHEMA_VERSION: Final = 1
_MAX_LINES: Final = 40  # what a terminal shows without scrolling


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCheckpoint:
    """What became of one checkpoint of a source.

    Attributes:
        format: of the source.
        key: its name in the source.
        status: `imported`, `known` (it was imported before), `would import` or `failed`.
        exp_hash: its experiment here; None if it failed.
        step, revision: its name here; None if it failed, the revision also where nothing was written.
        size_bytes: bytes of its files in the source.
        omitted: what of it was left out, and why.
        damaged: parts that should be there and could not be used, and why; the rest was imported.
        reason: why it failed.
    """

    format: str
    key: str
    status: str
    exp_hash: str | None = None
    step: int | None = None
    revision: int | None = None
    size_bytes: int = 0
    omitted: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    reason: str | None = None

    def __str__(self) -> str:
        """Return one line."""
        where = "" if self.exp_hash is None else f" -> {self.exp_hash} step {self.step}"
        where += f" revision {self.revision}" if (self.revision or 1) > 1 else ""
        why = "" if self.reason is None else f": {self.reason}"
        return _inert(f"{self.status}: {self.key} ({self.format}){where}{why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """All of an import.

    Attributes:
        source, root: paths.
        is_dry_run: nothing was written.
        checkpoints: one for each that was found.
        problems: (name, reason) of what is no checkpoint and could not be used: metadata that points to
            files that are gone, files of no known format.
    """

    source: str
    root: str
    is_dry_run: bool
    checkpoints: tuple[ImportedCheckpoint, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def failed(self) -> tuple[ImportedCheckpoint, ...]:
        """Those that could not be imported."""
        return tuple(c for c in self.checkpoints if c.status == "failed")

    @property
    def is_complete(self) -> bool:
        """True if everything that was found is in the root, or would be."""
        return not (self.failed or self.problems or any(c.damaged for c in self.checkpoints))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "root": self.root,
            "is_dry_run": self.is_dry_run,
            "is_complete": self.is_complete,
            "checkpoints": [
                asdict(c) | {"omitted": list(c.omitted), "damaged": list(c.damaged)}
                for c in self.checkpoints
            ],
            "problems": [{"name": name, "reason": reason} for name, reason in self.problems],
        }

    def __str__(self) -> str:
        """Return at most 40 lines; what goes beyond is counted."""
        counts = Counter(c.status for c in self.checkpoints)
        told = (
            ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items())) or "nothing found"
        )
        lines = [f"{self.source} -> {self.root}: {told}"]
        bad = [str(c) for c in self.failed]
        bad += [_inert(f"not used: {name}: {reason}") for name, reason in self.problems]
        bad += [_inert(f"not used: {c.key}: {why}") for c in self.checkpoints for why in c.damaged]
        lines += [*bad, *(str(c) for c in self.checkpoints if c.status != "failed")]
        omitted = Counter(line for c in self.checkpoints for line in c.omitted)
        beside = [_inert(f"left out of {n:,}: {line}") for line, n in sorted(omitted.items())]
        room = max(0, _MAX_LINES - 1 - len(beside[:8]))
        shown, left = lines[:room], lines[room:]
        more = [f"... and {len(left):,} more"] if left else []
        return "\n".join([*shown, *more, *beside[:8]])


def _inert(text: str) -> str:
    """Escape what a terminal would obey: names come from files of others."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
