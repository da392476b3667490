"""The experiments of a root: their records, remembered under their stamps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import by_age, examine_experiment, has_manifests
from weightslab.engine.repository.index_rows import record_from_text, record_to_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.repository.catalog import ExperimentEntry
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.stamps import Stamps
    from weightslab.engine.storage.store import Store

__all__ = ["ExperimentLister"]


class ExperimentLister:
    """Reads records that changed since they were read last. Not thread-safe."""

    def __init__(self, store: Store, stamps: Stamps) -> None:
        self._store = store
        self._stamps = stamps
        self._known: dict[str, tuple[str, ExperimentEntry]] = {}
        self._has_loaded = False

    def folders(self) -> list[str]:
        """Return the names in `checkpoints/` that can be experiments, ascending."""
        names = [name[:-1] for name in self._store.list(layout.CHECKPOINTS) if name.endswith("/")]
        return [name for name in names if layout.is_exp_hash(name)]

    def hashes(self, prefix: str = "") -> list[str]:
        """Return the hashes of all experiments that begin with `prefix`, ascending."""
        found = (exp_hash for exp_hash in self.folders() if exp_hash.startswith(prefix))
        return [exp_hash for exp_hash in found if self._is_experiment(exp_hash)]

    def _is_experiment(self, exp_hash: str) -> bool:
        # a folder that lost its record and still has checkpoints is a damaged experiment
        return self._stamps.file(layout.experiment_key(exp_hash)) is not None or has_manifests(
            self._store, exp_hash
        )

    def num_unknown(self) -> int:
        """Return how many records would have to be read."""
        return sum(exp_hash not in self._known for exp_hash in self.folders())

    def one(self, exp_hash: str) -> ExperimentEntry | None:
        """Return an experiment, None if there is none."""
        stamp = self._stamps.file(layout.experiment_key(exp_hash))
        known = self._known.get(exp_hash)
        if stamp and known is not None and known[0] == stamp:
            return known[1]
        self._known.pop(exp_hash, None)
        entry, is_settled = examine_experiment(self._store, exp_hash)
        if stamp and entry is not None and is_settled:
            self._known[exp_hash] = stamp, entry
        return entry

    def stamp_of(self, exp_hash: str) -> str:
        """Return the stamp of the record that `one` read last; empty if it may change unseen."""
        known = self._known.get(exp_hash)
        return "" if known is None else known[0]

    def preload(self, index: Index, exp_hashes: Iterable[str]) -> None:
        """Take records from the index, so that `one` need not read their files."""
        for exp_hash in exp_hashes:
            if exp_hash in self._known:
                continue
            for stamp, text in index.records(exp_hash).values():
                self._known[exp_hash] = stamp, record_from_text(exp_hash, text)

    def all(self, index: Index | None) -> list[ExperimentEntry]:
        """Return all experiments, oldest first, damaged ones last; keeps what it read in `index`."""
        if index is not None and not self._has_loaded:
            self._has_loaded = True
            for exp_hash, (stamp, text) in index.records().items():
                self._known.setdefault(exp_hash, (stamp, record_from_text(exp_hash, text)))
        before = dict(self._known)
        entries = [self.one(exp_hash) for exp_hash in self.folders()]
        if index is not None:
            new = {h: f for h, f in self._known.items() if f is not before.get(h)}
            index.put_records({h: (s, record_to_text(e)) for h, (s, e) in new.items()})
        return by_age(entry for entry in entries if entry is not None)
