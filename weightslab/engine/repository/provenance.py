"""Provenance: where an experiment came from, in sealed files beside it that never change.

    checkpoints/{exp_hash}/provenance/20260101T120000000000Z_0123456789abcdef.json

One file for each distinct session that opened the experiment: another commit, diff, set of versions or
command line is another session. The digits in the name stand for what tells sessions apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import InvalidManifestError
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.manifest import check_schema
from weightslab.engine.values import parse_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightslab.engine.storage.store import Store

__all__ = [
    "MAX_RECORDS",
    "CodeState",
    "Provenance",
    "add_provenance",
    "provenance_keys",
    "read_provenance",
]

SCHEMA: Final = "weightslab.provenance"
SCHEMA_VERSION: Final = 1
MAX_RECORDS: Final = (
    32  # of one experiment: a training that is started anew a thousand times stops here
)
_MAX_BYTES: Final = 16 << 20  # a diff of 256 KiB takes at most 12 bytes a character
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeState:
    """The state of the repository that the training code lies in.

    Attributes:
        commit: full hash of HEAD; None before the first commit.
        branch: its name; None if HEAD is detached.
        remote: URL to clone from, without credentials; None if there is none.
        folder: where the program was started, relative to the top of the repository.
        diff: what differs from the commit in tracked text files, redacted; `git apply` takes it.
        is_cut: the diff was longer than what is kept: it ends after the last whole file.
        binary: changed binary files, which are not in the diff.
        untracked: names of files that git does not know, without their content; at most 200.
        num_untracked: how many there are.
        num_redacted: what was taken out of the diff; where it is not 0 it may not apply.
    """

    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    folder: str = "."
    diff: str = ""
    is_cut: bool = False
    binary: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    num_untracked: int = 0
    num_redacted: int = 0

    def __post_init__(self) -> None:
        if self.commit is not None and _COMMIT.match(self.commit) is None:
            raise ValueError(f"{self.commit!r:.80} is no full hash of a commit")

    @property
    def is_dirty(self) -> bool:
        """True if tracked files differ from the commit."""
        return bool(self.diff or self.binary or self.is_cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """One session that opened an experiment. All texts are redacted.

    Attributes:
        exp_hash: the experiment.
        recorded_at: aware UTC time.
        command: the command line, interpreter first.
        folder: where it was started; home folders are `~`.
        code: the repository; None if the code is in none, or it could not be read.
        versions: Python, CUDA, cuDNN, driver, ...
        packages: name -> version of all that is installed.
        host: number of CPUs, memory, names of GPUs, system; nothing that names a person or a machine.
        seeds: initial seed of torch, PYTHONHASHSEED, switches of determinism.
        num_redacted: what was taken out, of everything.
        problems: what could not be found out, and why.
        key: of its file; empty until written.
    """

    exp_hash: str
    recorded_at: datetime
    command: tuple[str, ...] = ()
    folder: str = ""
    code: CodeState | None = None
    versions: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, Any] = field(default_factory=dict)
    num_redacted: int = 0
    problems: tuple[str, ...] = ()
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, without its key."""
        found: dict[str, Any] = {n: getattr(self, n) for n in self.__slots__ if n != "key"}
        return found | {
            "recorded_at": self.recorded_at.isoformat(),
            "command": list(self.command),
            "problems": list(self.problems),
            "code": None if self.code is None else _plain(self.code),
        }

    @property
    def token(self) -> str:
        """16 digits that are equal for two sessions of the same code, versions and command line."""
        code = self.code
        told = [
            list(self.command),
            self.folder,
            None if code is None else [code.commit, code.diff, code.is_cut, list(code.binary)],
            self.versions,
            self.packages,
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """Render the sealed file."""
        return seal({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **self.to_dict()})


def _plain(code: CodeState) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(code, name) for name in code.__slots__}
    return found | {"binary": list(code.binary), "untracked": list(code.untracked)}


def add_provenance(store: Store, record: Provenance) -> str | None:
    """Write a session, unless the experiment has it already, or has 32 others.

    Returns: the key of its file; None if the experiment keeps no more.
    Raises: StorageError.
    Durability: on disk on return. O(sessions of the experiment).
    """
    folder, ending = layout.provenance_folder(record.exp_hash), f"_{record.token}.json"
    names = [name for name in store.list(folder) if name.endswith(".json")]
    for name in names:
        if name.endswith(ending):
            return folder + name
    if len(names) >= MAX_RECORDS:
        return None
    moment = record.recorded_at.astimezone(timezone.utc)
    key = f"{folder}{moment:%Y%m%dT%H%M%S%f}Z{ending}"
    store.put(key, [record.to_bytes()], if_absent=True)
    store.sync(folder)
    return key


def provenance_keys(store: Store, exp_hash: str) -> Sequence[str]:
    """Return the keys of the sessions of an experiment, damaged or not, oldest first.

    Raises: StorageError if the folder cannot be read; ForeignFileError if it is none.
    """
    folder = layout.provenance_folder(exp_hash)
    names = store.list(folder)
    if not names and store.stat(folder.removesuffix("/")) is not None:
        store.map(folder.removesuffix("/"))  # a file or a link in place of the folder
        raise InvalidManifestError(f"{folder} is a file, so no provenance can be read")
    names = [name.removesuffix("/") for name in names]  # a folder in place of a file is damage
    return [folder + name for name in names if name.endswith(".json")]


def read_provenance(store: Store, exp_hash: str, key: str) -> Provenance:
    """Return a session, checked.

    Raises: ObjectNotFoundError, IntegrityError, FormatError, StorageError.
    """
    name = key.rpartition("/")[2]
    data = store.map(key)
    if len(data) > _MAX_BYTES:
        raise InvalidManifestError(f"{name} has {len(data)} bytes, which is no provenance")
    document, _ = unseal(data, what=name)
    check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=name)
    try:
        found = _parse(document)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidManifestError(f"{name} is not in order: {error}") from error
    if found.exp_hash != exp_hash:
        raise InvalidManifestError(
            f"{name} is about {found.exp_hash!r:.40}, not {exp_hash}", hint="it was exchanged"
        )
    return replace(found, key=key)


def _parse(document: dict[str, Any]) -> Provenance:
    return Provenance(
        exp_hash=_typed(document["exp_hash"], str),
        recorded_at=parse_utc(document["recorded_at"]),
        command=_texts(document["command"]),
        folder=_typed(document["folder"], str),
        code=_code(document["code"]),
        versions=_words(document["versions"]),
        packages=_words(document["packages"]),
        host=_typed(document["host"], dict),
        seeds=_typed(document["seeds"], dict),
        num_redacted=_typed(document["num_redacted"], int),
        problems=_texts(document["problems"]),
    )


def _code(document: Any) -> CodeState | None:
    if document is None:
        return None
    told = _typed(document, dict)
    for name in ("commit", "branch", "remote"):
        if told[name] is not None:
            _typed(told[name], str)
    return CodeState(
        commit=told["commit"],
        branch=told["branch"],
        remote=told["remote"],
        folder=_typed(told["folder"], str),
        diff=_typed(told["diff"], str),
        is_cut=_typed(told["is_cut"], bool),
        binary=_texts(told["binary"]),
        untracked=_texts(told["untracked"]),
        num_untracked=_typed(told["num_untracked"], int),
        num_redacted=_typed(told["num_redacted"], int),
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_typed(text, str) for text in _typed(value, list))


def _words(value: Any) -> dict[str, str]:
    return {key: _typed(text, str) for key, text in _typed(value, dict).items()}


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.60} is not a {kind.__name__}")
    return value
