"""The index: rows about the checkpoints of a root in one SQLite file, which may vanish at any time.

Nothing here is believed by itself: each row has the stamp of the file it was read from, and a
checksum. The file is never waited for to reach the disk (write-ahead log, `synchronous=NORMAL`).

    folders      what the names of a model folder looked like when its rows were complete
    records      experiments                      checkpoints  manifests, damaged ones too
    files, uses  tensor files by content, and the checkpoints that have them
    tensors      which of these files hold the bytes of a digest
    origins      of checkpoints that cross into another experiment, or hold samplers
    samples      what was made of the samples file of an experiment

What filters ask about stands in further tables, see `fact_tables`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.repository.fact_tables import (
    FACT_SCHEMA,
    forget_facts,
    put_facts,
    remove_facts,
)
from weightslab.engine.repository.globs import glob_matches
from weightslab.engine.repository.index_file import remove_index
from weightslab.engine.repository.index_rows import (
    IndexFailedError,
    IndexRow,
    check_seal,
    content_key,
    key_of,
    pack_keys,
    row_of,
    seal_of,
    unpack_keys,
    values_of,
)
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.storage.holder import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from weightslab.engine.repository.catalog import TensorPlace
    from weightslab.engine.values import FileRecord

__all__ = ["Index", "open_index"]

logger = logging.getLogger(__name__)
_APPLICATION_ID: Final = 0x776C6362  # "wlcb"
_BUSY_SECONDS: Final = 5.0
_CACHE_KIB: Final = 32 << 10  # digests come in no order; with the usual 2 MiB a build takes twice
_MAX_FILES: Final = 8  # contents that are told for one digest
_COLUMNS: Final = "exp_hash, step, revision, stamp, moment, sequence, body, seal"
_SCHEMA: Final = f"""
CREATE TABLE folders (exp_hash TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    exp_hash TEXT PRIMARY KEY, stamp TEXT NOT NULL, body TEXT NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY, exp_hash TEXT NOT NULL, step INTEGER NOT NULL,
    revision INTEGER NOT NULL, stamp TEXT NOT NULL, moment INTEGER, sequence INTEGER NOT NULL,
    body TEXT NOT NULL, seal INTEGER NOT NULL, UNIQUE (exp_hash, step, revision)
);
CREATE INDEX newest ON checkpoints (moment, sequence, exp_hash, step, revision)
    WHERE moment IS NOT NULL;
