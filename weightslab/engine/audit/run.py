"""Running an audit over a root or one experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.audit.membership import Membership, Wanted
from weightslab.engine.audit.report import AuditedCheckpoint, AuditReport
from weightslab.engine.audit.tracing import Trace, Tracer
from weightslab.engine.lineage.records import Records

if TYPE_CHECKING:
    from weightslab.engine.lineage.records import Holder

__all__ = ["audit"]


def audit(root: Holder, uids: Any, exp_hash: str | None = None) -> AuditReport:
    """Tell which checkpoints were, or may have been, trained with samples, and what proves it.

    A checkpoint is exposed to a sample that was active in an experiment which trained its weights: its
    own, those of all checkpoints before it, and those that were current in between and saved nothing.
    Where a record is gone or damaged, the weights were imported, or an experiment was given no samples,
    the verdict is `unknown`, never `clean`.

    Args:
        root: the root.
        uids: any collection of UIDs, or a `SampleSet`; a checkpoint is judged by all of them together.
        exp_hash: only the checkpoints of this experiment (hash or prefix); their ancestry is looked at
            wherever it leads.
    Raises: IdentityError for what cannot be a UID; ValueError for none; ExperimentNotFoundError.
    """
    wanted = Wanted.of(uids)
    scope = None if exp_hash is None else root.get_hash(exp_hash)
    membership = Membership(root.store, root.catalog, wanted)
    records = Records(root.store, root.catalog)
    tracer = Tracer(root.store, root.catalog, records, membership, wanted)
    hashes = membership.entries if scope is None else [scope]
    traces = [
        tracer.trace(records.found(entry)) for h in hashes for entry in records.entries(h).values()
    ]
    ever = 0
    for h in membership.entries:
        ever |= membership.held(h).mask
    membership.keep()
    return AuditReport(
        uids=wanted.uids,
        checkpoints=tuple(_audited(trace, wanted) for trace in traces),
        never_active=wanted.chosen(~ever),
        _traces=tuple(tracer.traces.values()),
        _wanted=wanted,
    )


def _audited(trace: Trace, wanted: Wanted) -> AuditedCheckpoint:
    found = trace.hop.found
    return AuditedCheckpoint(
        name=found.name,
        created_at=None if found.entry is None else found.entry.created_at,
        verdict=trace.verdict,
        seen=wanted.chosen(trace.seen),
        possible=wanted.chosen(trace.possible),
        unknown=trace.unknown,
        _trace=trace,
        _wanted=wanted,
    )
