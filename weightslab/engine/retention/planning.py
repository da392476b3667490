"""The plan: of each checkpoint whether it stays, is thinned or goes, why, and how many bytes that frees.

policies choose -> what is never dropped -> what those need -> training state -> budget
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from weightslab.engine.repository.catalog import recency
from weightslab.engine.retention.budgeting import Meter, drop_to_fit, files_left, thin_to_fit
from weightslab.engine.retention.needs import Family, Kept
from weightslab.engine.retention.policies import (
    ROOT,
    CustomSteps,
    EveryNSteps,
    PreserveAll,
    policies_in,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.retention.facts import Candidate, Child, FileFacts
    from weightslab.engine.retention.policies import AnyOf, BestN, ByteBudget, RetentionPolicy
    from weightslab.engine.retention.rules import Retention

__all__ = ["DROP", "KEEP", "LEAVE", "THIN", "Decision", "Plan", "plan_retention", "settled"]

_Group = tuple[list[int], list["CheckpointEntry"]]  # positions in the order of a scope
KEEP: Final = "keep"
THIN: Final = "thin"
DROP: Final = "drop"
LEAVE: Final = "leave"


class Decision(NamedTuple):
    """What becomes of one checkpoint. A tuple: 10,000 of them take 8 ms, frozen dataclasses 22.

    Attributes:
        name: the checkpoint.
        action: `keep`; `thin`: its training state goes and its weights stay; `drop`; `leave`: it is
            damaged, which is for `quarantine` to deal with.
        reason: why, in words.
        freed_bytes: what this frees once the trash is emptied, after the decisions before it; bytes
            that somebody else owns, too, are not freed.
    """

    name: CheckpointName
    action: str
    reason: str
    freed_bytes: int = 0

    def __str__(self) -> str:
        freed = f", {self.freed_bytes:,} bytes" if self.freed_bytes else ""
        return f"{self.action} {self.name.stem}: {self.reason}{freed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        decisions: one for each checkpoint, in the order in which they are carried out: what is
            dropped, so that children go before their parents and older revisions before the one
            that answers for their step; what is thinned; then everything else, oldest first.
        guards: what is to be newest or best, or to answer for a step, in the stead of what goes; it
            has to be readable to the last byte.
        kept_bytes: tensor files of all that stays, shared bytes once.
        problems: what could not be reached, such as a budget that is less than what must stay.
    """

    decisions: tuple[Decision, ...] = ()
    guards: frozenset[CheckpointName] = frozenset()
    kept_bytes: int = 0
    problems: tuple[str, ...] = ()

    def of(self, action: str) -> tuple[Decision, ...]:
        """Return the decisions of one kind."""
        return tuple(d for d in self.decisions if d.action == action)

    @property
    def freed_bytes(self) -> int:
        """Bytes that are freed once the trash is emptied."""
        return sum(decision.freed_bytes for decision in self.decisions)


def plan_retention(
    candidates: Sequence[Candidate], retention: Retention, *, outside: Iterable[Child] = ()
) -> Plan:
    """Decide about checkpoints. Pure; the order of `candidates` does not matter.

    Planned again over what stays, it drops and thins nothing more. O(n log n).

    Args:
        candidates: every checkpoint of the experiments that are decided about, damaged ones too.
        retention: what is wanted.
        outside: what checkpoints of other experiments say of their origin.
    Raises: ValueError if a policy of the user does not answer for each checkpoint.
    """
    return _Planner(candidates, retention, outside).plan()


