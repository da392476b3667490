"""The survey: what a root holds, as facts for a plan; looks again only at what changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    MissingObjectError,
    StorageError,
    TruncatedError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import manifest_names, read_manifest
from weightslab.engine.repository.following import JournalFollower
from weightslab.engine.repository.notes import read_notes
from weightslab.engine.repository.stamps import LocalStamps
from weightslab.engine.repository.thinning import is_kept
from weightslab.engine.retention.facts import Candidate, Child, FileFacts
from weightslab.engine.values import ParentLink

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["Survey"]

_TRAINING: Final = "training."


@dataclass(frozen=True, slots=True)
class _Experiment:
    """What is known of one experiment: `candidates` are decided about, `children` stay as they are."""

    names: frozenset[CheckpointName]
    candidates: tuple[Candidate, ...]
    children: tuple[Child, ...]
    untouchable: str | None = None


class Survey:
    """Facts about the checkpoints of a root, kept up to date. Not thread-safe.

    The first look takes in every experiment. After that the journal tells which ones were written to,
    and `checkpoints/` whether any came or went; only those are looked at.

    Args:
        place: the root.
        focus: the one experiment that is decided about; of the others only what their checkpoints
            say of their origin is kept. None decides about all.
    """

    def __init__(self, place: Keeper, *, focus: str | None = None) -> None:
        self._place = place
        self._store = place.store
        self._focus = focus
        self._stamps = LocalStamps(place.path)
        self._journal = JournalFollower(place.path / "logs" / "events.jsonl")
        self._names: str | None = None
        self._seen: dict[str, tuple[str | None, str | None]] = {}  # stamps when it was looked at
        self._found: dict[str, _Experiment] = {}
        self._read: dict[
            str, tuple[str | None, frozenset[str]]
        ] = {}  # manifest -> what is asked of it

    # ------------------------------------------------------------ looking
    def refresh(self) -> bool:
        """Look at what changed; returns whether anything did."""
        names, news = self._stamps.names(layout.CHECKPOINTS), self._journal.news()
        if not (names and names == self._names and news.is_complete):
            self._names = names
            hashes = set(self._place.catalog.exp_hashes())
            gone = self._found.keys() - hashes
            for exp_hash in gone:
                self.forget(exp_hash)
        else:
            hashes, gone = {h for h in news.named if layout.is_exp_hash(h)}, set()
        changed = [self.look(exp_hash) for exp_hash in sorted(hashes)]
        return bool(gone) or any(changed)

    def look(self, exp_hash: str, *, always: bool = False) -> bool:
        """Look at an experiment if its folders changed; returns whether what is known did."""
        before = self._found.get(exp_hash)
        stamps = self._stamps_of(exp_hash)
        if before is not None and not always:
            if all(stamps) and stamps == self._seen[exp_hash]:
                return False
            # holds come and go in the folder; a manifest that has its name never changes
            if (stamps[1] and stamps[1] == self._seen[exp_hash][1]) and before.names == frozenset(
                manifest_names(self._store, exp_hash)
            ):
                return False
        self._seen[exp_hash] = stamps
        found = self._found[exp_hash] = self._examine(exp_hash)
        return before != found

    def _stamps_of(self, exp_hash: str) -> tuple[str | None, str | None]:
        """Return the stamps of the names of checkpoints and of notes; `none` without notes."""
        notes = self._stamps.names(layout.notes_folder(exp_hash))
        return self._stamps.names(layout.model_folder(exp_hash)), "none" if notes is None else notes

    def forget(self, exp_hash: str) -> None:
        """Forget an experiment, so that it is looked at again."""
        self._found.pop(exp_hash, None)
        self._seen.pop(exp_hash, None)

    def expect(
        self,
        exp_hash: str,
        *,
        gone: Collection[CheckpointName] = (),
        come: Collection[CheckpointName] = (),
    ) -> None:
        """Note what the caller has changed: nothing that has to be looked at now."""
        found = self._found[exp_hash]
        names = found.names.difference(gone).union(come)
        self._found[exp_hash] = replace(found, names=names)

    def left_alone(self) -> dict[str, str]:
        """Return the experiments of which nothing may be changed, and why."""
        return {h: why for h, found in self._found.items() if (why := found.untouchable)}

    def candidates(self) -> list[Candidate]:
        """Return every checkpoint that is decided about."""
        return [member for found in self._found.values() for member in found.candidates]

    def outside(self) -> list[Child]:
        """Return what other checkpoints say of their origin."""
        return [child for found in self._found.values() for child in found.children]

    # ------------------------------------------------------------ one experiment
    def _examine(self, exp_hash: str) -> _Experiment:
        entries = self._place.catalog.checkpoints(exp_hash)
        names = frozenset(entry.name for entry in entries)
        children = [c for e in entries if e.damaged for c in self._hidden_child(e.name)]
        if self._focus not in (None, exp_hash):
            links = [e.parent for e in entries if e.parent is not None]
            here = [link for link in links if self._is_about_focus(link)]
            children += [Child(exp_hash=exp_hash, parent=link) for link in dict.fromkeys(here)]
            return _Experiment(names, (), tuple(children))
        files = _files_in(self._place.path, self._store, exp_hash)
        members = [self._candidate(entry, files.get(entry.name, [])) for entry in entries]
        untouchable = self._why_untouchable(exp_hash, entries)
        notes = read_notes(self._store, exp_hash)
        if not notes.is_certain:
            untouchable = untouchable or f"what is pinned is not known: {notes.damaged[0]}"
        return _Experiment(
            names,
            tuple(
                replace(
                    member, is_pinned=notes.is_pinned(member.entry.name), untouchable=untouchable
                )
                for member in members
            ),
            tuple(children),
            untouchable,
        )

    def _is_about_focus(self, link: ParentLink) -> bool:
        return link.exp_hash == self._focus or self._focus in link.via

    def _why_untouchable(self, exp_hash: str, entries: list[CheckpointEntry]) -> str | None:
        """Return why nothing of an experiment may be changed, None if it may."""
        found = self._place.catalog.experiment(exp_hash)
        if found is None or found.record is None:
            what = "missing" if found is None else found.damaged
            return f"the record of its experiment cannot be read: {what}"
        for entry in entries:
            if entry.damaged is None:
                continue
            try:
                read_manifest(self._store, entry.name)
            except UnsupportedVersionError:
                return f"{entry.name.stem} was written by a newer version of this package"
            except CheckpointNotFoundError:
                continue  # deleted meanwhile
            except StorageError as error:
                return f"{entry.name.stem} cannot be read now: {error}"
            except CheckpointError:
                continue
        return None

    def _hidden_child(self, name: CheckpointName) -> list[Child]:
        """Return where a checkpoint of a newer version says that it came from, if that can be read."""
        try:
            document, _ = unseal(self._store.map(name.manifest_key), what=name.stem)
            told = document["parent"]
            link = ParentLink(
                kind=told["kind"],
                exp_hash=told.get("exp_hash"),
                step=told.get("step"),
                revision=told.get("revision"),
                manifest_digest=told.get("manifest_digest"),
                via=tuple(h for h in told.get("via", ()) if isinstance(h, str)),
            )
            hash((link.exp_hash, link.step, link.via))
        except (CheckpointError, KeyError, TypeError, AttributeError):
            return []
        return [Child(exp_hash=name.exp_hash, parent=link)]

    # ------------------------------------------------------------ one checkpoint
    def _candidate(self, entry: CheckpointEntry, files: list[FileFacts]) -> Candidate:
        damaged = entry.damaged
        derived_from, training = None, frozenset[str]()
        if damaged is None:
            try:
                derived_from, training = self._what_it_says(entry, files)
            except CheckpointError as error:
                damaged = str(error)
        facts = tuple(replace(f, is_training=True) if f.key in training else f for f in files)
        return Candidate(entry=entry, files=facts, derived_from=derived_from, damaged=damaged)

    def _what_it_says(
        self, entry: CheckpointEntry, files: list[FileFacts]
    ) -> tuple[str | None, frozenset[str]]:
        """Return what a checkpoint was thinned from, and which of its files hold training state alone.

        The manifest is read only where names and sizes do not tell.

        Raises: IntegrityError if files are missing or cut; CheckpointError.
        """
        start = len(layout.model_folder(entry.name.exp_hash)) + len(entry.name.stem) + 1
        kinds = {file.key: file.key[start:] for file in files}
        is_plain = not any(kind.startswith(("ref", "stable.")) for kind in kinds.values())
        has_all = sum(file.size_bytes for file in files) == entry.size_bytes
        if has_all and is_plain and entry.name.revision == 1:
            return None, frozenset(k for k, kind in kinds.items() if kind.startswith(_TRAINING))
        known = self._read.get(entry.digest)
        if known is None or not has_all:
            manifest = read_manifest(self._store, entry.name)
            _check_sizes(manifest, {file.key: file.size_bytes for file in files})
            known = self._read[entry.digest] = manifest.derived_from, _training_files(manifest)
        return known


def _training_files(manifest: Manifest) -> frozenset[str]:
    """Return the keys of the files from which thinning keeps nothing."""
    kept = {record.file for key, record in manifest.tensors.items() if is_kept(key)}
    return frozenset(manifest.name.file_key(f.name) for f in manifest.files if f.name not in kept)


def _check_sizes(manifest: Manifest, sizes: dict[str, int]) -> None:
    for file in manifest.files:
        size_bytes = sizes.get(manifest.name.file_key(file.name))
        if size_bytes != file.size_bytes:
            if size_bytes is None:
                raise MissingObjectError(f"{file.name} is not there")
            raise TruncatedError(
                f"{file.name} has {size_bytes:,} bytes instead of {file.size_bytes:,}"
            )


def _files_in(path: Path, store: Store, exp_hash: str) -> dict[CheckpointName, list[FileFacts]]:
    """Return the tensor files of each checkpoint of an experiment. One listing, 3 us a file."""
    folder = layout.model_folder(exp_hash)
    store.stat(folder)  # refuses links in the place of folders
    found: dict[CheckpointName, list[FileFacts]] = {}
    try:
        with os.scandir(path / folder) as files:
            for file in files:
                parsed = layout.parse_checkpoint_file(file.name)
                if parsed is None or not parsed[1].endswith("safetensors"):
                    continue
                facts = _facts_of(folder + file.name, file)
                if facts is not None:
                    found.setdefault(parsed[0], []).append(facts)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StorageError(f"cannot list {path / folder}: {error}") from error
    return {name: sorted(facts, key=lambda f: f.key) for name, facts in found.items()}


def _facts_of(key: str, file: os.DirEntry[Any]) -> FileFacts | None:
    try:
        # not `file.stat()`: on Windows that has neither inode nor number of links
        stat = os.stat(file.path, follow_symlinks=False)  # noqa: PTH116
    except FileNotFoundError:
        return None  # removed since the listing
    return FileFacts(
        key=key,
        size_bytes=stat.st_size,
        identity=(stat.st_dev, stat.st_ino),
        num_links=stat.st_nlink,
    )
