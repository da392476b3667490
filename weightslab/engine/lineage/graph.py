"""The graph of a root: experiments, and each departure from one into another.

Edges come from the parents of checkpoints. What an experiment was compared with when it began
(`changed_from`) is told beside them, for the tree that people look at, and used for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.lineage.records import Records
from weightslab.engine.lineage.tree import draw
from weightslab.engine.reference import parse_reference
from weightslab.engine.repository.layout import CheckpointName, is_exp_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from weightslab.engine.lineage.records import Found, Holder
    from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry

__all__ = ["Lineage", "LineageEdge", "LineageNode", "lineage"]

SCHEMA: Final = "weightslab.lineage"
SCHEMA_VERSION: Final = 1
STATED: Final = "stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """An experiment in the graph.

    Attributes:
        exp_hash: its hash.
        created_at: aware UTC time of its record; None where that is gone or damaged.
        num_checkpoints: checkpoints that are here, damaged ones too.
        is_missing: others name it, and it is not here.
        damaged: why its record cannot be used; None for a good one.
        changed_from: the experiment it was compared with when it began; told by its record, for
            people.
        changes: what changed from that one, in words.
    """

    exp_hash: str
    created_at: datetime | None = None
    num_checkpoints: int = 0
    is_missing: bool = False
    damaged: str | None = None
    changed_from: str | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """One departure from an experiment into another.

    Attributes:
        parent, child: the experiments.
        kind: `checkpoint`: weights of a checkpoint went from one into the other; `via`: the weights
            passed through one of the two, which saved nothing; `stated`: the record of the child
            names the parent, and no checkpoint does.
        step, revision: the checkpoint it left from; None where none was saved.
        child_step: the first checkpoint it led to; None where none was saved.
        exact: nothing else was current in between; None: unknown.
        created_at: aware UTC time of the checkpoint, or the record, that tells of it.
    """

    parent: str
    child: str
    kind: str
    step: int | None = None
    revision: int | None = None
    child_step: int | None = None
    exact: bool | None = None
    created_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return found | {"created_at": self.created_at and self.created_at.isoformat()}


class Lineage:
    """The experiments of a root and what led from which to which, as they were when it was asked for.

    Ancestry is that of checkpoints: training may go from A to B and back to A, and then each is an
    ancestor of the other, while the first checkpoint of A has none.

    Attributes:
        nodes: hash -> experiment, oldest first; those that are gone last.
        edges: each departure, by the hash of the child and the order of commit.
        stated: what records alone say, of experiments into which no checkpoint leads.
    """

    def __init__(self, root: Holder, nodes: Mapping[str, LineageNode], edges: _Edges) -> None:
        self.nodes = dict(nodes)
        self.edges = edges.proven
        self.stated = edges.stated
        self._root = root
        self._records = Records(root.store, root.catalog)

    @property
    def roots(self) -> tuple[str, ...]:
        """The experiments into which no checkpoint of another leads."""
        led_to = {edge.child for edge in self.edges if edge.parent != edge.child}
        return tuple(exp_hash for exp_hash in self.nodes if exp_hash not in led_to)

    def changes(self, edge: LineageEdge) -> tuple[str, ...]:
        """Return what changed from the parent of an edge to its child, in words.

        What the record of the child says if it is about this parent; else both are compared now.
        Empty if one of them is gone or cannot be read.
        """
        child = self.nodes.get(edge.child)
        if child is not None and child.changed_from == edge.parent:
            return child.changes
        try:
            return tuple(change.text for change in self._root.explain(edge.parent, edge.child))
        except CheckpointError:
            return ()

    # ------------------------------------------------------------ ancestry
    def ancestors(self, reference: str) -> tuple[str, ...]:
        """Return the experiments whose training is in some weights of an experiment, nearest first.

        Those that saved nothing on the way and those that are gone, too; not itself.
        O(checkpoints of these).

        Args:
            reference: hash or prefix, also of an experiment that is gone; or one checkpoint:
                `3f2a@100`.
        Raises: ExperimentNotFoundError, CheckpointNotFoundError, ValueError.
        """
        exp_hash, starts = self._starts(reference)
        distances: dict[str, int] = {}
        seen: dict[CheckpointName, int] = {}
        for start in starts:
            far = 0
            for hop in self._records.way_back(start):
                if seen.get(hop.found.name, far + 1) <= far:
                    break
                seen[hop.found.name] = far
                met = [hop.found.name.exp_hash, *(hop.link.via[::-1] if hop.link else ())]
                for at, ancestor in enumerate(met):
                    distances[ancestor] = min(far + at, distances.get(ancestor, far + at))
                far += len(met)
        distances.pop(exp_hash, None)
        return tuple(sorted(distances, key=lambda h: (distances[h], h)))

    def descendants(self, reference: str) -> tuple[str, ...]:
        """Return the experiments with a checkpoint that has this training in its weights, oldest first.

        O(checkpoints of these).

        Args:
            reference: as for `ancestors`.
        Raises: as `ancestors`.
        """
        exp_hash, starts = self._starts(reference)
        is_one = not parse_reference(reference).is_experiment
        names = {start.name for start in starts} if is_one else set()
        known: dict[CheckpointName, bool] = {}

        def leads_here(entry: CheckpointEntry) -> bool:
            path, answer = [], False
            for hop in self._records.way_back(self._records.found(entry)):
                name = hop.found.name
                if name in known:
                    answer = known[name]
                    break
                path.append(name)
                through = () if hop.link is None else hop.link.via
                if name in names if is_one else exp_hash in (name.exp_hash, *through):
                    answer = True
                    break
            known.update(dict.fromkeys(path, answer))
            return answer

        near = self._reachable(exp_hash)
        found = [
            h
            for h in self.nodes
            if h in near and any(map(leads_here, self._records.entries(h).values()))
        ]
        # an experiment that was passed through and saved nothing has no checkpoint to ask
        through = {e.child for e in self.edges if e.parent == exp_hash and e.kind == "via"}
        passed = {h for h in through if not is_one and not self._records.entries(h)}
        return tuple(h for h in self.nodes if h in passed or (h in found and h != exp_hash))

    def _reachable(self, exp_hash: str) -> set[str]:
        """Return the experiments that edges lead to: all that can descend, and more."""
        following: dict[str, set[str]] = {}
        for edge in self.edges:
            following.setdefault(edge.parent, set()).add(edge.child)
        # what crossed may lie in the trash, where no edge shows it
        near = {exp_hash, *self._records.experiments_aside()}
        todo = [*near]
        while todo:
            new = following.get(todo.pop(), set()) - near
            near |= new
            todo += new
        return near

    def _starts(self, reference: str) -> tuple[str, list[Found]]:
        told = parse_reference(reference)
        if not told.is_experiment:
            entry = self._root.at(reference)
            return entry.name.exp_hash, [self._records.found(entry)]
        assert told.exp_hash is not None, "an experiment has a hash"
        known = self.nodes.get(told.exp_hash)
        exp_hash = known.exp_hash if known is not None else self._root.get_hash(told.exp_hash)
        return exp_hash, [self._records.found(e) for e in self._records.entries(exp_hash).values()]

    def common_ancestor(self, a: str, b: str) -> CheckpointName | None:
        """Return the last checkpoint that both descend from, or are; None if there is none.

        Args:
            a, b: references as for `at`; a hash alone is its newest checkpoint.
        Raises: ExperimentNotFoundError, CheckpointNotFoundError, ValueError.
        """
        left, right = self._line(a), self._line(b)
        return next((name for name, digest in left.items() if right.get(name) == digest), None)

    def path(self, a: str, b: str) -> tuple[CheckpointName, ...]:
        """Return the checkpoints from one to another: back to where they part, and on from there.

        Both ends and the common ancestor are in it; empty if there is none.

        Args:
            a, b: as for `common_ancestor`.
        Raises: as `common_ancestor`.
        """
        left, right = self._line(a), self._line(b)
        back: list[CheckpointName] = []
        for name, digest in left.items():
            back.append(name)
            if right.get(name) == digest:
                on = list(right)
                return tuple(back + on[: on.index(name)][::-1])
        return ()

    def _line(self, reference: str) -> dict[CheckpointName, str]:
        """Return checkpoint -> digest on the way back from a checkpoint, those that are gone too."""
        start = self._records.found(self._root.at(reference))
        return {hop.found.name: hop.found.digest for hop in self._records.way_back(start)}

    # ------------------------------------------------------------ for people and programs
    def to_dict(self) -> dict[str, Any]:
        """Return the graph as plain JSON values."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "experiments": [_node_to_dict(node) for node in self.nodes.values()],
            "edges": [edge.to_dict() for edge in self.edges],
            "stated": [edge.to_dict() for edge in self.stated],
        }

    def tree(self, names: Mapping[str, str] | None = None) -> str:
        """Return the graph as a tree of text, a line for each experiment.

        Args:
            names: hash -> name that people gave it.
        """
        return draw(self.nodes, (*self.edges, *self.stated), names or {})

    def __str__(self) -> str:
        """Return the tree."""
        return self.tree()


