"""Noting: what people say about experiments and checkpoints; none of it changes a hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.repository.notes import ExperimentNotes, Note, add_note, read_notes

if TYPE_CHECKING:
    from weightslab.engine.care.keeper import Keeper

__all__ = ["RootNotes", "pin", "unpin"]


class RootNotes:
    """The notes of a root, as `root.notes`. Hashes may be unique prefixes."""

    def __init__(self, root: Keeper) -> None:
        self._root = root

    def read(self, exp_hash: str) -> ExperimentNotes:
        """Return name, notes, tags and pins of an experiment: what was said and not taken back.

        Damaged files are told in `.damaged` and hide no others.

        Raises: ExperimentNotFoundError.
        """
        return read_notes(self._root.store, self._root.get_hash(exp_hash))

    def name(self, exp_hash: str, text: str) -> Note:
        """Name an experiment, in place of the name it had.

        Raises: ExperimentNotFoundError, ValueError, ReadOnlyStoreError, StorageError.
        """
        return _write(self._root, exp_hash, "name", text)

    def add(
        self, exp_hash: str, text: str, *, step: int | None = None, revision: int | None = None
    ) -> Note:
        """Add a note to an experiment, or to a checkpoint of it.

        Args:
            exp_hash: hash or prefix.
            text: any text up to 100,000 characters.
            step: the checkpoint; by default the experiment.
            revision: the revision of the step; by default all of them.
        Raises: ExperimentNotFoundError, CheckpointNotFoundError, ValueError, ReadOnlyStoreError,
            StorageError.
        """
        return _write(self._root, exp_hash, "note", text, step=step, revision=revision)

    def tag(
        self, exp_hash: str, text: str, *, step: int | None = None, revision: int | None = None
    ) -> Note:
        """Give an experiment, or a checkpoint of it, a tag; the arguments are those of `add`."""
        return _write(self._root, exp_hash, "tag", text, step=step, revision=revision)

    def remove(self, note: Note) -> Note:
        """Take back what `read` returned: a note, a tag, a pin, or the note that names.

        Raises: ExperimentNotFoundError, ReadOnlyStoreError, StorageError.
        """
        refuse_read_only(self._root, "take back a note")
        found = add_note(
            self._root.store,
            self._root.get_hash(note.exp_hash),
            kind=note.kind,
            text=note.text if note.kind in ("note", "tag") else "",
            step=note.step,
            revision=note.revision,
            now=self._root.clock(),
            remove=True,
        )
        _tell(self._root, found)
        return found


def pin(
    root: Keeper,
    exp_hash: str,
    *,
    step: int | None = None,
    revision: int | None = None,
    reason: str = "",
) -> Note:
    """Keep an experiment or a checkpoint from being deleted, by retention and by `delete`.

    Args:
        exp_hash: hash or prefix.
        step: the checkpoint; by default all checkpoints of the experiment, later ones included.
        revision: the revision of the step; by default all of them.
        reason: why, for people.
    Raises: ExperimentNotFoundError, CheckpointNotFoundError, ReadOnlyStoreError, StorageError.
    """
    return _write(root, exp_hash, "pin", reason, step=step, revision=revision)


def unpin(
    root: Keeper, exp_hash: str, *, step: int | None = None, revision: int | None = None
) -> Note:
    """Take back a pin; the arguments are those with which it was given.

    Raises: ExperimentNotFoundError; ObjectNotFoundError naming the pins if there is no such pin;
        ReadOnlyStoreError, StorageError.
    """
    full = root.get_hash(exp_hash)
    pins = read_notes(root.store, full).pins
    found = [pin for pin in pins if (pin.step, pin.revision) == (step, revision)]
    if not found:
        what = full if step is None else f"step {step} of {full}"
        what += "" if revision is None else f", revision {revision},"
        have = "; ".join(map(_described, pins)) or "none"
        raise ObjectNotFoundError(f"{what} has no pin of its own", hint=f"pins there: {have}")
    return RootNotes(root).remove(found[0])


def _described(note: Note) -> str:
    if note.step is None:
        return "the whole experiment"
    return f"step={note.step}" + ("" if note.revision is None else f", revision={note.revision}")


def _write(
    root: Keeper,
    exp_hash: str,
    kind: str,
    text: str,
    *,
    step: int | None = None,
    revision: int | None = None,
) -> Note:
    refuse_read_only(root, f"add a {kind}")
    full = root.get_hash(exp_hash)
    if step is None and revision is not None:
        raise ValueError(f"a {kind} with revision=... needs step as well")
    if step is not None:
        root.get_checkpoint(full, step, revision=revision)
    note = add_note(
        root.store, full, kind=kind, text=text, step=step, revision=revision, now=root.clock()
    )
    _tell(root, note)
    return note


def _tell(root: Keeper, note: Note) -> None:
    from weightslab.engine.saving.writer import record_event  # 40 ms that a reader does not pay

    record_event(
        root,
        "note_removed" if note.is_removal else "note_added",
        exp_hash=note.exp_hash,
        kind=note.kind,
        step=note.step,
        revision=note.revision,
    )
