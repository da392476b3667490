"""The catalog of a local root: answers from memory and from the index, proven by stamps.

Truth is in the manifests. What is remembered of a file counts only while the file has the stamp it
had when it was read; everything else is read again, so that an index that is missing, stale or
wrong costs time and nothing else. What each kind of question looks at:

    one experiment      the names in its folder and the stamp of each manifest
    the experiments     the names in `checkpoints/` and the stamp of each record
    the whole root      at first, and when the names in `checkpoints/` change, each model folder;
                        then what the journal says was written to. An answer is checked before it is
                        given: the newest checkpoint by its stamp, a place by reading its manifest.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from weightslab.engine.errors import CheckpointError, LockedError
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import (
    examine,
    in_order,
    manifest_name,
    newest_of,
    places_of,
    recency,
    sequence_after,
)
from weightslab.engine.repository.consulting import Desk, StaleAnswerError
from weightslab.engine.repository.fact_keeper import FactKeeper
from weightslab.engine.repository.finding import TensorFinder
from weightslab.engine.repository.following import JournalFollower
from weightslab.engine.repository.index_file import find_index_path, remove_index
from weightslab.engine.repository.index_rows import (
    IndexFailedError,
    IndexRow,
)
from weightslab.engine.repository.listing import ExperimentLister
from weightslab.engine.repository.memory import IndexedMemory, note_origin
from weightslab.engine.repository.stamps import LocalStamps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from weightslab.engine.repository.catalog import (
        CheckpointEntry,
        Examined,
        ExperimentEntry,
        TensorPlace,
    )
    from weightslab.engine.repository.consulting import Needs
    from weightslab.engine.repository.index import Index
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store

__all__ = ["IndexedCatalog"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
_FEW: Final = 4  # experiments that are looked at in less time than it takes to open an index
_MAX_READ: Final = 64  # files to read before an index pays: 64 take as long as opening one
_BATCH: Final = 64  # experiments in one transaction: others who write wait 0.2 s at most
_MAX_RECENT: Final = 8
_MAX_ROUNDS: Final = 4  # of one question whose answer is stale: others may write all the time


class IndexedCatalog:
    """A catalog for a root on a local file system. Thread-safe.

    Args:
        store: where the root lives.
        root: its folder.
    """

    def __init__(self, store: Store, root: Path) -> None:
        self._store = store
        self._root = root
        self._stamps = LocalStamps(root)
        self._journal = JournalFollower(root / "logs" / "events.jsonl")
        self._lock = threading.RLock()
        self._index: Index | None = None
        self._may_use_file = True
        self.memory = IndexedMemory(self)
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._rows: dict[str, dict[CheckpointName, IndexRow]] = {}
        self._names: dict[str, set[str]] = {}  # file names for which `_rows` was brought up to date
        self._lister = ExperimentLister(self._store, self._stamps)
        self._facts = FactKeeper(self._store, self._stamps, self._lister)
        self._facts_stamp: str | None = None  # of `checkpoints/` when every record was looked at
        self._barred: dict[str, str] = {}  # experiments whose checkpoints cannot be listed, and why
        self._loaded: set[str] = set()  # experiments whose indexed rows are in memory
        self._num_read = 0
        self._finder = TensorFinder(self._store, self._stamps)
        self._root_stamp: str | None = None  # of `checkpoints/` when every folder was looked at
        self._is_thorough = False
        self._seen: set[CheckpointName] = set()  # looked at for the answer that is being made
        self._watched: set[str] = set()  # changed too lately to tell whether they change again
        self._recent: deque[str] = deque(maxlen=_MAX_RECENT)
        self._journal.restart()

    def refresh(self) -> None:
        """Look at every file again before the next answer about the root."""
        with self._lock:
            self._forget()
            self._is_thorough = True

    # ------------------------------------------------------------ questions
    def exp_hashes(self, prefix: str = "") -> list[str]:
        """Return the hashes of all experiments that begin with `prefix`, ascending.

        The names of all folders are listed; O(those that begin so) further looks.
        """
        return self._answer(lambda: self._lister.hashes(prefix))

    def experiment(self, exp_hash: str) -> ExperimentEntry | None:
        """Return the experiment, None if there is none."""
        return self._answer(lambda: self._lister.one(exp_hash))

    def experiments(self) -> list[ExperimentEntry]:
        """Return all experiments, oldest first, damaged ones last. O(experiments)."""

        def look() -> list[ExperimentEntry]:
            self._count_reading(self._lister.num_unknown())
            return self._lister.all(self._index)

        return self._answer(look)

    def checkpoints(self, exp_hash: str) -> list[CheckpointEntry]:
        """Return all checkpoints in the order of their sequence, damaged ones first.

        The folder is listed and each manifest is looked at, every time: O(checkpoints of the
        experiment).
        """

        def look() -> dict[CheckpointName, IndexRow]:
            if exp_hash not in self._recent:
                self._recent.append(exp_hash)
            return self._look(exp_hash)

        return in_order(row.entry for row in self._answer(look).values())

    def next_sequence(self, exp_hash: str) -> int:
        """Return a number above the sequence of every checkpoint of the experiment.

        The folder is listed, but only manifests with new names are looked at: whoever saves every
        minute for weeks must not pay for all that was saved before.
        """

        def look() -> int:
            return sequence_after(row.entry for row in self._glance(exp_hash).values())

        return self._answer(look)

    def latest(self, exp_hash: str | None = None) -> CheckpointEntry | None:
        """Return the newest checkpoint with a readable manifest; None if there is none.

        Of the root: O(log checkpoints) once the root was looked at.
        """
        if exp_hash is not None:
            return newest_of(self.checkpoints(exp_hash))
        return self._answer(partial(_newest, self))

    def locate(self, digests: Collection[str]) -> dict[str, list[TensorPlace]]:
        """Return digest -> places where these bytes are committed; absent for unknown ones.

        O(digests log tensors) once the root was looked at; up to 32 manifests are read.
        """
        wanted = set(digests)

        def look() -> dict[str, list[TensorPlace]]:
            # places are hints, proven when they are linked: names tell enough
            return self._finder.locate(self._look_around(self._glance), wanted)

        return self._answer(look)

    def consult(self, needs: Needs, question: Callable[[Desk], T]) -> T:
        """Ask the index a question of one's own, once it is brought up to what the question needs.

        Records, and the checkpoints of the root, are looked at as for `latest()`; the folders of
        configs and notes every time. What is answered is proven by stamps, else asked again.
        """
        return self._answer(lambda: _consult(self, needs, question))

    def _answer(self, question: Callable[[], T]) -> T:
        """Answer from the index; where it fails, once more without the file."""
        if self._pid != os.getpid():
            self._leave_parent()
        with self._lock:
            try:
                return question()
            except IndexFailedError as error:
                self._give_up(error)
                return question()

    def _leave_parent(self) -> None:
        """Begin anew in a forked child, which must neither use nor close the connection."""
        index, self._index = self._index, None
        if index is not None:
            index.abandon()
        self._lock = threading.RLock()  # a thread that is not here any more may hold the other one
        self._forget()

    def _give_up(self, error: IndexFailedError) -> None:
        index, self._index = self._index, None
        self._may_use_file = False
        self._forget()
        if index is None or index.path is None:
            return
        index.close()
        level = logging.WARNING if error.is_damaged else logging.INFO
        logger.log(level, "the catalog %s failed and is not used: %s", index.path, error)
        if error.is_damaged:
            remove_index(index.path)

    def _open(self) -> Index:
        if self._index is None:
            from weightslab.engine.repository.index import open_index

            path = find_index_path(self._root) if self._may_use_file else None
            self._index = open_index(path)
        return self._index

    def _count_reading(self, num_files: int) -> None:
        """Open the index where more is to be read than it takes to open it."""
        self._num_read += num_files
        if self._num_read > _MAX_READ:
            self._open()

    # ------------------------------------------------------------ one experiment
    def _look(self, exp_hash: str) -> dict[CheckpointName, IndexRow]:
        """Return what is in the model folder now; reads what changed since it was read last."""
        folder_stamp = self._stamps.checkpoints(exp_hash)
        names = self._stamps.listing(layout.model_folder(exp_hash), ".json")
        stamps = _manifest_stamps(self._store, self._stamps, exp_hash)
        rows = self._rows.setdefault(exp_hash, {})
        self._count_reading(sum(name not in rows for name in stamps))
        index = self._index
        if index is not None and exp_hash not in self._loaded:
            # what was read before the index was opened is read again: its tensors are not indexed
            rows.clear()
            rows.update(index.rows(exp_hash))
            self._loaded.add(exp_hash)
        gone = [n for n in list(rows) if n not in stamps and rows.pop(n)]
        stale = {n: s for n, s in stamps.items() if not self._is_same(n, s, rows.get(n))}
        passing = self._read(exp_hash, folder_stamp, stale, gone)
        if passing:
            self._names.pop(exp_hash, None)
        else:
            self._names[exp_hash] = names  # listed before the files were looked at
        self._seen.update(rows)
        return rows | passing

    def _glance(self, exp_hash: str) -> dict[CheckpointName, IndexRow]:
        """Return the rows of a folder, of which only files with new names were looked at.

        A manifest that was exchanged under its name is not noticed here.
        """
        rows, known = self._rows.get(exp_hash), self._names.get(exp_hash)
        is_loaded = self._index is None or exp_hash in self._loaded
        if rows is None or known is None or not is_loaded:
            return self._look(exp_hash)
        folder = layout.model_folder(exp_hash)
        self._store.stat(folder)  # refuses links in the place of folders
        folder_stamp = self._stamps.checkpoints(exp_hash)
        names = self._stamps.listing(folder, ".json")
        if len(names ^ known) > _MAX_READ:
            return self._look(exp_hash)
        new = [n for file in names - known if (n := manifest_name(file, exp_hash)) is not None]
        gone = [n for file in known - names if (n := manifest_name(file, exp_hash)) is not None]
        for name in gone:
            rows.pop(name, None)
        young = [name for name, row in rows.items() if not row.stamp]
        stamps = {name: self._stamps.file(name.manifest_key) or "" for name in [*new, *young]}
        stale = {n: s for n, s in stamps.items() if not self._is_same(n, s, rows.get(n))}
        passing = self._read(exp_hash, folder_stamp, stale, gone) if stale or gone else {}
        if passing:
            self._names.pop(exp_hash, None)
        else:
            self._names[exp_hash] = names
        self._seen.update(rows)
        return rows | passing

    def _read(
        self,
        exp_hash: str,
        folder_stamp: str | None,
        stale: Mapping[CheckpointName, str],
        gone: Sequence[CheckpointName],
    ) -> dict[CheckpointName, IndexRow]:
        """Read manifests, bring rows and index up to them; return the rows of those that cannot be
        read now.

        Args:
            exp_hash: the experiment.
            folder_stamp: taken before the folder was listed.
            stale: name -> stamp of what is to be read.
            gone: whose files are not there any more.
        """
        read = {name: examine(self._store, name) for name in stale}
        passing = _take_in(self._rows[exp_hash], stale, read)
        if self._index is not None:
            self._write(exp_hash, folder_stamp, [*gone, *passing], read)
            for row in passing.values():  # for queries; without a stamp it is read at every look
                self._index.put(row, {})
        return passing

    def _is_same(self, name: CheckpointName, stamp: str, row: IndexRow | None) -> bool:
        """Tell whether a manifest holds what the row says; one that was young is compared."""
        if row is None or row.stamp:
            return row is not None and row.stamp == stamp
        try:
            if row.content is None or self._store.map(name.manifest_key) != row.content:
                return False
        except CheckpointError:
            return False
        if stamp:  # taken before the bytes were compared: from now on it tells enough
            row.stamp, row.content = stamp, None
            return self._index is None or self._index.restamp(row)
        return True

    def _write(
        self,
        exp_hash: str,
        folder_stamp: str | None,
        gone: Iterable[CheckpointName],
        read: Mapping[CheckpointName, Examined | None],
    ) -> None:
        """Bring the index up to what was just seen."""
        index, rows = self._open(), self._rows[exp_hash]
        gone = {*gone, *(name for name in read if name not in rows)}
        is_passing = any(n not in rows for n, found in read.items() if found is not None)
        is_settled = not is_passing and all(row.stamp for row in rows.values())
        stamp = (folder_stamp or "") if is_settled else ""
        if stamp or folder_stamp is None:
            self._watched.discard(exp_hash)
        else:
            self._watched.add(exp_hash)
        if not gone and not read and index.folder(exp_hash) == stamp:
            return
        if folder_stamp is None:
            index.forget(exp_hash)
            return
        with index.batch():
            index.remove(gone)
            for name, found in read.items():
                if name in rows and found is not None:
                    self._write_row(index, rows[name], found)
            index.put_folder(exp_hash, stamp)

    def _write_row(self, index: Index, row: IndexRow, found: Examined) -> None:
        if row.is_indexed and index.restamp(row):
            return
        places = {} if found.manifest is None else places_of(found.manifest)
        index.put(row, places)
        note_origin(index, row.entry, found.manifest)
        row.is_indexed = True
        if row.stamp and row.entry.name.exp_hash in self._recent:
            self._finder.remember(row.entry.name, row.stamp, places)

    # ------------------------------------------------------------ the root
    def _look_around(self, look: Callable[[str], object] | None = None) -> Index:
        """Bring the index up to the root as far as can be told cheaply.

        Args:
            look: how experiments that changed lately are looked at; by default at each manifest.
        """
        index = self._open()
        self._seen.clear()
        stamp = self._stamps.names(layout.CHECKPOINTS)
        news = self._journal.news()
        self._watched |= news.named  # until it was looked at
        if not (stamp and stamp == self._root_stamp and news.is_complete):
            self._root_stamp = None
            self._look_everywhere(index)
            self._root_stamp = stamp
        damaged = index.damaged()
        for exp_hash in self._watched | {*self._recent} | damaged:
            is_sure = exp_hash not in damaged
            look_at = (is_sure and look) or partial(_look_safely, self)
            self._check(index, exp_hash, look_at, is_sure=is_sure)
        return index

    def _check(
        self, index: Index, exp_hash: str, look: Callable[[str], object], *, is_sure: bool
    ) -> None:
        stamp = None
        if layout.is_exp_hash(exp_hash):  # a line of the journal may say anything
            stamp = self._stamps.checkpoints(exp_hash)
        known = index.folder(exp_hash)
        if (stamp is None and known is None) or (stamp and stamp == known and is_sure):
            self._watched.discard(exp_hash)
        elif layout.is_exp_hash(exp_hash):
            look(exp_hash)

    def _look_everywhere(self, index: Index) -> None:
        known, found, damaged = index.folders(), self._lister.folders(), index.damaged()
        stale = [
            h
            for h in found
            if self._is_thorough
            or h in damaged
            or not known.get(h)
            or known[h] != self._stamps.checkpoints(h)
        ]
        for start in range(0, len(stale), _BATCH):
            batch = stale[start : start + _BATCH]
            with index.batch():
                for exp_hash in batch:
                    _look_safely(self, exp_hash)
            for exp_hash in batch:  # the index has them: memory must not grow with the root
                self._rows.pop(exp_hash, None)
            self._loaded -= set(batch)
            self._seen.clear()
        for exp_hash in known.keys() - set(found):
            index.forget(exp_hash)
            self._rows.pop(exp_hash, None)
        self._is_thorough = False


def _manifest_stamps(
    store: Store, stamps_of: LocalStamps, exp_hash: str
) -> dict[CheckpointName, str]:
    folder = layout.model_folder(exp_hash)
    store.stat(folder)  # refuses links in the place of folders
    try:
        stamps = stamps_of.files(folder, ".json")
    except OSError:
        stamps = dict.fromkeys(store.list(folder), "")  # raises what it has to say
    named = ((manifest_name(file, exp_hash), stamp) for file, stamp in stamps.items())
    return {name: stamp for name, stamp in named if name is not None}


def _take_in(
    rows: dict[CheckpointName, IndexRow],
    stamps: Mapping[CheckpointName, str],
    read: Mapping[CheckpointName, Examined | None],
) -> dict[CheckpointName, IndexRow]:
    """Remember what was read; return the rows of what cannot be read now."""
    passing = {}
    for name, found in read.items():
        old = rows.pop(name, None)
        if found is None:
            continue
        row = IndexRow(stamp=stamps[name], entry=found.entry)
        if not row.stamp and found.content is not None:
            row.content = bytes(found.content)
        if not found.is_settled:
            passing[name] = row
            continue
        row.is_indexed = old is not None and old.is_indexed and old.entry == found.entry
        rows[name] = row
    return passing


def _consult(catalog: IndexedCatalog, needs: Needs, question: Callable[[Desk], T]) -> T:
    stale: set[str] | None = None
    catalog._facts.begin()
    for _ in range(_MAX_ROUNDS):
        index = _bring_up(catalog, needs, stale)
        desk = Desk(
            index,
            needs,
            partial(_is_proven, catalog),
            catalog._facts,
            catalog._lister,
            catalog._barred,
        )
        try:
            return question(desk)
        except StaleAnswerError as error:
            stale = error.exp_hashes
    raise LockedError(
        f"{catalog._root} changes all the time; the question could not be answered",
        hint="ask again",
    )


def _bring_up(catalog: IndexedCatalog, needs: Needs, stale: set[str] | None) -> Index:
    index = catalog._open()
    if stale is not None:
        for exp_hash in stale:
            catalog._loaded.discard(exp_hash)  # another process may have written the row
            _look_safely(catalog, exp_hash)
        catalog._facts.records(index, stale)
    elif needs.exp_hashes is not None:
        catalog._seen.clear()
        if needs.checkpoints:
            _look_at_some(catalog, index, needs.exp_hashes)
        catalog._facts.records(index, needs.exp_hashes)
    else:
        if needs.checkpoints:
            catalog._look_around()
        stamp = catalog._stamps.names(layout.CHECKPOINTS)
        is_known = stamp and stamp == catalog._facts_stamp and not catalog._is_thorough
        catalog._facts.records(index, () if is_known else None)
        catalog._facts_stamp = stamp
    hashes = needs.exp_hashes
    hashes = tuple(catalog._facts.hashes(index)) if hashes is None else hashes
    if needs.configs:
        catalog._facts.configs(index, hashes)
    if needs.notes:
        catalog._facts.notes(index, hashes)
    return index


def _look_at_some(catalog: IndexedCatalog, index: Index, exp_hashes: Sequence[str]) -> None:
    if len(exp_hashes) == 1:
        _look_safely(catalog, exp_hashes[0])
        return
    damaged = index.damaged()
    for exp_hash in exp_hashes:
        is_sure = exp_hash not in damaged
        catalog._check(index, exp_hash, partial(_look_safely, catalog), is_sure=is_sure)


def _is_proven(catalog: IndexedCatalog, row: IndexRow) -> bool:
    """Tell whether a manifest is still what the row says."""
    name = row.entry.name
    stamp = catalog._stamps.file(name.manifest_key)
    if stamp and stamp == row.stamp:
        return True
    seen = catalog._rows.get(name.exp_hash, {}).get(name) if name in catalog._seen else None
    return seen is not None and seen.entry == row.entry


def _look_safely(catalog: IndexedCatalog, exp_hash: str) -> None:
    """Look at an experiment; one whose folder cannot be read hides no other."""
    try:
        catalog._look(exp_hash)
        catalog._barred.pop(exp_hash, None)
    except CheckpointError as error:
        if exp_hash not in catalog._barred:
            logger.warning("the checkpoints of %s cannot be listed: %s", exp_hash, error)
        catalog._barred[exp_hash] = str(error)
        index = catalog._open()
        index.remove(index.rows(exp_hash))
        index.put_folder(exp_hash, "")
        catalog._rows.pop(exp_hash, None)
        catalog._watched.add(exp_hash)


def _newest(catalog: IndexedCatalog) -> CheckpointEntry | None:
    folders = catalog._lister.folders() if catalog._index is None else []
    if catalog._index is None and len(folders) <= _FEW:
        seen_now = [row.entry for h in folders for row in catalog._look(h).values()]
        good = (entry for entry in seen_now if entry.created_at is not None)
        return max(good, key=recency, default=None)
    index = catalog._look_around()
    reloaded: set[str] = set()
    while True:
        found = index.newest()
        if found is None:
            return None
        name = found.entry.name
        seen = catalog._rows.get(name.exp_hash, {}).get(name) if name in catalog._seen else None
        stamp = catalog._stamps.file(name.manifest_key)
        is_read = seen is not None and seen.entry == found.entry
        if is_read or (stamp and stamp == found.stamp) or name.exp_hash in reloaded:
            return found.entry
        catalog._loaded.discard(name.exp_hash)  # another process may have written the row
        catalog._look(name.exp_hash)
        reloaded.add(name.exp_hash)
