"""`transplant`: the door. Free of torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from weightslab.engine.repository.claim import reading
from weightslab.engine.saving.ancestry import graft
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry, ExperimentEntry
    from weightslab.engine.storage.journal import LocalJournal
    from weightslab.engine.storage.local import LocalStore
    from weightslab.engine.transplanting.report import TransplantReport

__all__ = ["transplant"]

RESIZE: Final = ("no", "slice")


class Root(Protocol):
    """What a transplant needs of a root."""

    path: Path
    read_only: bool
    clock: Callable[[], datetime]
    journal: LocalJournal
    store: LocalStore
    catalog: Catalog

    def at(self, reference: str) -> CheckpointEntry:
        """Return the checkpoint that a reference names."""
        ...

    def get_experiment(self, exp_hash: str) -> ExperimentEntry:
        """Return an experiment by hash or prefix."""
        ...


def transplant(
    root: Root,
    reference: str,
    model: Any,
    *,
    optimizer: Any = None,
    resize: str = "no",
    dry_run: bool = False,
) -> TransplantReport:
    """Copy the weights of a checkpoint into a model of another architecture, as far as they fit.

    By name and shape first, then by structure: a module that was renamed or moved gets its weights
    where only one is like it (class, names, shapes, dtypes). Every byte is verified and everything is
    checked before the first tensor changes. A dtype that differs is converted where torch calls that
    safe, and told. Tied weights stay tied. The checkpoint becomes the parent of what a manager of this
    root saves from the model next; a model that held the weights of another checkpoint, and keeps some
    of them, has an unknown parent, with both experiments named.

    Args:
        reference: the checkpoint, as for `at`.
        model: module, or dict of name -> module where the checkpoint holds several.
        optimizer: optimizer over parameters of the model, or dict of name -> optimizer. It gets the
            saved state of the parameters that got saved values; its settings stay.
        resize: `slice` gives a grown or shrunk tensor of the same name and number of dimensions the
            corner that both have; what is beyond keeps the values of the model, and zeros in the
            state of the optimizer.
        dry_run: change nothing; the report says what would be done.
    Returns: what was copied, sliced, left fresh, and not used.
    Raises: ValueError, TypeError; ExperimentNotFoundError, CheckpointNotFoundError;
        StateMismatchError (the models do not pair up, another class of optimizer, no saved state of
        it, or a model that cannot take values); IntegrityError, FormatError.
    """
    from weightslab.engine.transplanting.planting import plan

    if resize not in RESIZE:
        raise ValueError(f"resize is {' or '.join(map(repr, RESIZE))}, not {resize!r:.40}")
    entry = root.at(reference)
    experiment = root.get_experiment(entry.name.exp_hash)
    with reading(root.store, entry.name) as manifest:
        found = plan(
            root.store,
            manifest,
            experiment.record,
            model,
            optimizer,
            resize=resize == "slice",
        )
        if not dry_run:
            found.apply()
    report = found.report(dry_run=dry_run)
    if not dry_run and (report.copied or report.sliced):
        is_whole = not (report.fresh or report.sliced)
        graft(str(root.path), found.modules, entry.as_parent(), is_whole=is_whole)
        if not root.read_only:
            record_event(
                root,
                "checkpoint_transplanted",
                exp_hash=entry.name.exp_hash,
                step=entry.name.step,
                revision=entry.name.revision,
                copied=len(report.copied),
                sliced=len(report.sliced),
                fresh=len(report.fresh),
            )
    return report
