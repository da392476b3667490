"""The report of a collection: what went, what stayed, why, and how many bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from weightslab.engine.retention.planning import DROP, KEEP, LEAVE, THIN, Decision
from weightslab.engine.screen import MAX_COLUMNS, MAX_LINES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from weightslab.engine.repository.layout import CheckpointName

__all__ = ["GcReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What a collection has done, or would do. `print` shows a screen of it.

    Attributes:
        dry_run: nothing was changed; everything is told as it would be.
        decisions: one for each checkpoint: name, action (`keep`, `thin`, `drop`, `leave`), reason,
            freed bytes.
        kept_bytes: tensor files of what stays, shared bytes once.
        freed_bytes: what nobody owns any more once the trash is emptied.
        emptied: what was deleted from the trash for good, because its time there was over.
        emptied_bytes: of these; bytes that others own, too, are counted.
        trash_lifetime: how long what was dropped can be restored.
        problems: what could not be done or reached, in words; earlier failures of the retention of a
            manager, too.
    """

    dry_run: bool
    decisions: tuple[Decision, ...] = ()
    kept_bytes: int = 0
    freed_bytes: int = 0
    emptied: tuple[str, ...] = ()
    emptied_bytes: int = 0
    trash_lifetime: timedelta
    problems: tuple[str, ...] = ()

    @property
    def dropped(self) -> tuple[CheckpointName, ...]:
        """What was moved to the trash."""
        return self._names(DROP)

    @property
    def thinned(self) -> tuple[CheckpointName, ...]:
        """What lost its training state: the names of the revisions that had it."""
        return self._names(THIN)

    @property
    def kept(self) -> tuple[CheckpointName, ...]:
        """What stays as it is."""
        return self._names(KEEP)

    def _names(self, action: str) -> tuple[CheckpointName, ...]:
        return tuple(decision.name for decision in self.decisions if decision.action == action)

    def with_problems(self, problems: Iterable[str]) -> GcReport:
        """Return the report with more problems, told first."""
        return replace(self, problems=(*problems, *self.problems))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "dry_run": self.dry_run,
            "decisions": [
                {
                    "exp_hash": d.name.exp_hash,
                    "step": d.name.step,
                    "revision": d.name.revision,
                    "action": d.action,
                    "reason": d.reason,
                    "freed_bytes": d.freed_bytes,
                }
                for d in self.decisions
            ],
            "kept_bytes": self.kept_bytes,
            "freed_bytes": self.freed_bytes,
            "emptied": list(self.emptied),
            "emptied_bytes": self.emptied_bytes,
            "trash_lifetime_seconds": self.trash_lifetime.total_seconds(),
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        """Return at most 40 lines of 100 columns; what is left out is counted."""
        head = [self._head(), *(f"  problem: {problem}" for problem in self.problems[:8])]
        if len(self.problems) > 8:  # noqa: PLR2004 - of 40 lines
            head.append(f"  and {len(self.problems) - 8:,} more problems")
        tail = self._tail()
        told = [f"  {decision}" for action in (DROP, THIN, KEEP) for decision in self._of(action)]
        room = MAX_LINES - len(head) - len(tail)
        if len(told) > room:
            told = [*told[: room - 1], f"  and {len(told) - room + 1:,} more checkpoints"]
        return "\n".join(_clean(line) for line in [*head, *told, *tail])

    def _of(self, action: str) -> list[Decision]:
        return [decision for decision in self.decisions if decision.action == action]

    def _head(self) -> str:
        counts = {action: len(self._of(action)) for action in (DROP, THIN, KEEP, LEAVE)}
        would = "would be " if self.dry_run else ""
        left = f", {counts[LEAVE]:,} damaged left" if counts[LEAVE] else ""
        return (
            f"{counts[DROP]:,} {would}dropped, {counts[THIN]:,} {would}thinned, {counts[KEEP]:,} kept"
            f"{left}: {self.freed_bytes:,} bytes freed, {self.kept_bytes:,} kept"
        )

    def _tail(self) -> list[str]:
        lines = []
        if self.emptied:
            would = "would be deleted" if self.dry_run else "deleted"
            lines.append(
                f"  {would} from the trash for good: {len(self.emptied):,}, "
                f"{self.emptied_bytes:,} bytes"
            )
        if self.dropped or self.thinned:
            if self.trash_lifetime:
                until = f"in the trash for {_days(self.trash_lifetime)}; their bytes are free after that"
            else:
                until = "deleted at once, without a time in the trash"
            lines.append(f"  what is dropped is {until}")
        return lines


def _days(lifetime: timedelta) -> str:
    days = lifetime.total_seconds() / 86_400
    return f"{days:,.3g} day{'' if days == 1 else 's'}" if days >= 1 else str(lifetime)


def _clean(line: str) -> str:
    """Return one line that does what it shows: nothing that a terminal obeys."""
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= MAX_COLUMNS else line[: MAX_COLUMNS - 3] + "..."
