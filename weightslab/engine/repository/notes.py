"""Notes: what people say about an experiment and its checkpoints, in small files that never change.

    checkpoints/{exp_hash}/notes/20260101T120000000000Z_pin_0123456789abcdef.json

Kinds: the `name` of an experiment, `note`s, `tag`s, and `pin`s, which keep what they are about from
being deleted. Taking one back is a file, too. Of the files about one thing the newest counts, by time
and then by file name, so that processes that write at once lose nothing. None of it is in a hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError, InvalidManifestError, ObjectNotFoundError
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.manifest import check_schema
from weightslab.engine.values import parse_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store

__all__ = ["KINDS", "ExperimentNotes", "Note", "add_note", "note_keys", "read_note", "read_notes"]

SCHEMA: Final = "weightslab.note"
SCHEMA_VERSION: Final = 1
KINDS: Final = ("name", "note", "tag", "pin")
MAX_TEXT: Final = 100_000  # characters; a note is read with every look at the experiment
_MAX_NOTE_BYTES: Final = 2 << 20  # a character takes at most 12 bytes as JSON
_SOON: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing somebody said, or took back.

    Attributes:
        kind: `name`, `note`, `tag` or `pin`.
        exp_hash: the experiment.
        step: the checkpoint it is about; None for the experiment.
        revision: the revision of that step; None for all.
        text: any text, as it was given; of a pin the reason, which may be empty.
        created_at: aware UTC time.
        is_removal: it takes back what was said before.
        key: of its file.
    """

    kind: str
    exp_hash: str
    step: int | None = None
    revision: int | None = None
    text: str = ""
    created_at: datetime
    is_removal: bool = False
    key: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a note is one of {', '.join(KINDS)}, not {self.kind!r:.40}")
        if not isinstance(self.text, str):
            raise TypeError(f"the text of a {self.kind} is a str, not {type(self.text).__name__}")
        if len(self.text) > MAX_TEXT:
            raise ValueError(
                f"a {self.kind} has at most {MAX_TEXT} characters, not {len(self.text)}"
            )
        if not (self.text or self.kind == "pin" or self.is_removal):
            raise ValueError(f"a {self.kind} without text says nothing")
        if self.revision is not None and self.step is None:
            raise ValueError("a revision needs its step")
        if self.kind == "name" and self.step is not None:
            raise ValueError("a name is that of the experiment; give a checkpoint a tag")

    @property
    def subject(self) -> tuple[object, ...]:
        """What is equal for all files about one thing: a later one takes the place of an earlier."""
        told = self.text if self.kind in ("note", "tag") else ""
        return self.kind, self.step, self.revision, told

    def is_about(self, step: int, revision: int) -> bool:
        """Tell whether it is about a checkpoint, by name or because it is about all of them."""
        return self.step in (None, step) and self.revision in (None, revision)

    def __str__(self) -> str:
        """Return one line, in which characters that a screen would obey are escaped."""
        about = "" if self.step is None else f" step {self.step}"
        about += "" if self.revision is None else f" revision {self.revision}"
        told = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in self.text)
        gone = " (taken back)" if self.is_removal else ""
        return f"{self.kind}{about}{gone}{': ' if told else ''}{told}"

    def to_bytes(self) -> bytes:
        """Render the sealed file."""
        return seal(
            {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "kind": self.kind,
                "exp_hash": self.exp_hash,
                "step": self.step,
                "revision": self.revision,
                "text": self.text,
                "created_at": self.created_at.isoformat(),
                "is_removal": self.is_removal,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentNotes:
    """What stands about an experiment: what was said and not taken back, oldest first.

    Attributes:
        exp_hash: the experiment.
        name: its name, None without one.
        notes, tags, pins: each a tuple of `Note`.
        damaged: what is wrong with files that could not be read; what they say is unknown.
    """

    exp_hash: str
    name: str | None = None
    notes: tuple[Note, ...] = ()
    tags: tuple[Note, ...] = ()
    pins: tuple[Note, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def is_certain(self) -> bool:
        """False if a file could not be read: it may hold a pin."""
        return not self.damaged

    def is_pinned(self, name: CheckpointName) -> bool:
        """Tell whether a checkpoint must stay; a pin of the experiment pins all of them.

        While it is not certain what is pinned, everything is.
        """
        return bool(self.damaged) or any(p.is_about(name.step, name.revision) for p in self.pins)


def add_note(  # noqa: PLR0913 - a flat call reads like the sentence it writes
    store: Store,
    exp_hash: str,
    *,
    kind: str,
    text: str = "",
    step: int | None = None,
    revision: int | None = None,
    now: datetime,
    remove: bool = False,
) -> Note:
    """Write a note, or take one back.

    A note and a tag are taken back by their text, a name and a pin by what they are about. The time
    is `now`, or just after the newest file about the same thing where clocks do not agree, so that
    the last call counts.

    Args:
        store: where the root lives.
        exp_hash: the experiment, which has to exist.
        kind: `name`, `note`, `tag` or `pin`.
        text: what is said; of a pin the reason.
        step: the checkpoint; None for the experiment.
        revision: the revision of the step; None for all of them.
        now: aware UTC time.
        remove: take it back.
    Returns: the note as it was written.
    Raises: ValueError, TypeError; StorageError.
    Durability: on disk on return. O(notes of the experiment).
    """
    note = Note(
        kind=kind,
        exp_hash=exp_hash,
        step=step,
        revision=revision,
        text=text,
        created_at=now,
        is_removal=remove,
    )
    earlier, _ = _read_all(store, exp_hash)
    times = [n.created_at for n in earlier if n.subject == note.subject]
    if times and max(times) >= now:
        note = _with(note, created_at=max(times) + _SOON)
    data = note.to_bytes()
    moment = note.created_at.astimezone(timezone.utc)
    token = hashlib.sha256(data).hexdigest()[:16]  # two with one name are one note
    folder = layout.notes_folder(exp_hash)
    key = f"{folder}{moment:%Y%m%dT%H%M%S%f}Z_{kind}_{token}.json"
    store.put(key, [data], if_absent=True)
    store.sync(folder)
    return _with(note, key=key)


def _with(note: Note, **changes: Any) -> Note:
    return Note(**{name: getattr(note, name) for name in Note.__slots__} | changes)


def read_notes(store: Store, exp_hash: str) -> ExperimentNotes:
    """Return what stands about an experiment. O(files in its `notes/`).

    Raises nothing for what is damaged: it is told in `damaged`, and hides no other file.
    """
    found, damaged = _read_all(store, exp_hash)
    standing = _standing(found)
    of_kind = {kind: tuple(note for note in standing if note.kind == kind) for kind in KINDS}
    return ExperimentNotes(
        exp_hash=exp_hash,
        name=of_kind["name"][-1].text if of_kind["name"] else None,
        notes=of_kind["note"],
        tags=of_kind["tag"],
        pins=of_kind["pin"],
        damaged=tuple(damaged),
    )


def _standing(notes: Iterable[Note]) -> list[Note]:
    """Return what was not taken back, each thing once, oldest first."""
    newest: dict[tuple[object, ...], Note] = {}
    for note in sorted(notes, key=_age):
        newest[note.subject] = note
    return sorted((note for note in newest.values() if not note.is_removal), key=_age)


def _age(note: Note) -> tuple[datetime, str]:
    return note.created_at, note.key


def _read_all(store: Store, exp_hash: str) -> tuple[list[Note], list[str]]:
    notes, damaged = [], []
    try:
        keys = note_keys(store, exp_hash)
    except CheckpointError as error:  # no permission, or a link in place of the folder
        return [], [str(error)]
    for key in keys:
        try:
            notes.append(read_note(store, exp_hash, key))
        except ObjectNotFoundError:  # noqa: PERF203 - removed by hand since it was listed
            continue
        except CheckpointError as error:
            damaged.append(str(error))
    return notes, damaged


def note_keys(store: Store, exp_hash: str) -> Sequence[str]:
    """Return the keys of the notes of an experiment, damaged or not.

    Raises: StorageError if the folder cannot be read; ForeignFileError if it is none.
    """
    folder = layout.notes_folder(exp_hash)
    names = store.list(folder)
    if not names and store.stat(folder.removesuffix("/")) is not None:
        store.map(folder.removesuffix("/"))  # a file or a link in place of the folder
        raise InvalidManifestError(f"{folder} is a file, so no note can be read")
    names = [name.removesuffix("/") for name in names]  # a folder in place of a note is damage
    return [folder + name for name in names if name.endswith(".json")]


def read_note(store: Store, exp_hash: str, key: str) -> Note:
    """Return a note, checked.

    Raises: ObjectNotFoundError, IntegrityError, FormatError, StorageError.
    """
    name = key.rpartition("/")[2]
    data = store.map(key)
    if len(data) > _MAX_NOTE_BYTES:
        raise InvalidManifestError(f"{name} has {len(data)} bytes, which is no note")
    document, _ = unseal(data, what=name)
    check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=name)
    try:
        note = Note(
            kind=document["kind"],
            exp_hash=document["exp_hash"],
            step=_number(document["step"], least=0),
            revision=_number(document["revision"], least=1),
            text=document["text"],
            created_at=parse_utc(document["created_at"]),
            is_removal=_flag(document["is_removal"]),
            key=key,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidManifestError(f"{name} is not in order: {error}") from error
    if note.exp_hash != exp_hash:
        raise InvalidManifestError(
            f"{name} is about {note.exp_hash!r:.40}, not {exp_hash}", hint="it was exchanged"
        )
    return note


def _number(value: Any, *, least: int) -> int | None:
    if value is not None and (type(value) is not int or value < least):
        raise TypeError(f"{value!r:.40} is not an integer >= {least}")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value
