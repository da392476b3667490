"""The choice: which experiments and checkpoints go, and what of their lineage goes with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.lineage.records import PRESENT, THINNED, Records
from weightslab.engine.reference import parse_reference
from weightslab.engine.repository import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.lineage.records import Found
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.notes import Note

__all__ = ["LINEAGE", "Choice", "choose"]

LINEAGE: Final = ("full", "records", "none")


@dataclass(slots=True, kw_only=True)
class Choice:
    """What goes.

    Attributes:
        checkpoints: experiment -> its checkpoints, in the order of their commit; the oldest experiment
            first.
        whole: experiments of which everything goes, so that notes about any checkpoint do.
        gaps: what belongs to the lineage and is not there, in words.
        lineage: `full`, `records` or `none`.
    """

    checkpoints: dict[str, list[CheckpointName]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    gaps: tuple[str, ...] = ()
    lineage: str = "full"

    @property
    def names(self) -> list[CheckpointName]:
        """All checkpoints."""
        return [name for names in self.checkpoints.values() for name in names]

    def wants(self, note: Note) -> bool:
        """Tell whether a note is about something that goes."""
        if note.step is None or note.exp_hash in self.whole:
            return True
        names = self.checkpoints.get(note.exp_hash, ())
        return any(note.is_about(name.step, name.revision) for name in names)


def choose(root: Keeper, references: Sequence[str], lineage: str) -> Choice:
    """Return what goes. O(checkpoints of the experiments that are looked at).

    Args:
        root: where it is.
        references: `3f2a`, an experiment with all its checkpoints; `3f2a@100`, `latest`, ... a checkpoint;
            none: everything.
        lineage: `full`: with the experiments and checkpoints that led to these; `records`: with the
            experiments alone, so that what they were can still be asked; `none`: as chosen.
    Raises: ValueError, TypeError; ExperimentNotFoundError, CheckpointNotFoundError.
    """
    if lineage not in LINEAGE:
        raise ValueError(f"lineage is one of {', '.join(LINEAGE)}, not {lineage!r:.40}")
    chooser = _Chooser(root)
    if not references:
        for exp_hash in root.list_hashes():
            chooser.add_experiment(exp_hash)
    for reference in references:
        told = parse_reference(reference)
        if told.is_experiment and told.exp_hash is not None:
            chooser.add_experiment(root.get_hash(told.exp_hash))
        else:
            chooser.add_checkpoint(root.at(reference))
    if lineage != "none":
        chooser.add_lineage(with_checkpoints=lineage == "full")
    return chooser.result(lineage)


class _Chooser:
    def __init__(self, root: Keeper) -> None:
        self._root = root
        self._records = Records(root.store, root.catalog)
        self._names: dict[str, set[CheckpointName]] = {}
        self._whole: set[str] = set()
        self._gaps: dict[str, None] = {}

    def add_experiment(self, exp_hash: str) -> None:
        self._whole.add(exp_hash)
        self._names.setdefault(exp_hash, set()).update(self._records.entries(exp_hash))

    def add_checkpoint(self, entry: CheckpointEntry) -> None:
        self._names.setdefault(entry.name.exp_hash, set()).add(entry.name)

    def add_lineage(self, *, with_checkpoints: bool) -> None:
        seen: set[CheckpointName] = set()
        for entry in self._chosen_entries():
            for hop in self._records.way_back(self._records.found(entry)):
                if hop.found.name in seen:
                    break
                seen.add(hop.found.name)
                self._add_found(hop.found, with_checkpoints=with_checkpoints)
                for exp_hash in () if hop.link is None else hop.link.via:
                    self._add_record(exp_hash)

    def _chosen_entries(self) -> list[CheckpointEntry]:
        return [
            entry
            for exp_hash, names in self._names.items()
            for entry in reversed(self._records.entries(exp_hash).values())
            if entry.name in names and entry.damaged is None
        ]

    def _add_found(self, found: Found, *, with_checkpoints: bool) -> None:
        self._add_record(found.name.exp_hash)
        if found.state in (PRESENT, THINNED):
            if with_checkpoints:
                self._names.setdefault(found.name.exp_hash, set()).add(found.name)
        elif found.entry is None:
            self._gaps[found.why_gone] = None
        else:
            self._gaps[f"{found.reference} is {found.state}, and stays there"] = None

    def _add_record(self, exp_hash: str) -> None:
        if layout.is_exp_hash(exp_hash) and self._exists(exp_hash):
            self._names.setdefault(exp_hash, set())
        else:
            self._gaps[f"the experiment {exp_hash!r:.40} is gone"] = None

    def _exists(self, exp_hash: str) -> bool:
        return exp_hash in self._names or self._root.catalog.experiment(exp_hash) is not None

    def result(self, lineage: str) -> Choice:
        order = _by_age(self._root, self._names)
        return Choice(
            checkpoints={h: self._in_order(h) for h in order},
            whole=self._whole,
            gaps=tuple(self._gaps),
            lineage=lineage,
        )

    def _in_order(self, exp_hash: str) -> list[CheckpointName]:
        return [name for name in self._records.entries(exp_hash) if name in self._names[exp_hash]]


def _by_age(root: Keeper, exp_hashes: Iterable[str]) -> list[str]:
    def age(exp_hash: str) -> tuple[float, str]:
        try:
            record = root.get_experiment(exp_hash).record
        except CheckpointError:
            record = None  # deleted meanwhile: it is told when it goes
        return (record.created_at.timestamp() if record else float("inf")), exp_hash

    return sorted(exp_hashes, key=age)