CREATE INDEX damaged ON checkpoints (exp_hash) WHERE moment IS NULL;
CREATE TABLE files (id INTEGER PRIMARY KEY, content INTEGER NOT NULL UNIQUE, keys BLOB NOT NULL);
CREATE TABLE uses (file INTEGER, checkpoint INTEGER, PRIMARY KEY (file, checkpoint)) WITHOUT ROWID;
CREATE INDEX used ON uses (checkpoint, file);
CREATE TABLE tensors (key INTEGER, file INTEGER, PRIMARY KEY (key, file)) WITHOUT ROWID;
CREATE TABLE origins (
    checkpoint INTEGER PRIMARY KEY, crosses INTEGER NOT NULL, samplers TEXT NOT NULL,
    seal INTEGER NOT NULL
);
CREATE INDEX crossing ON origins (checkpoint) WHERE crosses;
CREATE TABLE samples (
    exp_hash TEXT PRIMARY KEY, stamp TEXT NOT NULL, body TEXT NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
{FACT_SCHEMA}PRAGMA application_id = {_APPLICATION_ID};
"""
_ROWS_OF: Final = f"SELECT {_COLUMNS} FROM checkpoints WHERE exp_hash = ?"  # noqa: S608 - constants
_NUMBERED: Final = f"SELECT id, {_COLUMNS} FROM checkpoints WHERE id IN"  # noqa: S608 - constants
_MAX_VALUES: Final = 500  # in one statement; SQLite takes 999 at least
_NEWEST: Final = (
    f"SELECT {_COLUMNS} FROM checkpoints WHERE moment IS NOT NULL ORDER BY moment DESC,"  # noqa: S608
    " sequence DESC, exp_hash DESC, step DESC, revision DESC LIMIT 1"
)


def open_index(path: Path | None) -> Index:
    """Open the index in `path`, made anew if it is of no use; in memory if it cannot be had at all."""
    for _ in range(2 if path is not None else 0):
        assert path is not None
        try:
            return Index(path)
        except IndexFailedError as error:
            logger.info("the catalog %s cannot be used: %s", path, error)
            if not error.is_damaged:
                break
            remove_index(path)
    return Index(None)


_abandoned: list[sqlite3.Connection] = []  # of parents; closing them here would undo their locks


class Index:
    """Rows in one SQLite file. Not thread-safe; every method raises IndexFailedError.

    Args:
        path: of the file; None keeps the rows in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._depth = 0
        try:
            self._connection = sqlite3.connect(
                path or ":memory:",
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        except _SQLITE_ERRORS as error:
            raise _failure(error) from error
        self.close = weakref.finalize(self, self._connection.close)
        try:
            self._prepare()
        except IndexFailedError:
            self.close()
            raise

    def _prepare(self) -> None:
        self.run("PRAGMA synchronous = OFF")  # making the file waits for nothing either
        self.run("PRAGMA journal_mode = WAL")
        self.run("PRAGMA cell_size_check = ON")
        self.run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if not self.run("PRAGMA application_id")[0][0]:
            with self.batch():
                if not self.run("SELECT count(*) FROM sqlite_master")[0][0]:
                    for statement in _SCHEMA.split(";"):
                        self.run(statement)
        if self.run("PRAGMA application_id") != [(_APPLICATION_ID,)]:
            raise IndexFailedError("it is a database of another program", is_damaged=True)
        boot = zlib.crc32(boot_id().encode()) >> 1
        if self.run("PRAGMA user_version") != [(boot,)]:  # the machine may have lost its power
            if self.run("PRAGMA quick_check(1)") != [("ok",)]:
                raise IndexFailedError("it is damaged", is_damaged=True)
            self.run(f"PRAGMA user_version = {boot}")
        self.run("PRAGMA synchronous = NORMAL")
        self._connection.create_function("glob_matches", 2, glob_matches, deterministic=True)
        if self.path is not None:
            try:
                os.utime(self.path)  # so that it counts as used
            except OSError as error:
                raise IndexFailedError(str(error), is_damaged=False) from error

    def abandon(self) -> None:
        """Leave the connection to the process that opened it; this object is of no use afterwards."""
        self.close.detach()
        _abandoned.append(self._connection)

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except _SQLITE_ERRORS as error:
            raise _failure(error) from error

    def run_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute one statement for each row."""
        try:
            self._connection.executemany(statement, rows)
        except _SQLITE_ERRORS as error:
            raise _failure(error) from error

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make everything inside one transaction; may be nested."""
        if not self._depth:
            self.run("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:  # Ctrl-C, too, leaves no transaction open that locks others out
            self._depth -= 1
            if not self._depth and self._connection.in_transaction:
                self.run("ROLLBACK")
            raise
        self._depth -= 1
        if not self._depth:
            self.run("COMMIT")

    # ------------------------------------------------------------ experiments
    def folders(self) -> dict[str, str]:
        """Return experiment -> stamp of its model folder when its rows were complete."""
        return dict(self.run("SELECT exp_hash, stamp FROM folders"))

    def folder(self, exp_hash: str) -> str | None:
        """Return the stamp of the model folder of one experiment."""
        found = self.run("SELECT stamp FROM folders WHERE exp_hash = ?", exp_hash)
        return found[0][0] if found else None

    def put_folder(self, exp_hash: str, stamp: str) -> None:
        """Note that the rows of an experiment are complete for this state of its folder."""
        self.run("INSERT OR REPLACE INTO folders VALUES (?, ?)", exp_hash, stamp)

    def records(self, exp_hash: str | None = None) -> dict[str, tuple[str, str]]:
        """Return experiment -> (stamp, body), of all or of one."""
        found = {}
        rows = self.run(
            "SELECT * FROM records WHERE exp_hash = ?" if exp_hash else "SELECT * FROM records",
            *filter(None, [exp_hash]),
        )
        for name, stamp, body, seal in rows:
            check_seal(seal, name, stamp, body)
            found[name] = stamp, body
        return found

    def numbered(self, numbers: Sequence[int]) -> dict[int, IndexRow]:
        """Return the rows of checkpoints by their numbers in the index, in that order."""
        found = {}
        for start in range(0, len(numbers), _MAX_VALUES):
            some = numbers[start : start + _MAX_VALUES]
            marks = ",".join("?" * len(some))
            for number, *values in self.run(f"{_NUMBERED} ({marks})", *some):
                found[number] = row_of(tuple(values))
        return {number: found[number] for number in numbers if number in found}

    def put_records(self, records: Mapping[str, tuple[str, str]]) -> None:
        """Write rows of experiments: (stamp, body)."""
        rows = [(h, stamp, body, seal_of(h, stamp, body)) for h, (stamp, body) in records.items()]
        with self.batch():
            self.run_many("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def forget(self, exp_hash: str) -> None:
        """Remove everything about an experiment."""
        with self.batch():
            names = self.rows(exp_hash)
            self.remove(names)
            self.run("DELETE FROM folders WHERE exp_hash = ?", exp_hash)
            self.run("DELETE FROM records WHERE exp_hash = ?", exp_hash)
            self.run("DELETE FROM samples WHERE exp_hash = ?", exp_hash)
            forget_facts(self, exp_hash)

    def damaged(self) -> set[str]:
        """Return the experiments with damaged manifests."""
        found = self.run("SELECT DISTINCT exp_hash FROM checkpoints WHERE moment IS NULL")
        return {exp_hash for (exp_hash,) in found}

    # ------------------------------------------------------------ checkpoints
    def rows(self, exp_hash: str) -> dict[CheckpointName, IndexRow]:
        """Return the rows of an experiment."""
        found = self.run(_ROWS_OF, exp_hash)
        rows = [row_of(values) for values in found]
        return {row.entry.name: row for row in rows}

    def newest(self) -> IndexRow | None:
        """Return the readable checkpoint with the highest creation time."""
        found = self.run(_NEWEST)
        return row_of(found[0]) if found else None

    def restamp(self, row: IndexRow) -> bool:
        """Note that a manifest was read again and holds what the row says; False without a row."""
        found = self.run(
            "UPDATE checkpoints SET stamp = ?, seal = ? WHERE exp_hash = ? AND step = ?"
            " AND revision = ? RETURNING id",
            row.stamp,
            values_of(row)[-1],
            row.entry.name.exp_hash,
            row.entry.name.step,
            row.entry.name.revision,
        )
        return bool(found)

    def put(self, row: IndexRow, places: Mapping[str, TensorPlace]) -> None:
        """Write the row of a manifest and where its tensors lie."""
        with self.batch():
            self.remove([row.entry.name])
            number = self._insert(
                "INSERT INTO checkpoints VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", values_of(row)
            )
            put_facts(self, number, row.entry)
            held: dict[str, tuple[FileRecord, set[int]]] = {}
            for digest, place in places.items():
                held.setdefault(place.file.name, (place.file, set()))[1].add(key_of(digest))
            for file, keys in held.values():
                self._put_file(number, content_key(file), keys)

    def _insert(self, statement: str, values: tuple[Any, ...]) -> int:
        try:
            return int(self._connection.execute(statement, values).lastrowid or 0)
        except _SQLITE_ERRORS as error:
            raise _failure(error) from error

    def _put_file(self, checkpoint: int, content: int, keys: set[int]) -> None:
        found = self.run("SELECT id, keys FROM files WHERE content = ?", content)
        if found:
            file, old = found[0][0], set(unpack_keys(found[0][1]))
            keys = keys - old
            if keys:
                self.run("UPDATE files SET keys = ? WHERE id = ?", pack_keys(keys | old), file)
        else:
            file = self._insert("INSERT INTO files VALUES (NULL, ?, ?)", (content, pack_keys(keys)))
        self.run_many("INSERT OR IGNORE INTO tensors VALUES (?, ?)", ((k, file) for k in keys))
        self.run("INSERT OR IGNORE INTO uses VALUES (?, ?)", file, checkpoint)

    def remove(self, names: Iterable[CheckpointName]) -> None:
        """Remove the rows of manifests, and the files that no other checkpoint has."""
        with self.batch():
            for name in names:
                found = self.run(
                    "SELECT id FROM checkpoints WHERE exp_hash = ? AND step = ? AND revision = ?",
                    name.exp_hash,
                    name.step,
                    name.revision,
                )
                for (number,) in found:
                    self._remove(number)

    def _remove(self, number: int) -> None:
        files = self.run("SELECT file FROM uses WHERE checkpoint = ?", number)
        self.run("DELETE FROM uses WHERE checkpoint = ?", number)
        self.run("DELETE FROM checkpoints WHERE id = ?", number)
        self.run("DELETE FROM origins WHERE checkpoint = ?", number)
        remove_facts(self, number)
        for (file,) in files:
            if self.run("SELECT 1 FROM uses WHERE file = ? LIMIT 1", file):
                continue
            for (keys,) in self.run("SELECT keys FROM files WHERE id = ?", file):
                rows = [(key, file) for key in unpack_keys(keys)]
                self.run_many("DELETE FROM tensors WHERE key = ? AND file = ?", rows)
            self.run("DELETE FROM files WHERE id = ?", file)

    # ------------------------------------------------------------ tensors
    def files_with(self, digest: str) -> list[int]:
        """Return the newest files that hold the bytes of a digest."""
        found = self.run(
            "SELECT file FROM tensors WHERE key = ? ORDER BY file DESC LIMIT ?",
            key_of(digest),
            _MAX_FILES,
        )
        return [file for (file,) in found]

    def content(self, file: int) -> int | None:
        """Return the key of the content of a file."""
        found = self.run("SELECT content FROM files WHERE id = ?", file)
        return found[0][0] if found else None

    def users(self, file: int, *, at_most: int) -> list[CheckpointName]:
        """Return checkpoints that have a file, the first ones first."""
        found = self.run(
            "SELECT exp_hash, step, revision FROM uses JOIN checkpoints ON id = checkpoint"
            " WHERE file = ? ORDER BY checkpoint LIMIT ?",
            file,
            at_most,
        )
        return [CheckpointName(exp_hash=h, step=s, revision=r) for h, s, r in found]


# a damaged schema may turn up in the text of an error, which then cannot be decoded
_SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)


def _failure(error: Exception) -> IndexFailedError:
    # an OperationalError is about now (locked, no space, no permission), others about the file
    return IndexFailedError(str(error), is_damaged=not isinstance(error, sqlite3.OperationalError))
