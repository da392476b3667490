"""Consulting the index: a question in SQL over its fact tables, and answers that are proven.

A question may be asked again: when what it is about to answer turns out to be stale, the index is
brought up to the files first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository.fact_keeper import FactKeeper
from weightslab.engine.repository.index_rows import IndexRow
from weightslab.engine.repository.listing import ExperimentLister
from weightslab.engine.repository.stamps import NoStamps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.index import Index
    from weightslab.engine.storage.store import Store

__all__ = ["Desk", "Needs", "StaleAnswerError", "consult_scan"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a question looks at; the index is brought up to that before it is asked.

    Attributes:
        exp_hashes: only these experiments; None for the whole root.
        checkpoints: checkpoints and metrics.
        configs: config values.
        notes: names, notes, tags and pins.
    """

    exp_hashes: tuple[str, ...] | None = None
    checkpoints: bool = False
    configs: bool = False
    notes: bool = False


class StaleAnswerError(Exception):
    """An answer is not what the files say now; never seen by users of the catalog.

    Attributes:
        exp_hashes: the experiments that have to be looked at again.
    """

    def __init__(self, exp_hashes: Iterable[str]) -> None:
        super().__init__("stale")
        self.exp_hashes = set(exp_hashes)


class Desk:
    """What a question works with.

    Args:
        index: brought up to the root.
        needs: what the question looks at.
        is_proven: tells whether a checkpoint is as its row says.
        keeper: tells whether the other facts are.
        lister: reads records.
        barred: experiments whose checkpoints cannot be listed, and why.
    """

    def __init__(
        self,
        index: Index,
        needs: Needs,
        is_proven: Callable[[IndexRow], bool],
        keeper: FactKeeper,
        lister: ExperimentLister,
        barred: Mapping[str, str] | None = None,
    ) -> None:
        self.barred: Mapping[str, str] = barred or {}
        self._index = index
        self._needs = needs
        self._is_proven = is_proven
        self._keeper = keeper
        self._lister = lister

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute one SELECT."""
        return self._index.run(statement, *values)

    def checkpoints(self, numbers: Sequence[int]) -> list[CheckpointEntry]:
        """Return checkpoints by their numbers in the index, each proven.

        Raises: StaleAnswerError, which is for the catalog.
        """
        rows = list(self._index.numbered(numbers).values())
        self._check({row.entry.name.exp_hash for row in rows if not self._is_proven(row)})
        self._check_facts({row.entry.name.exp_hash for row in rows})
        return [row.entry for row in rows]

    def experiments(self, exp_hashes: Sequence[str]) -> list[ExperimentEntry]:
        """Return experiments, each proven.

        Raises: StaleAnswerError, which is for the catalog.
        """
        self._lister.preload(self._index, exp_hashes)
        found = {exp_hash: self._keeper.entry(exp_hash) for exp_hash in exp_hashes}
        self._check({exp_hash for exp_hash, entry in found.items() if entry is None})
        self._check_facts(exp_hashes)
        return [entry for entry in found.values() if entry is not None]

    def _check_facts(self, exp_hashes: Iterable[str]) -> None:
        kinds = [("config", self._needs.configs), ("notes", self._needs.notes)]
        self._check(
            {
                exp_hash
                for exp_hash in exp_hashes
                for kind, is_needed in kinds
                if is_needed and not self._keeper.is_proven(self._index, kind, exp_hash)
            }
        )

    def _check(self, stale: set[str]) -> None:
        if stale:
            raise StaleAnswerError(stale)


class _FreshDesk(Desk):
    """A desk whose index was made for the question, from the files."""

    def _check(self, stale: set[str]) -> None:
        """Believe what was read just now."""

    def experiments(self, exp_hashes: Sequence[str]) -> list[ExperimentEntry]:
        # docstring inherited
        found = (self._lister.one(exp_hash) for exp_hash in exp_hashes)
        return [entry for entry in found if entry is not None]


def consult_scan(store: Store, catalog: Catalog, needs: Needs, question: Callable[[Desk], T]) -> T:
    """Answer a question from an index in memory that is made for it. O(everything)."""
    from weightslab.engine.repository.index import open_index

    index, stamps = open_index(None), NoStamps(store)
    lister = ExperimentLister(store, stamps)
    keeper = FactKeeper(store, stamps, lister)
    barred: dict[str, str] = {}
    hashes = catalog.exp_hashes() if needs.exp_hashes is None else needs.exp_hashes
    try:
        with index.batch():
            for exp_hash in hashes if needs.checkpoints else ():
                try:
                    entries = catalog.checkpoints(exp_hash)
                except CheckpointError as error:  # it hides no other
                    barred[exp_hash] = str(error)
                    continue
                for entry in entries:
                    index.put(IndexRow(stamp="", entry=entry), {})
            keeper.records(index, hashes)
            if needs.configs:
                keeper.configs(index, hashes)
            if needs.notes:
                keeper.notes(index, hashes)
        return question(_FreshDesk(index, needs, lambda _: True, keeper, lister, barred))
    finally:
        index.close()
