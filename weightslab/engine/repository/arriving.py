"""Arriving: experiments and checkpoints of another store become those of this one, byte for byte.

The order is that of a commit: an experiment gets its files, then its record; a checkpoint is held, gets its
files, each is verified under its new name, then it gets its manifest. Killed anywhere, each is there whole
or not at all, and a second call goes on. Manifests stay as they are, so that every digest by which
a child names its parent stays true; therefore what has a name here already is never replaced: the same is
left alone, another is a conflict. Files with the same bytes are linked to what is here, or to the other
store where the file system can do that.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    IntegrityError,
    LockedError,
    MissingObjectError,
    ObjectNotFoundError,
    TruncatedError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import manifest_names, map_file, read_manifest
from weightslab.engine.repository.claim import reading
from weightslab.engine.repository.commit import clean_up, put_new, reserve
from weightslab.engine.repository.component_file import (
    read_architecture,
    read_architecture_text,
    read_config,
    read_samples,
)
from weightslab.engine.repository.config_file import config_from_bytes, same_config
from weightslab.engine.repository.data_file import (
    put_with_sidecar,
    read_data_file,
)
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.findings import Tally
from weightslab.engine.repository.notes import read_note
from weightslab.engine.repository.opening import ExperimentFile, open_with_files
from weightslab.engine.repository.provenance import read_provenance
from weightslab.engine.repository.verify import keys_beside, verify_files
from weightslab.engine.storage.store import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from weightslab.engine.repository.catalog import Catalog
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.repository.notes import Note
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import FileRecord

__all__ = ["Arrival", "component_keys"]

_MIN_LINK_BYTES: Final = 64 << 10  # smaller files are not shared between roots: people edit them
_MIN_PLACE_BYTES: Final = 1024  # tensors below are in no catalog


class Arrival:
    """Brings experiments and checkpoints from one store into another. Not thread-safe.

    Args:
        source: where they are.
        store: where they go.
        catalog: of where they go.
        links: files may become further names of those in the source, where the file system can do that.
        around: called with the name of a checkpoint; what it returns is entered while that is committed.

    Attributes:
        written_bytes: bytes of tensor files that were written.
        linked_bytes: bytes of tensor files that got a further name instead.
    """

    def __init__(
        self,
        source: Store,
        store: Store,
        catalog: Catalog,
        *,
        links: bool = True,
        around: Callable[[CheckpointName], AbstractContextManager[object]] | None = None,
    ) -> None:
        self._source, self._store, self._catalog = source, store, catalog
        self._links = links
        self._around = around or (lambda _: nullcontext())
        self._tally = Tally()
        self._placed: dict[tuple[int, int], str] = {}  # file of the source -> key of it here
        self._thinned: dict[str, dict[str, CheckpointName]] = {}
        self.written_bytes = 0
        self.linked_bytes = 0

    # ------------------------------------------------------------ experiments
    def experiment(self, exp_hash: str) -> bool:
        """Have an experiment here: its record, and what its identity is made of.

        Returns: True if it was created now.
        Raises: ExperimentHashClashError; ObjectNotFoundError, IntegrityError, FormatError if it is
            damaged there, or here; StorageError.
        """
        key = layout.experiment_key(exp_hash)
        content = self._source.map(key)
        record = ExperimentRecord.from_bytes(content, exp_hash=exp_hash)
        for check in self._checks(self._source, record).values():
            check()  # here a file that has no sidecar yet would be taken for what it is
        files = self._component_files(record)
        if self._store.stat(key) is None:
            for (
                file
            ) in files:  # placed first, so that each of them is read and checked under its name
                self._place_small(file.key)
        return open_with_files(self._store, record, files, content=content)

    def _component_files(self, record: ExperimentRecord) -> list[ExperimentFile]:
        checks = self._checks(self._store, record)
        return [ExperimentFile(key, self._bytes_of(key), check) for key, check in checks.items()]

    def _bytes_of(self, key: str) -> Callable[[], memoryview]:
        return lambda: self._source.map(key)

    def _checks(self, store: Store, record: ExperimentRecord) -> dict[str, Callable[[], object]]:
        """Return key -> what reads this file of a store, for each file that is in the source."""
        exp_hash = record.exp_hash
        base = layout.samples_base_key(exp_hash)
        reads: dict[str, Callable[[], object]] = {
            layout.config_key(exp_hash): lambda: read_config(store, record),
            layout.architecture_key(exp_hash): lambda: read_architecture(store, record),
            layout.architecture_key(exp_hash, "txt"): lambda: read_architecture_text(
                store, exp_hash
            ),
            base: lambda: read_data_file(store, base),
            layout.data_key(exp_hash): lambda: read_samples(store, record),
        }
        return {key: reads[key] for key in component_keys(self._source, record)}

    def _place_small(self, key: str) -> None:
        if self._store.stat(key) is None and not self._link_across(key):
            self._store.put(key, [self._source.map(key)], if_absent=True)

    def beside(self, exp_hash: str, wanted: Callable[[Note], bool]) -> list[tuple[str, str]]:
        """Have the other files of an experiment here: configs, backups, notes, sessions.

        Args:
            exp_hash: the experiment, which is here.
            wanted: says which notes.
        Returns: (file, why it was left out) of those that are damaged, or in conflict with what is here.
        Raises: StorageError if a folder cannot be read.
        """
        record = ExperimentRecord.from_bytes(
            self._source.map(layout.experiment_key(exp_hash)), exp_hash=exp_hash
        )
        own, problems, folders = {*component_keys(self._source, record)}, [], set()
        for key in keys_beside(self._source, exp_hash):
            if key in own:
                continue
            try:
                self._take_beside(exp_hash, key, wanted)
                folders.add(key.rpartition("/")[0] + "/")
            except (IntegrityError, AlreadyExistsError, ValueError) as error:
                problems.append((key.rpartition("/")[2], str(error)))
        for folder in sorted(folders):
            if self._store.stat(folder) is not None:
                self._store.sync(folder)
        return problems

    def _take_beside(self, exp_hash: str, key: str, wanted: Callable[[Note], bool]) -> None:
        source, name = self._source, key.rpartition("/")[2]
        if key.startswith(layout.data_folder(exp_hash)):
            if not put_with_sidecar(self._store, key, bytes(read_data_file(source, key))):
                raise _conflict(name)
            return
        if key.startswith(layout.notes_folder(exp_hash)):
            if not wanted(read_note(source, exp_hash, key)):
                return
        elif key.startswith(layout.provenance_folder(exp_hash)):
            read_provenance(source, exp_hash, key)
        elif key.endswith(".yaml"):
            config_from_bytes(source.map(key), name=name)
        else:
            return  # a picture without the description that it belongs to
        data = source.map(key)
        if not self._store.put(key, [data], if_absent=True) and self._store.map(key) != data:
            raise _conflict(name)

    # ------------------------------------------------------------ checkpoints
    def checkpoint(self, name: CheckpointName) -> str:
        """Have a checkpoint here, every byte of it verified where it now lies.

        Its experiment has to be here.

        Returns: `copied`, or `known` if it was here already, thinned or not.
        Raises: AlreadyExistsError if another checkpoint, or another config, has its name; LockedError if
            it is being written here, or deleted there; CheckpointNotFoundError if it is gone there;
            IntegrityError, FormatError if it is damaged; StorageError.
        Durability: on disk on return.
        """
        with reading(self._source, name) as manifest:
            data = bytes(self._source.map(name.manifest_key))
            if self.is_known(manifest, data):
                return "known"
            self._require_config(manifest)
            with self._around(name):
                return self._commit(manifest, data)

    def is_known(self, manifest: Manifest, data: bytes) -> bool:
        """Tell whether a checkpoint is here.

        Raises: AlreadyExistsError if another one has its name; MissingObjectError, TruncatedError if
            a file of it is missing or cut here.
        """
        name = manifest.name
        try:
            own = self._store.map(name.manifest_key)
        except ObjectNotFoundError:
            return manifest.digest in self._thinned_here(name.exp_hash)
        if own != data:
            raise AlreadyExistsError(
                f"another checkpoint is called {name.stem} here, and nothing is replaced",
                hint="move that one to the trash first, or copy into another root",
            )
        for file in manifest.files:
            stat = self._store.stat(name.file_key(file.name))
            kind = MissingObjectError if stat is None else TruncatedError
            if stat is None or stat.size_bytes != file.size_bytes:
                raise kind(
                    f"{name.stem} is here already, and damaged: {file.name}",
                    hint="set it aside with root.quarantine(...), then copy it again",
                )
        return True

    def _thinned_here(self, exp_hash: str) -> Mapping[str, CheckpointName]:
        """Return digest -> revision that was made from the checkpoint with that digest by thinning."""
        if exp_hash not in self._thinned:
            found: dict[str, CheckpointName] = {}
            for name in manifest_names(self._store, exp_hash):
                if name.revision > 1 and (origin := self._origin_of(name)) is not None:
                    found[origin] = name
            self._thinned[exp_hash] = found
        return self._thinned[exp_hash]

    def _origin_of(self, name: CheckpointName) -> str | None:
        try:
            return read_manifest(self._store, name).derived_from
        except CheckpointError:
            return None  # of a damaged one nobody knows what it was made from

    def _require_config(self, manifest: Manifest) -> None:
        """Raise unless the config that a checkpoint names is here with the same values.

        The config of the identity may differ in what does not count, as between sessions.
        """
        file, exp_hash = manifest.config_file, manifest.name.exp_hash
        if file is None:
            return
        key = layout.config_folder(exp_hash) + file
        here = config_from_bytes(self._store.map(key), name=file)
        if key == layout.config_key(exp_hash):
            return
        if not same_config(here, config_from_bytes(self._source.map(key), name=file)):
            raise AlreadyExistsError(
                f"{manifest.name.stem} was saved with {file}, and here that is another config",
                hint="copy into another root",
            )

    def _commit(self, manifest: Manifest, data: bytes) -> str:
        store, name = self._store, manifest.name
        hold = reserve(store, name)
        if hold is None:
            if store.stat(name.manifest_key) is not None and self.is_known(manifest, data):
                return "known"
            raise LockedError(f"{name.stem} is being written by another process", hint="try again")
        with hold:
            folder = layout.model_folder(name.exp_hash)
            try:
                for file in manifest.files:
                    self._place(manifest, file)
                store.sync(folder)
                put_new(store, name.manifest_key, [data])
            except BaseException:  # Ctrl-C, too, leaves no files behind
                clean_up(store, name)
                raise
            store.sync(folder)
        return "copied"

    # ------------------------------------------------------------ files
    def _place(self, manifest: Manifest, file: FileRecord) -> None:
        """Have a file of a checkpoint here, verified under its own name; links are tried first."""
        key, alone = manifest.name.file_key(file.name), replace(manifest, files=(file,))
        for place in self._links_for(manifest, file):
            if not place():
                continue
            try:
                verify_files(self._store, alone, self._tally)
            except IntegrityError:  # damaged under that other name: the next one, or the bytes
                self._store.delete(key)
                continue
            self.linked_bytes += file.size_bytes
            self._remember(manifest, file)
            return
        data = map_file(self._source, manifest.name, file.name)
        if len(data) != file.size_bytes:
            raise TruncatedError(f"{file.name} has {len(data)} bytes, not {file.size_bytes}")
        put_new(self._store, key, [data])
        verify_files(self._store, alone, self._tally)
        self.written_bytes += file.size_bytes
        self._remember(manifest, file)

    def _links_for(self, manifest: Manifest, file: FileRecord) -> Iterator[Callable[[], bool]]:
        key = manifest.name.file_key(file.name)
        for known in self._known_places(manifest, file):
            yield lambda known=known: self._link_here(known, key)  # type: ignore[misc]
        yield lambda: self._link_across(key)

    def _known_places(self, manifest: Manifest, file: FileRecord) -> Iterator[str]:
        """Yield keys here that are said to hold the bytes of a file."""
        stat = self._source.stat(manifest.name.file_key(file.name))
        if stat is not None and (stat.device, stat.inode) in self._placed:
            yield self._placed[stat.device, stat.inode]
        tensors = [
            t for t in manifest.tensors_in(file).values() if t.size_bytes >= _MIN_PLACE_BYTES
        ]
        if not tensors:
            return
        digest = max(tensors, key=lambda t: t.size_bytes).digest
        for place in self._catalog.locate({digest}).get(digest, ()):
            if (place.file.digest, place.file.size_bytes) == (file.digest, file.size_bytes):
                yield place.key

    def _link_here(self, known: str, key: str) -> bool:
        try:
            return self._store.link(known, key)
        except (ObjectNotFoundError, ForeignFileError):
            return False  # deleted meanwhile: the catalog only says where to look

    def _link_across(self, key: str) -> bool:
        """Give a file of the source a further name here; False where that cannot be done."""
        link_from: Any = getattr(self._store, "link_from", None)
        stat = self._source.stat(key)
        if not self._links or link_from is None or stat is None:
            return False
        if stat.size_bytes < _MIN_LINK_BYTES or not hasattr(self._source, "link_from"):
            return False
        try:
            return bool(link_from(self._source, key, key))
        except AlreadyExistsError:
            return (
                True  # of somebody who opens the same experiment; it is read before it is relied on
            )

    def _remember(self, manifest: Manifest, file: FileRecord) -> None:
        key = manifest.name.file_key(file.name)
        stat = self._source.stat(key)
        if stat is not None:
            self._placed[stat.device, stat.inode] = key


def component_keys(store: Store, record: ExperimentRecord) -> list[str]:
    """Return the keys of the files that an identity is made of, as far as they are there.

    In the order in which they are written. Sidecars are left out: they are made from the files.
    """
    exp_hash, components = record.exp_hash, record.components
    promised = [
        (layout.config_key(exp_hash), components.config),
        (layout.architecture_key(exp_hash), components.model),
        (layout.architecture_key(exp_hash, "txt"), components.model),
        (layout.samples_base_key(exp_hash), components.data),
        (layout.data_key(exp_hash), components.data),
    ]
    found = [key for key, digest in promised if digest is not None]
    base = layout.samples_base_key(exp_hash)
    return [key for key in found if key != base or store.stat(base) is not None]


def _conflict(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"another file is called {name} here, and nothing is replaced")
