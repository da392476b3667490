"""Symptoms of one experiment: holds, leftovers, damage and gaps, foreign files, clocks. Reads, writes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from weightslab.engine.care.diagnosis import ERROR, NOTE, WARNING, Problem
from weightslab.engine.care.left_files import DEAD, LIVING, state_of, temporary_files
from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.notes import read_notes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.layout import CheckpointName

__all__ = ["ExperimentSymptoms"]

_JUMP: Final = timedelta(minutes=1)  # what clocks of machines that share a root may differ by
_AHEAD: Final = timedelta(days=1)
_SHOWN: Final = 3
_NO_FILE: Final = -1
_FORCE: Final = "update_experiment_hash(..., force=True) writes it again"
_OWN: Final = {
    "hp/": re.compile(r"H_[\w-]+(\.r\d+)?\.yaml"),
    "data/": re.compile(r"H_[\w-]+(\.r\d+|\.base)?\.h5(\.json|\.pending)?"),
    "notes/": re.compile(r"[0-9A-Z]+_(name|note|tag|pin)_[0-9a-f]{16}\.json"),
    "provenance/": re.compile(r"[0-9A-Z]+_[0-9a-f]{16}\.json"),
}
_PARTS: Final = ("model/", *_OWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSymptoms:
    """Looks at one experiment.

    Attributes:
        root: the root.
        exp_hash: the experiment.
        is_local: a free lock proves that its holder is dead.
    """

    root: Keeper
    exp_hash: str
    is_local: bool

    def all(self, entry: ExperimentEntry | None, found: list[CheckpointEntry]) -> Iterator[Problem]:
        """Yield everything that is wrong."""
        folder = layout.experiment_folder(self.exp_hash)
        if entry is None:
            yield Problem(
                severity=NOTE, kind="unfinished", where=folder,
                what="an experiment whose opening was cut off: it has no record and no checkpoint",
                mend="open it again with update_experiment_hash, or remove the folder",
            )  # fmt: skip
        elif entry.damaged is not None:
            yield Problem(
                severity=ERROR, kind="record", where=layout.experiment_key(self.exp_hash),
                what=entry.damaged, mend=_FORCE,
            )  # fmt: skip
        else:
            yield from self._components(entry)
        yield from self._checkpoints({e.name: e for e in found})
        yield from self._clock(found)
        yield from self._others()
        yield from self._notes()

    # ------------------------------------------------------------ the record and its files
    def _components(self, entry: ExperimentEntry) -> Iterator[Problem]:
        assert entry.record is not None, "it is not damaged"
        parts = entry.record.components
        promised = {
            layout.architecture_key(self.exp_hash): parts.model,
            layout.architecture_key(self.exp_hash, "txt"): parts.model,
            layout.config_key(self.exp_hash): parts.config,
            layout.data_key(self.exp_hash): parts.data,
            f"{layout.data_key(self.exp_hash)}.json": parts.data,
        }
        for key, digest in promised.items():
            if digest is not None and not os.path.lexists(self.root.path / key):
                yield Problem(
                    severity=ERROR, kind="component", where=key,
                    what="the file is missing", mend=_FORCE,
                )  # fmt: skip

    def _notes(self) -> Iterator[Problem]:
        if not (self.root.path / layout.notes_folder(self.exp_hash)).exists():
            return
        for text in read_notes(self.root.store, self.exp_hash).damaged:
            yield Problem(
                severity=ERROR, kind="note", where=layout.notes_folder(self.exp_hash),
                what=f"{text}; until it is gone everything here counts as pinned",
                mend="remove that file if you can do without it",
            )  # fmt: skip

    # ------------------------------------------------------------ checkpoints
    def _checkpoints(self, entries: dict[CheckpointName, CheckpointEntry]) -> Iterator[Problem]:
        folder = layout.model_folder(self.exp_hash)
        sizes = self._list(folder)
        of_name: dict[CheckpointName, dict[str, int]] = defaultdict(dict)
        foreign = []
        architecture = {f"{self.exp_hash}_architecture.{suffix}" for suffix in ("json", "txt")}
        for file, size_bytes in sizes.items():
            parsed = layout.parse_checkpoint_file(file)
            if parsed is not None and parsed[0].exp_hash == self.exp_hash and _is_part(parsed[1]):
                of_name[parsed[0]][file] = size_bytes
            elif file not in architecture:
                foreign.append(file)
        yield from self._foreign(folder, foreign)
        for name, files in of_name.items():
            hold = f"{name.stem}.pending"
            problem = self._hold(folder + hold) if hold in files else None
            if hold in files and problem is None:
                continue  # being written, or gone meanwhile
            if problem is not None:
                yield problem
            yield from self._one(name, files, entries.get(name), is_free=problem is None)

    def _one(
        self,
        name: CheckpointName,
        files: dict[str, int],
        entry: CheckpointEntry | None,
        *,
        is_free: bool,
    ) -> Iterator[Problem]:
        tensors = {file: size for file, size in files.items() if file.endswith(".safetensors")}
        if f"{name.stem}.json" not in files:
            if tensors and is_free:
                yield Problem(
                    severity=WARNING, kind="leftover", where=layout.model_folder(self.exp_hash) + name.stem,
                    what=f"{len(tensors)} files of a save that was cut off, {sum(tensors.values()):,} bytes",
                    mend="root.doctor(mend=True) removes them; so does the next save there",
                    is_mendable=True,
                )  # fmt: skip
        elif entry is not None and entry.damaged is not None:
            call = f"root.quarantine({name.exp_hash[:8]!r}, step={name.step})"
            yield Problem(
                severity=ERROR, kind="manifest", where=name.manifest_key,
                what=entry.damaged, mend=f"{call} sets the checkpoint aside",
            )  # fmt: skip
        elif entry is not None and entry.size_bytes != sum(tensors.values()):
            yield from self._gaps(name, tensors)

    def _gaps(self, name: CheckpointName, sizes: dict[str, int]) -> Iterator[Problem]:
        """Say which files of a manifest are gone or cut; the sum of the sizes does not fit."""
        try:
            files = read_manifest(self.root.store, name).files
        except CheckpointError:
            return  # deleted since it was listed
        call = f"root.quarantine({name.exp_hash[:8]!r}, step={name.step})"
        for file in files:
            size_bytes = sizes.get(file.name)
            if size_bytes == file.size_bytes:
                continue
            what = "the file is gone" if size_bytes is None else f"it has {size_bytes:,} bytes"
            what = "it is no regular file" if size_bytes == _NO_FILE else what
            yield Problem(
                severity=ERROR, kind="file", where=layout.model_folder(name.exp_hash) + file.name,
                what=f"{what}; the manifest says {file.size_bytes:,} bytes",
                mend=f"bring back a copy, or set the checkpoint aside: {call}",
            )  # fmt: skip

    def _clock(self, entries: list[CheckpointEntry]) -> Iterator[Problem]:
        """Say where times go back while sequences go on, and what lies in the future."""
        good = [e for e in entries if e.created_at is not None]
        for before, after in pairwise(good):
            assert before.created_at is not None
            assert after.created_at is not None
            if after.created_at < before.created_at - _JUMP:
                yield Problem(
                    severity=NOTE, kind="clock", where=after.name.manifest_key,
                    what=f"committed after {before.name.stem}, but its time is"
                    f" {before.created_at - after.created_at} earlier: a clock was set back, or differs",
                    mend="nothing to do: the order within an experiment is that of commits",
                )  # fmt: skip
        limit = self.root.clock() + _AHEAD
        for entry in good:
            if entry.created_at is not None and entry.created_at > limit:
                yield Problem(
                    severity=WARNING, kind="clock", where=entry.name.manifest_key,
                    what=f"its time is {entry.created_at:%Y-%m-%d}, which is in the future: until then it is"
                    " the newest of the root",
                    mend="set the clock right, and name the experiment in load_latest_checkpoint(exp_hash=...)",
                )  # fmt: skip

    # ------------------------------------------------------------ what else lies there
    def _others(self) -> Iterator[Problem]:
        folder = layout.experiment_folder(self.exp_hash)
        own = {"experiment.json", *_PARTS}
        yield from self._foreign(
            folder, [n for n in self._list(folder, folders=True) if n not in own]
        )
        for part, pattern in _OWN.items():
            names = list(self._list(folder + part, folders=True))
            named = {n: n.replace(self.exp_hash, "H", 1) for n in names}
            yield from self._foreign(
                folder + part, [n for n in names if not pattern.fullmatch(named[n])]
            )
            for name in names:
                problem = self._hold(folder + part + name) if name.endswith(".h5.pending") else None
                if problem is not None:
                    yield problem
        for part in ("", *_PARTS):
            yield from self._temporary(folder + part)

    def _list(self, folder: str, *, folders: bool = False) -> dict[str, int]:
        """Return what `_sizes` does.

        Raises: ForeignFileError where a link stands in the place of a folder: what lies behind it is not ours.
        """
        self.root.store.stat(folder)
        return _sizes(self.root.path / folder, folders=folders)

    def _temporary(self, folder: str) -> Iterator[Problem]:
        for path in temporary_files(self.root.store, self.root.path, folder):
            state = _state(path)
            if state in (LIVING, ""):
                continue
            is_dead = state == DEAD or self.is_local
            yield Problem(
                severity=NOTE, kind="temporary", where=folder + path.name,
                what="a file that was being written when its writer died",
                mend="root.doctor(mend=True) removes it" if is_dead else _ELSEWHERE, is_mendable=is_dead,
            )  # fmt: skip

    def _hold(self, key: str) -> Problem | None:
        """Return what is wrong with a hold; None if its writer lives."""
        state = _state(self.root.path / key)
        if state in (LIVING, ""):
            return None
        is_dead = state == DEAD or self.is_local
        who = (
            "a process that died"
            if state == DEAD
            else "a process of another host, or before a restart"
        )
        return Problem(
            severity=WARNING, kind="hold", where=key,
            what=f"held by {who}; this revision cannot be written or deleted" if state != DEAD else f"held by {who}",
            mend="root.doctor(mend=True) removes it" if is_dead else _ELSEWHERE, is_mendable=is_dead,
        )  # fmt: skip

    def _foreign(self, folder: str, names: list[str]) -> Iterator[Problem]:
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield Problem(
                severity=NOTE, kind="foreign", where=folder,
                what=f"holds what is not ours: {', '.join(sorted(names)[:_SHOWN])}{more}",
                mend="it is left alone; move it elsewhere if you do not need it here",
            )  # fmt: skip


_ELSEWHERE: Final = (
    "remove it once you are sure that no process of another machine writes here any more"
)


def _state(path: Path) -> str:
    try:
        return state_of(path)
    except FileNotFoundError:
        return ""  # gone since it was listed


def _is_part(rest: str) -> bool:
    return rest in ("json", "pending") or rest.endswith("safetensors")


def _sizes(folder: Path, *, folders: bool = False) -> dict[str, int]:
    """Return name -> size of what is in a folder but temporary files; _NO_FILE for what is no regular file.

    Folders end with `/`, and are left out unless asked for.
    """
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if folders:
                        found[f"{entry.name}/"] = _NO_FILE
                    continue
                status = entry.stat(follow_symlinks=False)
                found[entry.name] = status.st_size if stat.S_ISREG(status.st_mode) else _NO_FILE
    except OSError:
        return found  # gone meanwhile; one that may not be read is a problem of the root
    return found