def _node_to_dict(node: LineageNode) -> dict[str, Any]:
    found = {name: getattr(node, name) for name in node.__slots__}
    moment = node.created_at
    return found | {"changes": [*node.changes], "created_at": moment and moment.isoformat()}


# ---------------------------------------------------------------- building
@dataclass(frozen=True, slots=True)
class _Edges:
    proven: tuple[LineageEdge, ...]
    stated: tuple[LineageEdge, ...]


def lineage(root: Holder) -> Lineage:
    """Return the graph of all experiments of the root. O(experiments + departures).

    Experiments that were deleted are in it as missing as long as others name them.
    """
    origins = root.catalog.memory.origins()
    proven = tuple(edge for entry in origins.crossings for edge in _departures(entry))
    nodes = {
        entry.exp_hash: _node(entry, origins.num_checkpoints.get(entry.exp_hash, 0))
        for entry in root.catalog.experiments()
    }
    led_to = {edge.child for edge in proven}
    stated = tuple(
        LineageEdge(
            parent=node.changed_from,
            child=node.exp_hash,
            kind=STATED,
            created_at=node.created_at,
        )
        for node in nodes.values()
        if node.changed_from is not None and node.exp_hash not in led_to
    )
    named = {h for edge in (*proven, *stated) for h in (edge.parent, edge.child)}
    for exp_hash in sorted(named - nodes.keys()):
        nodes[exp_hash] = LineageNode(exp_hash=exp_hash, is_missing=True)
    return Lineage(root, nodes, _Edges(proven, stated))


