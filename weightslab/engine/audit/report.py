"""The answer of an audit: a verdict for each checkpoint, and what proves it."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.lineage.tree import plain_line
from weightslab.engine.repository.catalog import recency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from weightslab.engine.audit.membership import Wanted
    from weightslab.engine.audit.tracing import Trace
    from weightslab.engine.lineage.records import Found
    from weightslab.engine.repository.layout import CheckpointName

__all__ = ["AuditReport", "AuditedCheckpoint", "ProofStep"]

SCHEMA: Final = "weightslab.audit"
SCHEMA_VERSION: Final = 1
VERDICTS: Final = ("seen", "possible", "unknown", "clean")
_MAX_LINES: Final = 30
_MAX_SHOWN: Final = 5

Uids = tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofStep:
    """One step of the way from a checkpoint back to where a sample came in.

    Attributes:
        checkpoint: how people name it.
        exp_hash: an experiment that trained these weights: that of the checkpoint, or one that was
            current between its parent and it.
        how: `own` or `via`.
        active: samples that are active there.
        drawn: of these, those that the recorded positions prove to have been drawn there.
    """

    checkpoint: str
    exp_hash: str
    how: str
    active: Uids = ()
    drawn: Uids = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditedCheckpoint:
    """One checkpoint and the verdict about it.

    Attributes:
        name: experiment hash, step, revision.
        created_at: aware UTC time; None if its manifest is damaged.
        verdict: `seen`: trained with at least one of the samples, as recorded positions prove;
            `possible`: one of them was active in its ancestry; `unknown`: none was in what is known of
            its ancestry, and not all is known; `clean`: all is known, and none was.
        seen: samples that were seen.
        possible: samples that were active somewhere in its ancestry; those that were seen too.
        unknown: what is not known of its ancestry, whatever the verdict; None if all is.
    """

    name: CheckpointName
    created_at: datetime | None
    verdict: str
    seen: Uids
    possible: Uids
    unknown: str | None
    _trace: Trace
    _wanted: Wanted

    @property
    def reference(self) -> str:
        """How people name it: `3f2a9c1b00d14e77@100`."""
        return self._trace.hop.found.reference

    @property
    def is_tainted(self) -> bool:
        """It was, or may have been, trained with one of the samples."""
        return self.verdict in ("seen", "possible")

    @property
    def proof(self) -> tuple[ProofStep, ...]:
        """The way back from here to the nearest place where each sample of the verdict came in.

        Of a clean checkpoint the whole way; of an unknown one as far as it is known.
        """
        goal = self._trace.seen or self._trace.possible
        is_seen = bool(self._trace.seen)
        steps: list[ProofStep] = []
        at: Trace | None = self._trace
        while at is not None:
            steps += self._steps(at)
            found = at.drawn if is_seen else 0
            for mask in () if is_seen else at.held.values():
                found |= mask
            if goal and not (goal := goal & ~found):
                break
            at = at.parent
        return tuple(steps)

    def _steps(self, trace: Trace) -> Iterator[ProofStep]:
        own = trace.hop.found.name.exp_hash
        for exp_hash, mask in trace.held.items():
            yield ProofStep(
                checkpoint=trace.hop.found.reference,
                exp_hash=exp_hash,
                how="own" if exp_hash == own else "via",
                active=self._wanted.chosen(mask),
                drawn=self._wanted.chosen(trace.drawn) if exp_hash == own else (),
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "checkpoint": self.reference,
            "exp_hash": self.name.exp_hash,
            "step": self.name.step,
            "revision": self.name.revision,
            "created_at": self.created_at and self.created_at.isoformat(),
            "verdict": self.verdict,
            "seen": [*self.seen],
            "possible": [*self.possible],
            "unknown": self.unknown,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AuditReport:
    """The answer to `root.audit`; iterates over its checkpoints.

    Attributes:
        uids: the samples that were asked for.
        checkpoints: all checkpoints, by experiment and in the order of their commit.
        never_active: samples that are active in no experiment that could be read: look for a slip of
            the pen before you trust that they were never used.
    """

    uids: Uids
    checkpoints: tuple[AuditedCheckpoint, ...]
    never_active: Uids
    _traces: tuple[Trace, ...]
    _wanted: Wanted

    def __iter__(self) -> Iterator[AuditedCheckpoint]:
        """Yield the checkpoints."""
        return iter(self.checkpoints)

    def __len__(self) -> int:
        """Return the number of checkpoints."""
        return len(self.checkpoints)

    @property
    def tainted(self) -> tuple[AuditedCheckpoint, ...]:
        """Those that were, or may have been, trained with one of the samples."""
        return tuple(found for found in self.checkpoints if found.is_tainted)

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of checkpoints."""
        counted = Counter(found.verdict for found in self.checkpoints)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    @property
    def newest_clean(self) -> AuditedCheckpoint | None:
        """The newest checkpoint for which none of the samples is even possible; None without any."""
        clean = (found for found in self.checkpoints if found.verdict == "clean")
        return max(clean, key=lambda found: _recency(found._trace.hop.found), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as plain JSON values.

        `lineage` holds each checkpoint that a verdict rests on: its parent, the experiments that
        trained it since, and what is not known; `experiments` the samples that are active in each.
        So each verdict can be followed from `checkpoints` to where a sample came in.
        """
        active: dict[str, int] = {}
        for trace in self._traces:
            active |= trace.held
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "uids": [*self.uids],
            "never_active": [*self.never_active],
            "counts": self.counts,
            "newest_clean": None if self.newest_clean is None else self.newest_clean.reference,
            "checkpoints": [found.to_dict() for found in self.checkpoints],
            "experiments": {h: [*self._wanted.chosen(mask)] for h, mask in sorted(active.items())},
            "lineage": [self._lineage(trace) for trace in self._traces],
        }

    def _lineage(self, trace: Trace) -> dict[str, Any]:
        hop = trace.hop
        return {
            "checkpoint": hop.found.reference,
            "digest": hop.found.digest,
            "state": hop.found.state,
            "parent": None if trace.parent is None else trace.parent.hop.found.reference,
            "origin": "unknown" if hop.link is None else hop.link.kind,
            "trained_by": [*trace.held],
            "drawn": [*self._wanted.chosen(trace.drawn)],
            "unknown": trace.own_unknown,
        }

    def __str__(self) -> str:
        """Return the counts, the newest clean checkpoint and a line for each run of one verdict."""
        told = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items() if count)
        lines = [f"{_listed(self.uids)}: {told or 'no checkpoints'}"]
        clean = self.newest_clean
        lines.append(f"newest clean: {'none' if clean is None else clean.reference}")
        if self.never_active:
            lines.append(f"active in no experiment here: {_listed(self.never_active)}")
        runs = groupby(self.checkpoints, key=lambda c: (c.name.exp_hash, c.verdict, c.unknown))
        told_runs = [_run(list(run)) for _, run in runs]
        lines += told_runs[:_MAX_LINES]
        if len(told_runs) > _MAX_LINES:
            lines.append(f"and {len(told_runs) - _MAX_LINES} more lines; to_dict() has all")
        return "\n".join(map(plain_line, lines))

    def _repr_html_(self) -> str:
        """Return the same text, inert, for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"


def _recency(found: Found) -> tuple[Any, ...]:
    assert found.entry is not None, "a clean checkpoint has a record"
    return recency(found.entry)


def _run(run: list[AuditedCheckpoint]) -> str:
    first, last = run[0], run[-1]
    steps = f"step {first.name.step}"
    if len(run) > 1:
        steps = f"steps {first.name.step} to {last.name.step} ({len(run)} checkpoints)"
    line = f"  {first.name.exp_hash} {steps}: {first.verdict}"
    if first.is_tainted:
        uids = dict.fromkeys(u for c in run for u in (c.seen or c.possible))
        line += f" {_listed(tuple(uids))}, by {first.proof[-1].checkpoint}"
    elif first.verdict == "unknown":
        line += f": {first.unknown}"
    return line


def _listed(uids: Uids) -> str:
    shown = ", ".join(repr(uid) for uid in uids[:_MAX_SHOWN])
    more = len(uids) - _MAX_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")
