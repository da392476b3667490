"""The collector: carries a plan out, looking again before each removal.

    empty the trash -> look -> plan -> verify what is to stay in the stead of what goes -> drop, thin
      -> look again: what is needed after all comes back from the trash

Whatever is saved, pinned, loaded or collected beside it: what a plan would keep is not lost. Killed
anywhere, each checkpoint is in its place or whole in the trash, and a second collection goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from weightslab.engine.collecting.report import GcReport
from weightslab.engine.collecting.run import MARK, Run
from weightslab.engine.collecting.survey import Survey
from weightslab.engine.errors import StorageError
from weightslab.engine.repository.trash import empty_trash, list_trash
from weightslab.engine.retention.planning import LEAVE
from weightslab.engine.retention.rules import TRASH_LIFETIME

if TYPE_CHECKING:
    from datetime import datetime

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.trash import TrashEntry
    from weightslab.engine.retention.planning import Plan
    from weightslab.engine.retention.rules import Retention

__all__ = ["Collector"]

_TICK: Final = timedelta(microseconds=1)
_EMPTY_EVERY: Final = timedelta(hours=1)  # looking through the trash takes 0.1 ms an entry


class Collector:
    """Applies a retention to a root, once or again and again. Not thread-safe.

    Args:
        place: the root.
        retention: what to keep.
        focus: the one experiment to decide about; None for all. A retention that spans the root
            always decides about all.
        verify: `full`: before anything is dropped, every byte is read of what is to be newest or best,
            or to answer for a step, in its stead; `size`: its files are looked at alone.
    """

    def __init__(
        self,
        place: Keeper,
        retention: Retention,
        *,
        focus: str | None = None,
        verify: str = "full",
    ) -> None:
        self._place = place
        self._retention = retention
        self._survey = Survey(place, focus=None if retention.spans_root else focus)
        self._must_verify = verify == "full"
        self._emptied_at: datetime | None = None

    def collect(self, *, dry_run: bool = False) -> GcReport:
        """Carry the retention out, or tell what it would do.

        Returns: the report; what could not be done is told in its `problems`.
        Raises: StorageError if the root cannot be looked at.
        """
        emptied = self._empty(dry_run=dry_run)
        self._survey.refresh()
        run = Run(self._place, self._survey, self._retention, must_verify=self._must_verify)
        problems, plan = list(emptied.problems), run.plan
        if not dry_run:
            run.carry_out()
            plan, problems = run.settled(), problems + run.problems
            if run.has_changed and not self._retention.trash_lifetime:
                more = self._empty_own()
                problems += more.problems
                emptied = (
                    more if not emptied.entries else _Emptied((*emptied.entries, *more.entries))
                )
        return GcReport(
            dry_run=dry_run,
            decisions=plan.decisions,
            kept_bytes=plan.kept_bytes,
            freed_bytes=plan.freed_bytes,
            emptied=tuple(entry.name.stem for entry in emptied.entries),
            emptied_bytes=sum(entry.size_bytes for entry in emptied.entries),
            trash_lifetime=self._retention.trash_lifetime,
            problems=(*plan.problems, *problems, *self._left_alone(plan)),
        )

    def _left_alone(self, plan: Plan) -> list[str]:
        """Tell what a plan says nothing about, because too little of it is known."""
        found = [
            f"nothing of experiment {exp_hash} is changed: {why}"
            for exp_hash, why in sorted(self._survey.left_alone().items())
        ]
        return found + [
            f"{decision.name.stem} is left where it is, {decision.reason}"
            for decision in plan.of(LEAVE)
        ]

    # ------------------------------------------------------------ the trash
    def _empty(self, *, dry_run: bool) -> _Emptied:
        """Delete for good what was in the trash for its time: that of the retention for what a
        collection put there, 7 days or more for what people did.
        """
        now, lifetime = self._place.clock(), self._retention.trash_lifetime
        if self._emptied_at is not None and now - self._emptied_at < _EMPTY_EVERY:
            return _Emptied()
        others = max(lifetime, TRASH_LIFETIME)
        if dry_run:
            entries = list_trash(self._place.store)
            return _Emptied(tuple(e for e in entries if _is_over(e, now, lifetime, others)))
        self._emptied_at = now
        try:
            store = self._place.store
            found = empty_trash(store, before=now - others)
            if lifetime < others:
                found += empty_trash(store, before=now - lifetime, mark=MARK)
        except StorageError as error:
            return _Emptied(problems=(f"the trash could not be emptied: {error}",))
        return _Emptied(tuple(found))

    def _empty_own(self) -> _Emptied:
        try:
            before = self._place.clock() + _TICK
            return _Emptied(tuple(empty_trash(self._place.store, before=before, mark=MARK)))
        except StorageError as error:
            return _Emptied(problems=(f"the trash could not be emptied: {error}",))


@dataclass(frozen=True, slots=True)
class _Emptied:
    """What was deleted for good, and what went wrong."""

    entries: tuple[TrashEntry, ...] = ()
    problems: tuple[str, ...] = ()


def _is_over(entry: TrashEntry, now: datetime, lifetime: timedelta, others: timedelta) -> bool:
    if entry.trashed_at is None:
        return False
    return now - entry.trashed_at > (lifetime if entry.reason.startswith(MARK) else others)
