"""Needs: what must stay because something else stays.

A checkpoint that is kept needs
    its branch point      the checkpoint it names as parent, if that is of another experiment, or if
                          another kept checkpoint of its experiment names the same one
    its way               every checkpoint of the experiments that its `via` names
    its step's answer     the highest readable revision of its step, which would else be answered
                          by an older one

so the set that is kept is closed under this, and the smallest one that is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightslab.engine.retention.facts import Candidate, Child
    from weightslab.engine.values import ParentLink

__all__ = ["Family", "Kept"]


class Family:
    """The readable checkpoints by name, and who comes from whom. Positions are those of `members`.

    Args:
        members: every readable checkpoint.
    Attributes:
        of_experiment: exp_hash -> positions.
        answers: position -> position of what answers for its step.
        outdated: positions of originals whose thinned revision is there, too.
        has_revisions: some step has several.
    """

    def __init__(self, members: Sequence[Candidate]) -> None:
        self.members = members
        self.of_experiment: dict[str, list[int]] = defaultdict(list)
        self.answers = list(range(len(members)))
        self.outdated: set[int] = set()
        self._of_step: dict[tuple[str, int], list[int]] = {}
        several = set()
        for at, member in enumerate(members):
            name = member.entry.name
            self.of_experiment[name.exp_hash].append(at)
            key = name.exp_hash, name.step
            if key in self._of_step:
                self._of_step[key].append(at)
                several.add(key)
            else:
                self._of_step[key] = [at]
        self.has_revisions = bool(several)
        for key in several:
            self._order_revisions(self._of_step[key])

    def _order_revisions(self, found: list[int]) -> None:
        members = self.members
        found.sort(key=lambda at: members[at].entry.name.revision)
        origins = {members[at].derived_from for at in found} - {None}
        self.outdated |= {at for at in found if members[at].entry.digest in origins}
        for at in found:
            self.answers[at] = found[-1]

    def find(self, link: ParentLink) -> int | None:
        """Return the checkpoint that a link names, or what took its place; None if none is left.

        What was thinned from it stands for it: its weights are the same.
        """
        if link.exp_hash is None or link.step is None:
            return None
        found = self._of_step.get((link.exp_hash, link.step))
        if found is None or len(found) == 1:
            return None if found is None else found[0]
        for at in reversed(found):
            if link.manifest_digest and self.members[at].derived_from == link.manifest_digest:
                return at
        for at in found:
            if self.members[at].entry.name.revision == link.revision:
                return at
        return found[-1]


class Kept:
    """A set of checkpoints that grows, with all that they need; each with its reason.

    Args:
        family: the checkpoints.
    Attributes:
        reasons: position -> why it is kept.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self.reasons: dict[int, str] = {}
        self._lines: dict[int, str] = {}  # parent -> the first line that goes on from it
        self._new_lines: list[int] = []  # parents whose first line came with the last `add`

    def add_outside(self, children: Iterable[Child]) -> None:
        """Add what checkpoints need that are not planned."""
        for child in children:
            needs: list[tuple[int, str]] = []
            self._note_origin(child.exp_hash, child.parent, None, needs)
            self.add_all(needs)

    def add_all(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Add checkpoints, with reasons, and what they need."""
        self._spread(list(wanted))

    def add(self, at: int, reason: str) -> list[int]:
        """Add a checkpoint and what it needs; returns what was added."""
        return self._spread([(at, reason)])

    def _spread(self, waiting: list[tuple[int, str]]) -> list[int]:
        members, answers, reasons = self._family.members, self._family.answers, self.reasons
        self._new_lines.clear()
        added = []
        while waiting:
            at, reason = waiting.pop()
            if at in reasons:
                continue
            reasons[at] = reason
            added.append(at)
            member = members[at]
            name, link = member.entry.name, member.entry.parent
            if answers[at] != at:
                why = f"answers for its step, of which revision {name.revision} stays"
                waiting.append((answers[at], why))
            if link is not None and (link.exp_hash is not None or link.via):
                line = member.derived_from or member.entry.digest
                self._note_origin(name.exp_hash, link, line, waiting)
        return added

    def undo(self, added: Iterable[int]) -> None:
        """Take the last `add` back, given what it returned."""
        for at in added:
            del self.reasons[at]
        for parent in self._new_lines:
            del self._lines[parent]
        self._new_lines.clear()

    def _note_origin(
        self, exp_hash: str, link: ParentLink, line: str | None, needs: list[tuple[int, str]]
    ) -> None:
        """Add to `needs` what a checkpoint needs for where it came from."""
        parent = self._family.find(link)
        if parent is not None and link.exp_hash != exp_hash:
            needs.append((parent, f"branch point of {exp_hash}"))
        elif parent is not None and line is not None:
            first = self._lines.get(parent)
            if first is None:
                self._lines[parent] = line
                self._new_lines.append(parent)
            elif first != line:
                needs.append((parent, "branch point within its experiment"))
        for passed in link.via:
            why = f"its experiment is in the via of {exp_hash}"
            needs += [(at, why) for at in self._family.of_experiment.get(passed, ())]
