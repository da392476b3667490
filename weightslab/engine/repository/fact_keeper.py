"""Keeping facts: records, configs and notes are read into the index when a question first needs them.

What is in the index counts while the record, or the folder of the configs or notes, has the stamp it
had when it was read. The index of another process may be older or newer, so stamps are taken from it
again whenever somebody else has written there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.config_file import config_from_bytes, newest_config
from weightslab.engine.repository.fact_tables import (
    experiment_number,
    flat_config,
    forget_facts,
    hash_of_number,
    put_config,
    put_experiment,
    put_notes,
)
from weightslab.engine.repository.index_rows import key_of, record_to_text
from weightslab.engine.repository.notes import ExperimentNotes, read_notes
from weightslab.engine.repository.stamps import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from weightslab.engine.repository.catalog import ExperimentEntry
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.listing import ExperimentLister
    from weightslab.engine.repository.stamps import Stamps
    from weightslab.engine.storage.store import Store

__all__ = ["FactKeeper"]

_BATCH: Final = 256  # experiments in one transaction
_PLACES: Final = {
    "config": (layout.config_folder, ".yaml"),
    "notes": (layout.notes_folder, ".json"),
}


class FactKeeper:
    """Brings the facts in an index up to the files. Not thread-safe.

    Args:
        store: where the root lives.
        stamps: of its files and folders.
        lister: reads the records.
    """

    def __init__(self, store: Store, stamps: Stamps, lister: ExperimentLister) -> None:
        self._store = store
        self._stamps = stamps
        self._lister = lister
        self._known: dict[str, dict[str, str]] = {}  # kind -> experiment -> stamp, as in the index
        self._keys: dict[str, dict[str, str]] = {}  # kind -> experiment -> its folder
        self._read_now: set[tuple[str, str]] = set()  # (kind, experiment), for this question
        self._data_version: int | None = None
        self._unsure: set[str] = set()  # folders whose record is damaged, missing, or young

    def begin(self) -> None:
        """Begin a question: what is read from now on counts for it, however young it is."""
        self._read_now.clear()

    def _load(self, index: Index, kind: str) -> dict[str, str]:
        version = index.run("PRAGMA data_version")[0][0]
        if version != self._data_version:
            self._known.clear()
            self._data_version = version
        if kind not in self._known:
            if kind == "record":
                rows = index.run("SELECT exp_hash, stamp, damaged FROM experiments")
                self._unsure |= {h for h, stamp, damaged in rows if damaged or not stamp}
                self._known[kind] = {exp_hash: stamp for exp_hash, stamp, _ in rows}
            else:
                rows = index.run("SELECT experiment, stamp FROM sources WHERE kind = ?", kind)
                self._known[kind] = {hash_of_number(number): stamp for number, stamp in rows}
        return self._known[kind]

    # ------------------------------------------------------------ records
    def records(self, index: Index, named: Iterable[str] | None) -> None:
        """Bring the records up to date.

        Args:
            index: where to.
            named: whose records may have changed; those that are damaged, or were changed too lately
                to tell, are looked at in any case. None looks at all, and drops those that are gone.
        """
        known = self._load(index, "record")
        if named is None:
            there = self._lister.folders()
            self._unsure &= set(there)
            for exp_hash in known.keys() - set(there):
                forget_facts(index, exp_hash)
                self._drop(exp_hash)
        else:
            there = sorted({*named, *self._unsure})
        keys = {exp_hash: layout.experiment_key(exp_hash) for exp_hash in there}
        changed = list(self._stamps.changed(keys, known, folders=False))
        for batch in _batches(changed):
            with index.batch():
                for exp_hash in batch:
                    self._read_record(index, known, exp_hash)

    def hashes(self, index: Index) -> list[str]:
        """Return the experiments that the records were last read of."""
        return list(self._load(index, "record"))

    def _read_record(self, index: Index, known: dict[str, str], exp_hash: str) -> None:
        entry = self._lister.one(exp_hash)
        if entry is None:  # a record may be written into the folder later, if there is one
            forget_facts(index, exp_hash)
            self._drop(exp_hash)
            self._unsure.add(exp_hash)
            return
        stamp = self._lister.stamp_of(exp_hash)
        put_experiment(index, entry, stamp)
        if stamp:
            index.put_records({exp_hash: (stamp, record_to_text(entry))})
        known[exp_hash] = stamp
        is_sure = stamp and entry.record is not None
        (self._unsure.discard if is_sure else self._unsure.add)(exp_hash)

    def _drop(self, exp_hash: str) -> None:
        for stamps in self._known.values():
            stamps.pop(exp_hash, None)
        self._unsure.discard(exp_hash)

    def entry(self, exp_hash: str) -> ExperimentEntry | None:
        """Return an experiment as it is now; None if it is not as the index says."""
        entry = self._lister.one(exp_hash)
        known = self._known.get("record", {})
        is_same = exp_hash in known and known[exp_hash] == self._lister.stamp_of(exp_hash)
        return entry if is_same else None

    # ------------------------------------------------------------ configs and notes
    def configs(self, index: Index, exp_hashes: Sequence[str]) -> None:
        """Bring the newest configs of experiments up to date."""
        self._folders(index, "config", exp_hashes, self._read_config)

    def notes(self, index: Index, exp_hashes: Sequence[str]) -> None:
        """Bring what was said about experiments up to date."""
        self._folders(index, "notes", exp_hashes, self._read_notes)

    def _folders(
        self,
        index: Index,
        kind: str,
        exp_hashes: Sequence[str],
        read: Callable[[Index, str, tuple[str, str]], str],
    ) -> None:
        known, folders = self._load(index, kind), self._keys.setdefault(kind, {})
        for exp_hash in exp_hashes:
            if exp_hash not in folders:
                folders[exp_hash] = _PLACES[kind][0](exp_hash)
        keys = {exp_hash: folders[exp_hash] for exp_hash in exp_hashes}
        changed = list(self._stamps.changed(keys, known, folders=True).items())
        for batch in _batches(changed):
            with index.batch():
                for exp_hash, stamp in batch:
                    source = stamp, self._files(kind, exp_hash)
                    known[exp_hash] = read(index, exp_hash, source)
                    self._read_now.add((kind, exp_hash))

    def _files(self, kind: str, exp_hash: str) -> str:
        """Return what is equal while the files in a folder are the same; empty if that is not sure."""
        folder_of, ending = _PLACES[kind]
        try:
            found = self._stamps.files(folder_of(exp_hash), ending)
        except OSError:
            return ""
        if not all(found.values()):
            return ""
        return str(key_of("\0".join(f"{name}\0{found[name]}" for name in sorted(found))))

    def _read_config(self, index: Index, exp_hash: str, source: tuple[str, str]) -> str:
        values: dict[str, tuple[str, Any]] = {}
        if source[0] != MISSING:
            try:
                values = flat_config(self._newest_config(exp_hash))
            except CheckpointError:  # its keys are missing until it can be read
                source = "", source[1]
        put_config(index, exp_hash, source, values)
        return source[0]

    def _newest_config(self, exp_hash: str) -> dict[str, Any]:
        file = newest_config(self._store, exp_hash)
        if file is None:
            return {}
        key = layout.config_folder(exp_hash) + file
        return config_from_bytes(self._store.map(key), name=file)

    def _read_notes(self, index: Index, exp_hash: str, source: tuple[str, str]) -> str:
        if source[0] == MISSING:
            notes = ExperimentNotes(exp_hash=exp_hash)
        else:
            notes = read_notes(self._store, exp_hash)
        if not notes.is_certain:
            source = "", source[1]
        put_notes(index, notes, source)
        return source[0]

    def is_proven(self, index: Index, kind: str, exp_hash: str) -> bool:
        """Tell whether each file is the one that facts were read from; else they are read again."""
        if (kind, exp_hash) in self._read_now:
            return True
        known, number = self._known.get(kind, {}), experiment_number(exp_hash)
        found = index.run(
            "SELECT stamp, files FROM sources WHERE kind = ? AND experiment = ?", kind, number
        )
        if found and found[0][0] == known.get(exp_hash):
            stamp, files = found[0]
            if stamp == MISSING or (files and files == self._files(kind, exp_hash)):
                return True
        known.pop(exp_hash, None)
        return False


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
