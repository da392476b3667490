"""The doctor: looks over a root, says what is wrong and how to mend it, and mends what is safe."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from weightslab.engine.care.diagnosis import Diagnosis, Problem, in_order
from weightslab.engine.care.experiment_symptoms import ExperimentSymptoms
from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.care.left_files import file_system_of, give_up, is_local
from weightslab.engine.care.root_symptoms import root_symptoms
from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.index_file import remove_index
from weightslab.engine.repository.opening import tidy
from weightslab.engine.repository.trash import empty_trash
from weightslab.engine.storage.journal import open_for_appending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weightslab.engine.care.keeper import Keeper

__all__ = ["doctor"]


def doctor(root: Keeper, *, mend: bool = False) -> Diagnosis:
    """Return what is wrong with the root and how to mend it.

    Looks at names, sizes, records and manifests, not at the bytes of tensors: that is `verify`. What is
    being written right now is no problem.

    Args:
        mend: do what is safe: remove holds, temporary files and files of saves whose writers are
            dead, remains of moves to the trash, a catalog that cannot be used; close off torn logs.
            Nothing that was ever committed is touched.
    Returns: a `Diagnosis`; iterates over its problems, errors first.
    Raises: ReadOnlyStoreError if it is to mend a root that was opened for reading.
    """
    if mend:
        refuse_read_only(root, "mend the root")
    found = _look(root)
    wanted = [problem for problem in found.problems if problem.is_mendable]
    if not mend or not wanted:
        return found
    failed = _mend(root, wanted)
    root.catalog.refresh()
    after = _look(root)
    left = {problem.subject for problem in after.problems}
    return Diagnosis(
        problems=after.problems,
        mended=tuple(problem for problem in wanted if problem.subject not in left),
        failed=tuple(failed),
        num_experiments=after.num_experiments,
        num_checkpoints=after.num_checkpoints,
    )


def _look(root: Keeper) -> Diagnosis:
    file_system = file_system_of(root.path)
    problems = list(root_symptoms(root, file_system))
    entries = {} if _is_link(root) else {e.exp_hash: e for e in root.catalog.experiments()}
    num_checkpoints = 0
    for exp_hash in _folders(root):
        look = ExperimentSymptoms(root=root, exp_hash=exp_hash, is_local=is_local(file_system))
        try:
            found = root.catalog.checkpoints(exp_hash) if exp_hash in entries else []
            num_checkpoints += len(found)
            problems += look.all(entries.get(exp_hash), found)
        except CheckpointError as error:
            where = layout.experiment_folder(exp_hash)
            problems.append(_unreadable(where, str(error)))
    return Diagnosis(
        problems=in_order(problems), num_experiments=len(entries), num_checkpoints=num_checkpoints
    )


def _unreadable(where: str, what: str) -> Problem:
    return Problem(
        severity="error", kind="unreadable", where=where, what=what,
        mend="mend what keeps it from being read; the other experiments are not touched by it",
    )  # fmt: skip


def _is_link(root: Keeper) -> bool:
    return (root.path / "checkpoints").is_symlink()


def _folders(root: Keeper) -> Iterator[str]:
    """Yield the names of the folders of experiments, with or without a record."""
    if not _is_link(root):
        for name in root.store.list(layout.CHECKPOINTS):
            if name.endswith("/") and layout.is_exp_hash(name[:-1]):
                yield name[:-1]


# ------------------------------------------------------------ mending
def _mend(root: Keeper, problems: Sequence[Problem]) -> list[str]:
    """Mend what is safe; returns what failed, in words."""
    failed = []
    of_kind: dict[str, Callable[[Problem], object]] = {
        "hold": lambda p: _give_up(root, p.where),
        "temporary": lambda p: _give_up(root, p.where),
        "torn_log": lambda p: _close_off(root.path / p.where),
        "catalog": lambda p: remove_index(Path(p.where)),
    }
    for problem in problems:
        mending = of_kind.get(problem.kind)
        if mending is None:
            continue
        try:
            mending(problem)
        except (OSError, CheckpointError) as error:
            failed.append(f"{problem.where}: {getattr(error, 'strerror', None) or error}")
    kinds = {problem.kind for problem in problems}
    hashes = {
        p.where.split("/")[1] for p in problems if p.kind in ("hold", "temporary", "leftover")
    }
    steps: list[Callable[[], object]] = [partial(tidy, root.store, h) for h in sorted(hashes)]
    if "trash_remains" in kinds:  # nothing is older than this: only what has no note goes
        steps.append(
            lambda: empty_trash(root.store, before=datetime.min.replace(tzinfo=timezone.utc))
        )
    for step in steps:
        try:
            step()
        except CheckpointError as error:  # noqa: PERF203 - one per experiment
            failed.append(str(error))
    return failed


def _give_up(root: Keeper, key: str) -> None:
    root.store.stat(key.rpartition("/")[0] + "/")  # refuses links in the place of folders
    give_up(root.path / key)


def _close_off(path: Path) -> None:
    descriptor, is_torn = open_for_appending(path)
    try:
        if is_torn:
            os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)
