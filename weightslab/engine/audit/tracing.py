"""Tracing: for each checkpoint, what its whole ancestry says about the samples that are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.engine.audit.positions import Place, Segment, place_of
from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.origins import samplers_of
from weightslab.engine.training.order import ActiveRows

if TYPE_CHECKING:
    from weightslab.engine.audit.membership import Membership, Wanted
    from weightslab.engine.lineage.records import Found, Hop, Records
    from weightslab.engine.repository.catalog import Catalog
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.origins import Sampled
    from weightslab.engine.storage.store import Store

__all__ = ["Trace", "Tracer"]

_MAX_SETS: Final = 2  # whole sets in memory: a run of checkpoints is of one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What is known of one checkpoint; masks are those of `Wanted`.

    Attributes:
        hop: the checkpoint and its parent link.
        parent: of the checkpoint before it; None where there is none, or its record is gone.
        held: experiment -> samples active there, of its own and those it went through since the parent.
        drawn: samples that the recorded positions prove to have been drawn since the parent.
        possible, seen: over the whole ancestry.
        unknown: why the ancestry is not known wholly; None where it is.
        own_unknown: the same, of this checkpoint alone.
    """

    hop: Hop
    parent: Trace | None
    held: dict[str, int]
    drawn: int
    possible: int
    seen: int
    unknown: str | None
    own_unknown: str | None

    @property
    def verdict(self) -> str:
        """`seen`, `possible`, `unknown` or `clean`."""
        if self.seen:
            return "seen"
        if self.possible:
            return "possible"
        return "clean" if self.unknown is None else "unknown"


class Tracer:
    """Traces checkpoints, each once. Not thread-safe.

    Args:
        store, catalog: of the root.
        records: its checkpoints.
        membership: what its experiments hold.
        wanted: the samples.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        records: Records,
        membership: Membership,
        wanted: Wanted,
    ) -> None:
        self._store, self._catalog, self._records = store, catalog, records
        self._membership, self._wanted = membership, wanted
        self.traces: dict[tuple[CheckpointName, str], Trace] = {}
        self._sampled: dict[str, dict[CheckpointName, Sampled]] = {}
        self._sets: dict[str, ActiveRows | None] = {}

    def trace(self, found: Found) -> Trace:
        """Return what is known of a checkpoint."""
        path: list[tuple[Hop, tuple[CheckpointName, str]]] = []
        on_path: set[tuple[CheckpointName, str]] = set()
        at: Found | None = found
        before: Trace | None = None
        forged = None
        while at is not None:
            key = at.name, at.digest
            if key in on_path:  # only with forged records; what came before is not known
                forged = f"{path[-1][0].found.reference} came from itself, say the records: forged"
                break
            before = self.traces.get(key)
            if before is not None:
                break
            hop, parent = self._records.hop(at)
            path.append((hop, key))
            on_path.add(key)
            at = parent
        for hop, key in reversed(path):
            before = self.traces[key] = self._made(hop, before, forged)
            forged = None
        assert before is not None, "a checkpoint has a trace"
        return before

    def _made(self, hop: Hop, parent: Trace | None, forged: str | None) -> Trace:
        exposed = (hop.found.name.exp_hash, *(() if hop.link is None else hop.link.via))
        facts = {exp_hash: self._membership.held(exp_hash) for exp_hash in exposed}
        held = {exp_hash: fact.mask for exp_hash, fact in facts.items()}
        own_unknown = forged or _why_unknown(hop, parent)
        for fact in facts.values():
            own_unknown = own_unknown or fact.unknown
        possible = parent.possible if parent is not None else 0
        seen = parent.seen if parent is not None else 0
        for mask in held.values():
            possible |= mask
        drawn = self._drawn(hop, parent, held[hop.found.name.exp_hash] & ~seen)
        return Trace(
            hop=hop,
            parent=parent,
            held=held,
            drawn=drawn,
            possible=possible,
            seen=seen | drawn,
            unknown=own_unknown or (None if parent is None else parent.unknown),
            own_unknown=own_unknown,
        )

    # ------------------------------------------------------------ what was drawn
    def _drawn(self, hop: Hop, parent: Trace | None, mask: int) -> int:
        """Return which samples of a mask were drawn between the parent and a checkpoint, as proven."""
        link, entry = hop.link, hop.found.entry
        if not mask or link is None or entry is None or link.exact is not True or link.via:
            return 0
        if link.kind not in ("fresh", "checkpoint") or "training" not in entry.parts:
            return 0
        exp_hash = entry.name.exp_hash
        text = self._membership.held(exp_hash).state
        end, start = self._place(hop.found, text), None
        steps = entry.name.step
        if parent is not None:
            start = self._place(parent.hop.found, text)
            steps -= parent.hop.found.name.step
        if end is None or (start is None and link.kind == "checkpoint"):
            return 0
        segment = Segment(start, end, steps)
        if not segment.is_consistent:
            return 0
        drawn = 0
        for n, uid in enumerate(self._wanted.uids):
            if mask >> n & 1 and segment.proves(uid, lambda: self._rows(exp_hash)):
                drawn |= 1 << n
        return drawn

    def _place(self, found: Found, text: str) -> Place | None:
        """Return the place in the set that `text` tells; None unless exactly one sampler is in it."""
        if found.entry is None or found.state != "present":
            return None
        places = [place_of(state) for state in self._samplers(found)]
        own = [place for place in places if place is not None and place.samples == text]
        return own[0] if len(own) == 1 else None

    def _samplers(self, found: Found) -> tuple[dict[str, object], ...]:
        name = found.name
        if name.exp_hash not in self._sampled:
            self._sampled[name.exp_hash] = self._catalog.memory.samplers(name.exp_hash)
        digest, samplers = self._sampled[name.exp_hash].get(name, ("", ()))
        if digest == found.digest:
            return samplers
        try:
            manifest = read_manifest(self._store, name)
        except CheckpointError:
            return ()  # gone since it was listed: nothing is proven
        return samplers_of(manifest) if manifest.digest == found.digest else ()

    def _rows(self, exp_hash: str) -> ActiveRows:
        text = self._membership.held(exp_hash).state
        if text not in self._sets:
            if len(self._sets) >= _MAX_SETS:
                self._sets.pop(next(iter(self._sets)))
            samples = self._membership.read_set(exp_hash)
            self._sets[text] = None if samples is None else ActiveRows.of(samples)
        rows = self._sets[text]
        return _NOTHING if rows is None else rows


def _nothing() -> ActiveRows:
    from weightslab.engine.identity.samples import SampleSet

    return ActiveRows.of(SampleSet.from_uids([]))


_NOTHING: Final = _nothing()  # a set that cannot be read any more: no recorded position fits it


def _why_unknown(hop: Hop, parent: Trace | None) -> str | None:
    """Return why what came before a checkpoint is not known; None where it is."""
    link = hop.link
    if link is None or link.exact is None or link.kind in ("import", "unknown"):
        return hop.gap or hop.found.why_gone
    if link.kind == "checkpoint" and parent is None:
        return hop.gap or hop.found.why_gone
    return None