def settled(
    plan: Plan, candidates: Sequence[Candidate], undone: Mapping[CheckpointName, str]
) -> Plan:
    """Return a plan as it was carried out.

    Args:
        plan: what was to be done.
        candidates: what it was made from.
        undone: what was not thinned or dropped -> why it stayed.
    """
    members = {member.entry.name: member for member in candidates}
    names, meter, decisions = _NameCount(candidates), Meter(), []
    for name, action, reason, _ in plan.decisions:
        files, freed = members[name].files, 0
        if name in undone:
            action, reason = KEEP, f"stays for now: {undone[name]}"  # noqa: PLW2901
        if action == DROP:
            freed = names.remove(files)
        elif action == THIN:
            freed = names.remove([file for file in files if file.is_training])
        if action in (KEEP, THIN):
            meter.add("", files_left(members[name], is_thin=action == THIN))
        decisions.append(Decision(name, action, reason, freed))
    return replace(plan, decisions=tuple(decisions), kept_bytes=meter.size_bytes[""])


class _Planner:
    """Positions are those in `members`: the readable checkpoints, oldest first."""

    def __init__(
        self, candidates: Sequence[Candidate], retention: Retention, outside: Iterable[Child]
    ) -> None:
        readable = [candidate for candidate in candidates if candidate.damaged is None]
        self.members = sorted(readable, key=lambda member: recency(member.entry))
        self.damaged = [candidate for candidate in candidates if candidate.damaged is not None]
        self.retention = retention
        self.family = Family(self.members)
        self.entries = [member.entry for member in self.members]
        self.everything: _Group = [*range(len(self.members))], self.entries
        self.groups: list[_Group] = []
        for found in self.family.of_experiment.values():
            group = sorted(found, key=self._sequence)
            self.groups.append((group, [self.entries[at] for at in group]))
        self.newest = {group[-1] for group, _ in self.groups}
        self._known: dict[int, dict[int, str]] = {}
        self.best = self._find_best()
        self.outside = tuple(outside)
        self.damaged_revision: dict[tuple[str, int], int] = {}
        for candidate in self.damaged:
            name = candidate.entry.name
            highest = max(self.damaged_revision.get((name.exp_hash, name.step), 0), name.revision)
            self.damaged_revision[name.exp_hash, name.step] = highest

    def _sequence(self, at: int) -> tuple[Any, ...]:
        entry = self.entries[at]
        return entry.sequence, entry.created_at, entry.name.step, entry.name.revision

    def plan(self) -> Plan:
        wanted = self._choose(self.retention.keep)
        problems: list[str] = []
        kept = self._protect()
        kept.add_all(wanted.items())
        budget = self.retention.budget
        thinnable, thin = self._thin(kept.reasons)
        if budget is not None:
            full = thin_to_fit(
                self.members,
                kept.reasons,
                thin,
                thinnable,
                max_bytes=budget.max_bytes,
                buckets=self._buckets(budget),
            )
            if full:
                kept = self._protect()
                unmet = drop_to_fit(
                    self.members,
                    kept,
                    self._by_worth(wanted),
                    wanted,
                    thin,
                    max_bytes=budget.max_bytes,
                    buckets=self._buckets(budget),
                )
                problems += [self._unmet(*found) for found in sorted(unmet.items())]
        return self._decided(kept.reasons, thin & kept.reasons.keys(), wanted, problems)

    # ------------------------------------------------------------ what stays
    def _choose(
        self, policy: RetentionPolicy | AnyOf, among: Collection[int] | None = None
    ) -> dict[int, str]:
        """Return position -> reason of what a policy keeps, `among` some or all of the checkpoints.

        An original whose thinned revision is there takes no place among the newest or best.
        """
        chosen: dict[int, str] = {}
        for single in policies_in(policy):
            if among is not None:
                found = self._chosen_by(single, among)
            elif id(single) in self._known:  # one of a user may have no hash
                found = self._known[id(single)]
            else:
                found = self._known[id(single)] = self._chosen_by(single, None)
            chosen = found | chosen  # the reason of the policy that stands first
        return chosen

    def _chosen_by(self, policy: RetentionPolicy, among: Collection[int] | None) -> dict[int, str]:
        chosen: dict[int, str] = {}
        for group in self._groups(policy):
            shown, entries = self._shown(group, policy, among)
            reasons = policy.choose(entries)
            if len(reasons) != len(shown):
                raise ValueError(
                    f"{policy!r:.80} gave {len(reasons)} answers about {len(shown)} checkpoints"
                )
            pairs = zip(shown, reasons, strict=True)
            chosen.update([(at, reason) for at, reason in pairs if reason is not None])
        return chosen

    def _groups(self, policy: RetentionPolicy) -> list[_Group]:
        # what looks at each checkpoint alone says the same of all at once
        is_shared = policy.scope == ROOT or isinstance(policy, (EveryNSteps, CustomSteps))
        return [self.everything] if is_shared else self.groups

    def _shown(
        self, group: _Group, policy: RetentionPolicy, among: Collection[int] | None
    ) -> _Group:
        outdated = self.family.outdated
        if among is None and (not outdated or isinstance(policy, PreserveAll)):
            return group
        shown = [at for at in group[0] if at not in outdated and (among is None or at in among)]
        return shown, [self.entries[at] for at in shown]

    def _protect(self) -> Kept:
        """Return what is never dropped, with all that it needs."""
        kept = Kept(self.family)
        kept.add_outside(self.outside)
        for at, member in enumerate(self.members):
            if member.untouchable is not None:
                kept.add(at, member.untouchable)
            elif member.is_pinned:
                kept.add(at, "pinned")
        if self.members:
            kept.add(len(self.members) - 1, "the newest of the root")
        for at in self.newest:
            kept.add(at, "the newest of its experiment")
        for policy, at in self.best:
            kept.add(at, f"the best by {policy.metric}")
        return kept

    def _find_best(self) -> list[tuple[BestN, int]]:
        """Return the best checkpoint by each policy that names a metric, in each of its scopes."""
        found = []
        for policy in self.retention.metrics:
            rated: dict[str, list[int]] = defaultdict(list)
            for at in self._choose(policy):
                rated[self.entries[at].name.exp_hash if policy.scope != ROOT else ""].append(at)
            for group in rated.values():
                ranking = policy.ranking([self.entries[at] for at in group])
                found += [(policy, group[first]) for first in ranking[:1]]
        return found

    def _by_worth(self, wanted: dict[int, str]) -> list[int]:
        """Return what policies keep, what is worth most first: the best ones, then the newer."""
        best: set[int] = set()
        for policy in self.retention.metrics:
            without = f"without {policy.metric}"
            best |= {at for at, reason in self._choose(policy).items() if reason != without}
        ordinary = sorted([at for at in wanted if at not in best], reverse=True)
        return sorted(best & wanted.keys(), reverse=True) + ordinary

    # ------------------------------------------------------------ training state
    def _can_thin(self, at: int) -> bool:
        """Tell whether the training state of a checkpoint may go.

        Only of what answers for its step: the thinned revision will answer for it.
        """
        member = self.members[at]
        if at in self.newest or self.family.answers[at] != at:
            return False
        if member.is_pinned or member.untouchable is not None or not member.has_training:
            return False
        if member.derived_from is not None:
            return False  # thin already; what it has left is the wrappers' own
        if self.damaged_revision:
            name = member.entry.name
            if name.revision < self.damaged_revision.get((name.exp_hash, name.step), 0):
                return False
        return any([file.is_training for file in member.files])  # noqa: C419 - half the time

    def _thin(self, kept: Collection[int]) -> tuple[list[int], set[int]]:
        """Return what may lose its training state, oldest first, and what does by the policy for it."""
        policies = policies_in(self.retention.training)
        is_wanted = not any(isinstance(policy, PreserveAll) for policy in policies)
        if not is_wanted and self.retention.budget is None:
            return [], set()
        thinnable = [at for at in sorted(kept) if self._can_thin(at)]
        if not is_wanted:
            return thinnable, set()
        full = self._choose(self.retention.training, kept)
        return thinnable, {at for at in thinnable if at not in full}

    # ------------------------------------------------------------ budget
    def _buckets(self, budget: ByteBudget) -> list[str]:
        if budget.scope == ROOT:
            return [""] * len(self.members)
        return [member.entry.name.exp_hash for member in self.members]

    def _unmet(self, bucket: str, size_bytes: int) -> str:
        assert self.retention.budget is not None, "only a budget can be unmet"
        where = f"of experiment {bucket}" if bucket else "of the root"
        return (
            f"the budget {where} cannot be met: it is {self.retention.budget.max_bytes:,} bytes, and "
            f"{size_bytes:,} bytes are in checkpoints that are never dropped"
        )

    # ------------------------------------------------------------ decisions
    def _decided(
        self,
        kept: dict[int, str],
        thin: Collection[int],
        wanted: Collection[int],
        problems: Sequence[str],
    ) -> Plan:
        members, answers = self.members, self.family.answers
        names = _NameCount([*members, *self.damaged])
        gone = [at for at in range(len(members)) if at not in kept]
        if self.family.has_revisions:
            gone.sort(key=lambda at: (-answers[at], members[at].entry.name.revision))
        else:
            gone.reverse()
        decisions = []
        for at in gone:
            freed, why = names.remove(members[at].files), self._why_gone(at, wanted)
            decisions.append(Decision(members[at].entry.name, DROP, why, freed))
        for at in sorted(thin):
            freed = names.remove([file for file in members[at].files if file.is_training])
            why = f"only its weights are kept: {kept[at]}"
            decisions.append(Decision(members[at].entry.name, THIN, why, freed))
        meter = Meter()
        for at in sorted(kept):
            meter.add("", files_left(members[at], is_thin=at in thin))
            if at not in thin:
                decisions.append(Decision(members[at].entry.name, KEEP, kept[at]))
        decisions += [
            Decision(bad.entry.name, LEAVE, f"damaged: {bad.damaged}")
            for bad in sorted(self.damaged, key=lambda candidate: candidate.entry.name.stem)
        ]
        return Plan(
            decisions=tuple(decisions),
            guards=self._guards(gone, thin),
            kept_bytes=meter.size_bytes[""],
            problems=tuple(problems),
        )

    def _guards(self, gone: Sequence[int], thin: Collection[int]) -> frozenset[CheckpointName]:
        touched = {self.members[at].entry.name.exp_hash for at in (*gone, *thin)}
        if not touched:
            return frozenset()
        here = {at for at in self.newest if self.members[at].entry.name.exp_hash in touched}
        for policy, at in self.best:
            if policy.scope == ROOT or self.members[at].entry.name.exp_hash in touched:
                here.add(at)
        here |= {self.family.answers[at] for at in gone}
        return frozenset(self.members[at].entry.name for at in here.difference(gone))

    def _why_gone(self, at: int, wanted: Collection[int]) -> str:
        answer = self.family.answers[at]
        if at in wanted:
            budget = self.retention.budget
            return f"beyond the budget of {budget.max_bytes if budget else 0:,} bytes"
        if answer == at:
            return "no policy keeps it"
        revision = self.members[answer].entry.name.revision
        if at in self.family.outdated:
            return f"thinned to revision {revision}"
        return f"revision {revision} answers for its step"


class _NameCount:
    """How many names of the same bytes are gone.

    Args:
        members: everything whose files are known.
    """

    def __init__(self, members: Iterable[Candidate]) -> None:
        files = [file for member in members for file in member.files if file.num_links > 1]
        self._known = Counter([file.identity for file in files])
        self._gone: dict[tuple[int, int], int] = {}

    def remove(self, files: Iterable[FileFacts]) -> int:
        """Take names away; returns the bytes that have none left."""
        freed = 0
        for file in files:
            if file.num_links > 1:
                count = self._gone.get(file.identity, 0) + 1
                self._gone[file.identity] = count
                if count < max(file.num_links, self._known[file.identity]):
                    continue
            freed += file.size_bytes
        return freed