def _node(entry: ExperimentEntry, num_checkpoints: int) -> LineageNode:
    record = entry.record
    told = record.changed_from if record is not None else None
    parent, changes = (
        (told.get(k) for k in ("exp_hash", "changes")) if isinstance(told, dict) else (None, ())
    )
    is_named = isinstance(parent, str) and is_exp_hash(parent) and parent != entry.exp_hash
    texts = changes if isinstance(changes, list) else ()
    return LineageNode(
        exp_hash=entry.exp_hash,
        created_at=None if record is None else record.created_at,
        num_checkpoints=num_checkpoints,
        damaged=entry.damaged,
        changed_from=parent if is_named else None,
        changes=tuple(str(text) for text in texts),
    )


def _departures(entry: CheckpointEntry) -> Iterable[LineageEdge]:
    """Yield the edges that a checkpoint tells of: from its parent, through others, into its own."""
    link, own = entry.parent, entry.name
    assert link is not None, "a checkpoint that crosses has a parent"
    first = [link.exp_hash] if link.kind == "checkpoint" and link.exp_hash is not None else []
    stops = [*first, *link.via, own.exp_hash]
    if not all(map(is_exp_hash, stops)):
        return  # a name that no experiment can have: made by hand
    for at, (parent, child) in enumerate(pairwise(stops)):
        if parent == child:
            continue
        leaves = at == 0 and bool(first)
        yield LineageEdge(
            parent=parent,
            child=child,
            kind="via" if link.via else "checkpoint",
            step=link.step if leaves else None,
            revision=link.revision if leaves else None,
            child_step=own.step if at == len(stops) - 2 else None,
            exact=link.exact,
            created_at=entry.created_at,
        )
