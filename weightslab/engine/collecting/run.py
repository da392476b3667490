"""One run of a collection: the plan, carried out step by step and held against the root before each."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Final

from weightslab.engine.care.trashing import restore, thin
from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    LockedError,
    PinnedError,
    StorageError,
)
from weightslab.engine.repository.catalog import in_order
from weightslab.engine.repository.findings import Tally
from weightslab.engine.repository.notes import read_notes
from weightslab.engine.repository.trash import trash_checkpoints
from weightslab.engine.repository.verify import verify_checkpoint
from weightslab.engine.retention.planning import (
    DROP,
    KEEP,
    THIN,
    Plan,
    plan_retention,
    settled,
)
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.collecting.survey import Survey
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.retention.facts import Candidate
    from weightslab.engine.retention.planning import Decision
    from weightslab.engine.retention.rules import Retention

__all__ = ["MARK", "Run"]

MARK: Final = "retention: "  # what the reason of everything begins with that goes to the trash here


class Run:
    """One collection.

    Args:
        place: the root.
        survey: what it holds, looked at just now.
        retention: what to keep.
        must_verify: read what is to stay in the stead of what goes.
    Attributes:
        plan: what is to be done; made again whenever the root changed.
        problems: what went wrong, in words.
    """

    def __init__(
        self, place: Keeper, survey: Survey, retention: Retention, *, must_verify: bool
    ) -> None:
        self._place = place
        self._survey = survey
        self._retention = retention
        self._must_verify = must_verify
        self._tally = Tally()
        self._verified: set[CheckpointName] = set()
        self._broken: dict[CheckpointName, str] = {}  # found damaged by reading
        self._busy: dict[CheckpointName, str] = {}  # could not be had alone, so it stays
        self._dropped: dict[CheckpointName, Candidate] = {}
        self._thinned: set[CheckpointName] = set()
        self._must_plan = False
        self.problems: list[str] = []
        self.plan = self._make_plan()
        self._first = self.plan, self._members

    @property
    def has_changed(self) -> bool:
        """Something was dropped or thinned."""
        return bool(self._dropped or self._thinned)

    def carry_out(self) -> None:
        """Drop, thin, and bring back what is needed after all."""
        self._drop()
        for decision in self._first[0].of(THIN):
            self._thin(decision)
        returned = self._bring_back() if self._dropped else []
        self._tell(returned)

    def settled(self) -> Plan:
        """Return the first plan as it was carried out."""
        plan, members = self._first
        undone = {
            decision.name: self._busy.get(decision.name, "the root has changed meanwhile")
            for decision in (*plan.of(DROP), *plan.of(THIN))
            if decision.name not in self._dropped and decision.name not in self._thinned
        }
        return settled(plan, members, undone)

    # ------------------------------------------------------------ planning
    def _make_plan(self) -> Plan:
        """Plan over what is there now; what has to be whole is read first, each once."""
        while True:
            self._must_plan = False
            self._members = [self._as_known(member) for member in self._survey.candidates()]
            outside = self._survey.outside()
            plan = plan_retention(self._members, self._retention, outside=outside)
            if not self._must_verify or not self._find_broken(plan.guards):
                self._decisions = {decision.name: decision for decision in plan.decisions}
                good = in_order(m.entry for m in self._members if m.damaged is None)
                self._newest = {entry.name.exp_hash: entry.name for entry in good}
                return plan

    def _as_known(self, member: Candidate) -> Candidate:
        name = member.entry.name
        if name in self._broken and member.damaged is None:
            return replace(member, damaged=self._broken[name])
        if name in self._busy and member.untouchable is None:
            return replace(member, untouchable=self._busy[name])
        return member

    def _find_broken(self, guards: Iterable[CheckpointName]) -> bool:
        """Read every byte of what was not read yet; returns whether some of it is of no use."""
        found = False
        for name in sorted(set(guards) - self._verified, key=lambda name: name.stem):
            self._verified.add(name)
            for finding in verify_checkpoint(self._place.store, name, self._tally)[:1]:
                self._broken[name] = str(finding)  # what cannot be read now guards nothing either
                found = True
        return found

    def _look_again(self) -> None:
        """Plan anew if the root changed since the plan was made."""
        if self._survey.refresh() or self._must_plan:
            self.plan = self._make_plan()

    def _allow(self, name: CheckpointName, action: str) -> None:
        """Raise unless `action` is still what is to be done; nobody else can change `name` now.

        Raises: LockedError, PinnedError.
        """
        self._look_again()
        newest = self._newest.get(name.exp_hash)
        if newest is not None and self._place.store.stat(newest.manifest_key) is None:
            self._survey.look(name.exp_hash, always=True)  # somebody deleted it meanwhile
            self.plan = self._make_plan()
        decision = self._decisions.get(name)
        if decision is None or decision.action != action:
            reason = "it is not known any more" if decision is None else decision.reason
            raise LockedError(f"the root changed meanwhile: {reason}")
        if read_notes(self._place.store, name.exp_hash).is_pinned(name):
            raise PinnedError("it was pinned meanwhile, or its notes cannot be read now")

    # ------------------------------------------------------------ doing
    def _drop(self) -> None:
        """Drop in the order of the plan, what lies together in one experiment at a time."""
        batches = groupby(self.plan.of(DROP), key=lambda decision: decision.name.exp_hash)
        for batch in [list(found) for _, found in batches]:
            self._look_again()
            due = {d.name: self._decisions.get(d.name) for d in batch}
            reasons = {n: MARK + d.reason for n, d in due.items() if d and d.action == DROP}
            known = {member.entry.name: member for member in self._members}
            try:
                done = trash_checkpoints(
                    self._place.store,
                    reasons,
                    now=self._place.clock(),
                    allow=lambda name: self._allow(name, DROP),
                )
            except StorageError as error:
                self._sort_out(reasons, known, error)
                continue
            for name, result in done.items():
                if isinstance(result, CheckpointError):
                    self._pass_over(name, result)
                else:
                    self._dropped[name] = known[name]
            self._survey.expect(batch[0].name.exp_hash, gone=self._dropped.keys() & done.keys())

    def _sort_out(
        self,
        names: Iterable[CheckpointName],
        known: dict[CheckpointName, Candidate],
        error: StorageError,
    ) -> None:
        """Note what is gone and what is not after a batch that failed in its middle."""
        self.problems.append(f"not all could be dropped: {error}")
        for name in names:
            if self._place.store.stat(name.manifest_key) is None:
                self._dropped[name] = known[name]
            else:
                self._busy[name] = str(error)
        self._must_plan = True

    def _pass_over(self, name: CheckpointName, error: CheckpointError) -> None:
        self._must_plan = True
        if isinstance(error, CheckpointNotFoundError):
            self._survey.look(name.exp_hash, always=True)
            return  # somebody else was faster
        self._busy[name] = str(error)
        self.problems.append(f"{name.stem} stays for now: {error}")

    def _thin(self, decision: Decision) -> None:
        name = decision.name
        try:
            made = thin(self._place, name, allow=lambda name: self._allow(name, THIN), mark=MARK)
        except CheckpointError as error:
            self._pass_over(name, error)
        else:
            self._thinned.add(name)
            self._survey.expect(name.exp_hash, gone={name}, come={made.name})

    def _bring_back(self) -> list[CheckpointName]:
        """Restore what is needed by something that came, or could not go, since it was dropped."""
        for exp_hash in {name.exp_hash for name in (*self._dropped, *self._thinned)}:
            self._survey.look(exp_hash, always=True)
        self._survey.refresh()
        there = [self._as_known(member) for member in self._survey.candidates()]
        names = {member.entry.name for member in there}
        gone = [member for name, member in self._dropped.items() if name not in names]
        outside = self._survey.outside()
        plan = plan_retention([*there, *gone], self._retention, outside=outside)
        returned = []
        for decision in (*plan.of(KEEP), *plan.of(THIN)):
            if decision.name in self._dropped and decision.name not in names:
                returned += self._restore(decision)
        return returned

    def _restore(self, decision: Decision) -> list[CheckpointName]:
        name = decision.name
        try:
            restore(self._place, name)
        except CheckpointError as error:
            self.problems.append(
                f"{name.stem} is needed after all ({decision.reason}), and is in the trash: {error}"
            )
            return []
        self.problems.append(f"{name.stem} came back from the trash: {decision.reason}")
        self._busy[name] = decision.reason
        del self._dropped[name]
        self._survey.look(name.exp_hash, always=True)
        return [name]

    def _tell(self, returned: Iterable[CheckpointName]) -> None:
        """Write a line for each experiment into the journal."""
        told: dict[str, dict[str, list[str]]] = {}
        lists = {"dropped": self._dropped, "thinned": self._thinned, "restored": returned}
        for event, names in lists.items():
            for name in names:
                told.setdefault(name.exp_hash, {}).setdefault(event, []).append(name.stem)
        for exp_hash, facts in told.items():
            record_event(self._place, "checkpoints_collected", exp_hash=exp_hash, **facts)
