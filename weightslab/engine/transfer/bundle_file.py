"""The bundle: one tar with files of a root under their own names, and a list that covers each of them.

    checkpoints/{exp_hash}/hp/..., data/..., model/{exp_hash}_architecture.*, notes/..., provenance/...
    checkpoints/{exp_hash}/experiment.json
    checkpoints/{exp_hash}/model/{stem}...safetensors, {stem}.json     each checkpoint, manifest last
    weightslab-bundle.json                                            the list, sealed; the last file

Files with the same bytes are in it once. `tar xf` makes a folder of it that is a root. To read it here it is
opened as a store that cannot be written to, so that everything that reads a root reads a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    ObjectNotFoundError,
)
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.layout import CheckpointName, parse_checkpoint_file
from weightslab.engine.repository.manifest import check_schema
from weightslab.engine.storage.store import KeyStat, check_key, read_only_error
from weightslab.engine.transfer.tar_form import read_members

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from weightslab.engine.storage.store import Buffer, HoldMode
    from weightslab.engine.transfer.tar_form import Member

__all__ = ["LIST_NAME", "BundleList", "BundleStore", "check_bundle", "open_bundle"]

SCHEMA: Final = "weightslab.bundle"
SCHEMA_VERSION: Final = 1
LIST_NAME: Final = "weightslab-bundle.json"
_FOLDERS: Final = ("model", "hp", "data", "notes", "provenance")
_NAMED: Final = 5  # damaged files that a message lists
_NOWHERE: Final = -1  # device of files in a bundle: that of no file system


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleList:
    """What a bundle says it holds.

    Attributes:
        checkpoints: experiment -> its checkpoints, in the order in which they are to be taken.
        whole: experiments that were bundled as a whole.
        lineage: `full`, `records` or `none`.
        gaps: what belongs to the lineage and was not there.
        members: key -> (size in bytes, digest).
    """

    checkpoints: dict[str, list[CheckpointName]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    lineage: str = "full"
    gaps: tuple[str, ...] = ()
    members: dict[str, tuple[int, str]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Render the sealed list."""
        return seal(
            {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "experiments": [
                    {
                        "exp_hash": exp_hash,
                        "is_whole": exp_hash in self.whole,
                        "checkpoints": [name.stem for name in names],
                    }
                    for exp_hash, names in self.checkpoints.items()
                ],
                "lineage": self.lineage,
                "gaps": list(self.gaps),
                "members": {
                    key: {"size_bytes": size, "digest": digest}
                    for key, (size, digest) in self.members.items()
                },
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> BundleList:
        """Check and parse a list.

        Raises: TruncatedError, DigestMismatchError, InvalidManifestError, UnsupportedVersionError.
        """
        document, _ = unseal(data, what=LIST_NAME)
        check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=LIST_NAME)
        try:
            return cls._parse(document)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InvalidManifestError(f"{LIST_NAME} is not in order: {error}") from error

    @classmethod
    def _parse(cls, document: Mapping[str, Any]) -> BundleList:
        checkpoints = {
            _hash(told["exp_hash"]): [_name(told["exp_hash"], stem) for stem in told["checkpoints"]]
            for told in document["experiments"]
        }
        return cls(
            checkpoints=checkpoints,
            whole={t["exp_hash"] for t in document["experiments"] if t["is_whole"] is True},
            lineage=str(document["lineage"]),
            gaps=tuple(str(gap) for gap in document["gaps"]),
            members={
                str(key): (int(told["size_bytes"]), str(told["digest"]))
                for key, told in document["members"].items()
            },
        )


def _hash(text: Any) -> str:
    if not isinstance(text, str) or not layout.is_exp_hash(text):
        raise ValueError(f"{text!r:.60} is no hash of an experiment")
    return text


def _name(exp_hash: str, stem: Any) -> CheckpointName:
    found = parse_checkpoint_file(f"{stem}.json")
    if found is None or found[1] != "json" or found[0].exp_hash != exp_hash:
        raise ValueError(f"{stem!r:.60} is no checkpoint of {exp_hash}")
    return found[0]


class _NoHold:
    """A lock on what cannot change."""

    def __init__(self, key: str) -> None:
        self.key = key

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing."""


class BundleStore:
    """The files of a bundle as a store that refuses every write. Thread-safe.

    Args:
        data: the archive.
        members: its files.
        name: of the archive, for people.
    """

    read_only = True

    def __init__(self, data: memoryview, members: Sequence[Member], name: str) -> None:
        self._data, self._name = data, name
        self._members = {member.name: member for member in members}
        self._folders: dict[str, set[str]] = {"": set()}
        for key in self._members:
            self._add(key)

    def _add(self, key: str) -> None:
        while key:
            folder, _, name = key.removesuffix("/").rpartition("/")
            above = f"{folder}/" if folder else ""
            self._folders.setdefault(above, set()).add(f"{name}/" if key.endswith("/") else name)
            key = above

    def describe(self) -> str:
        """Return the name of the archive."""
        return self._name

    def map(self, key: str) -> memoryview:
        # docstring inherited
        member = self._members.get(key)
        if member is None:
            raise ObjectNotFoundError(f"{key} is not in {self._name}", context={"key": key})
        return self._data[member.offset : member.offset + member.size_bytes]

    def list(self, prefix: str, *, starting: str = "") -> list[str]:
        # docstring inherited
        folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        return sorted(n for n in self._folders.get(folder, ()) if n.startswith(starting))

    def stat(self, key: str) -> KeyStat | None:
        # docstring inherited
        member = self._members.get(key)
        if member is None and (not key.endswith("/") or key not in self._folders):
            return None
        at = 0 if member is None else member.offset
        size = 0 if member is None else member.size_bytes
        return KeyStat(size_bytes=size, mtime_ns=0, ctime_ns=0, inode=at, device=_NOWHERE)

    def hold(self, key: str, *, mode: HoldMode = "create") -> _NoHold:
        # docstring inherited
        if mode == "create":
            raise read_only_error(self._name, "held")
        self.map(key)
        return _NoHold(key)

    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:  # noqa: ARG002
        # docstring inherited
        raise read_only_error(self._name, "written")

    def link(self, src: str, dst: str) -> bool:  # noqa: ARG002
        # docstring inherited
        raise read_only_error(self._name, "linked")

    def delete(self, key: str) -> bool:  # noqa: ARG002
        # docstring inherited
        raise read_only_error(self._name, "deleted")

    def sync(self, prefix: str) -> None:  # noqa: ARG002
        # docstring inherited
        raise read_only_error(self._name, "synced")


def open_bundle(data: memoryview, name: str) -> tuple[BundleList, BundleStore]:
    """Read the names and the list of a bundle; its files are not read yet.

    Raises: TruncatedError, FormatError, IntegrityError: nothing of it can be trusted then.
    """
    members = read_members(data)
    if not members or members[-1].name != LIST_NAME:
        raise FormatError(
            f"{name} is no bundle: its last file is not {LIST_NAME}",
            hint="weightslab bundle writes them; other archives are not taken apart",
        )
    own, files = members[-1], members[:-1]
    listed = BundleList.from_bytes(data[own.offset : own.offset + own.size_bytes])
    for member in files:
        if not _is_ours(member.name):
            raise FormatError(
                f"{member.name!r:.200} is no name that a root has", hint="nothing was taken from it"
            )
    sizes = {member.name: member.size_bytes for member in files}
    told = {key: size for key, (size, _) in listed.members.items()}
    if sizes != told:
        names = sorted({k for k, _ in sizes.items() ^ told.items()})
        raise FormatError(
            f"{name} does not hold what its list says: {_few(names)}", hint="bundle it again"
        )
    promised = {layout.experiment_key(exp_hash) for exp_hash in listed.checkpoints}
    promised |= {n.manifest_key for names in listed.checkpoints.values() for n in names}
    if not promised <= sizes.keys():
        names = sorted(promised - sizes.keys())
        raise FormatError(
            f"{name} lacks what its list names: {_few(names)}", hint="bundle it again"
        )
    return listed, BundleStore(data, files, name)


def check_bundle(
    listed: BundleList,
    store: BundleStore,
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Read every byte of a bundle.

    Raises: DigestMismatchError that names what is damaged.
    """
    damaged, done = [], 0
    total = sum(size for size, _ in listed.members.values())
    seen: dict[tuple[int, int], str] = {}
    for key, (size, digest) in listed.members.items():
        stat = store.stat(key)
        place = (stat.inode, size) if stat is not None else (-1, 0)
        found = seen.get(place) or digest_bytes(store.map(key))
        seen[place] = found
        if found != digest:
            damaged.append(key)
        done += size
        if progress is not None:
            progress(done, total)
    if damaged:
        raise DigestMismatchError(
            f"{store.describe()} is damaged, nothing was taken from it: {_few(damaged)}",
            hint="copy it again, or bundle it again",
            context={"key": damaged[0]},
        )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"{name!r:.200}"[1:-1] for name in names[:_NAMED]) + more


def _is_ours(name: str) -> bool:
    """Tell whether a root may have a file of that name; it cannot lead out of the folder then."""
    try:
        parts = check_key(name)
    except ValueError:
        return False
    if parts[0] != "checkpoints" or len(parts) not in (3, 4) or not layout.is_exp_hash(parts[1]):
        return False
    if len(parts) == 3:  # noqa: PLR2004 - checkpoints/{exp_hash}/{file}
        return parts[2] == "experiment.json"
    return parts[2] in _FOLDERS and name.isascii()
