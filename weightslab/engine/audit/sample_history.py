"""The history of one sample: in which experiments it is active, and which discarded or restored it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.audit.membership import Membership, Wanted
from weightslab.engine.lineage.graph import lineage
from weightslab.engine.lineage.tree import plain_line

if TYPE_CHECKING:
    from datetime import datetime

    from weightslab.engine.lineage.graph import Lineage, LineageEdge
    from weightslab.engine.lineage.records import Holder

__all__ = ["SampleEvent", "SampleHistory", "sample_history"]

SCHEMA: Final = "weightslab.sample_history"
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEvent:
    """A change of whether a sample is active, on the way from one experiment into another.

    Attributes:
        kind: `begun_with`: active in an experiment into which no older one leads; `discarded`;
            `restored`: active again, after an experiment before; `added`: active for the first time.
        exp_hash: the experiment that did it.
        previous: the experiment before; None for `begun_with`.
        step: step of `previous` from which it left; None where none was saved.
        basis: `checkpoints`: weights went from one into the other; `stated`: the record of `exp_hash`
            alone says that it was compared with `previous`.
        created_at: aware UTC time of the checkpoint, or the record, that tells of it.
    """

    kind: str
    exp_hash: str
    previous: str | None = None
    step: int | None = None
    basis: str = "checkpoints"
    created_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return found | {"created_at": self.created_at and self.created_at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleHistory:
    """The history of one sample.

    Attributes:
        uid: the sample.
        events: what happened to it, in the order of time.
        active_in, inactive_in: experiments, oldest first.
        unknown_in: experiment -> why it is not known.
    """

    uid: int | str
    events: tuple[SampleEvent, ...]
    active_in: tuple[str, ...]
    inactive_in: tuple[str, ...]
    unknown_in: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "uid": self.uid,
            "events": [event.to_dict() for event in self.events],
            "active_in": [*self.active_in],
            "inactive_in": [*self.inactive_in],
            "unknown_in": dict(self.unknown_in),
        }

    def __str__(self) -> str:
        """Return a line for each event."""
        count = len(self.active_in)
        counts = f"active in {count} experiment{'' if count == 1 else 's'}"
        counts += f", not in {len(self.inactive_in)}"
        unknown = f", unknown in {len(self.unknown_in)}" if self.unknown_in else ""
        lines = [f"{self.uid!r}: {counts}{unknown}", *map(_line, self.events)]
        return "\n".join(map(plain_line, lines))


def _line(event: SampleEvent) -> str:
    if event.previous is None:
        return f"  {event.exp_hash} began with it"
    step = "" if event.step is None else f"@{event.step}"
    stated = " (stated)" if event.basis == "stated" else ""
    return f"  {event.kind} by {event.exp_hash}, after {event.previous}{step}{stated}"


def sample_history(root: Holder, uid: int | str) -> SampleHistory:
    """Tell when a sample was discarded and restored, and by which experiment.

    Args:
        root: the root.
        uid: one UID.
    Raises: IdentityError for what cannot be one.
    """
    wanted = Wanted.of([uid])
    membership = Membership(root.store, root.catalog, wanted)
    graph = lineage(root)
    states = {h: membership.held(h) for h in graph.nodes}
    membership.keep()
    active = {h: bool(held.mask) for h, held in states.items() if held.unknown is None}
    return SampleHistory(
        uid=wanted.uids[0],
        events=_events(graph, active),
        active_in=tuple(h for h in active if active[h]),
        inactive_in=tuple(h for h in active if not active[h]),
        unknown_in={h: held.unknown for h, held in states.items() if held.unknown is not None},
    )


def _events(graph: Lineage, active: dict[str, bool]) -> tuple[SampleEvent, ...]:
    incoming: dict[str, dict[str, LineageEdge]] = {}
    for edge in (*graph.edges, *graph.stated):
        if edge.parent != edge.child:
            incoming.setdefault(edge.child, {}).setdefault(edge.parent, edge)
    events = []
    for exp_hash, is_active in active.items():
        before = incoming.get(exp_hash, {})
        node = graph.nodes[exp_hash]
        if is_active and not any(_is_older(graph, parent, exp_hash) for parent in before):
            begun = SampleEvent(kind="begun_with", exp_hash=exp_hash, created_at=node.created_at)
            events.append(begun)
        for parent, edge in before.items():
            if active.get(parent, is_active) != is_active:
                is_back = is_active and _was_active(parent, incoming, active)
                kind = "restored" if is_back else "added" if is_active else "discarded"
                events.append(_event(kind, edge))
    return tuple(sorted(events, key=_moment))


def _is_older(graph: Lineage, parent: str, exp_hash: str) -> bool:
    """Tell whether an experiment began before another that it led to; else training came back."""
    first, second = graph.nodes[parent].created_at, graph.nodes[exp_hash].created_at
    return first is None or second is None or first <= second


def _event(kind: str, edge: LineageEdge) -> SampleEvent:
    return SampleEvent(
        kind=kind,
        exp_hash=edge.child,
        previous=edge.parent,
        step=edge.step,
        basis="stated" if edge.kind == "stated" else "checkpoints",
        created_at=edge.created_at,
    )


def _moment(event: SampleEvent) -> float:
    return 0.0 if event.created_at is None else event.created_at.timestamp()


def _was_active(
    exp_hash: str, incoming: dict[str, dict[str, LineageEdge]], active: dict[str, bool]
) -> bool:
    """Tell whether the sample was active somewhere before an experiment."""
    seen, todo = {exp_hash}, [exp_hash]
    while todo:
        new = set(incoming.get(todo.pop(), ())) - seen
        if any(active.get(h) for h in new):
            return True
        seen |= new
        todo += new
    return False
