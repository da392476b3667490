"""Reproducing: what an experiment or a checkpoint was made from, as commands, and what is missing for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from weightslab.engine.care.keeper import Keeper
from weightslab.engine.care.recipe import Recipe
from weightslab.engine.errors import CheckpointError, CheckpointNotFoundError
from weightslab.engine.reference import parse_reference
from weightslab.engine.repository import layout, opening
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.component_file import read_config, read_samples
from weightslab.engine.repository.provenance import (
    MAX_RECORDS,
    provenance_keys,
    read_provenance,
)

if TYPE_CHECKING:
    from datetime import datetime

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.repository.experiment import ExperimentRecord
    from weightslab.engine.repository.provenance import Provenance
    from weightslab.engine.storage.store import Store

__all__ = ["provenance", "reproduce"]

_SHOWN: Final = 5


class _Root(Keeper, Protocol):
    def at(self, reference: str) -> CheckpointEntry:
        """Return the checkpoint that a reference names."""
        ...


def provenance(root: Keeper, exp_hash: str) -> tuple[Provenance, ...]:
    """Return the sessions that opened an experiment, oldest first; damaged files are left out.

    `verify` names the damaged ones. Empty for experiments that were made with
    `WEIGHTSLAB_PROVENANCE=off`, or by an older version.

    Args:
        exp_hash: hash or prefix.
    Raises: ExperimentNotFoundError.
    """
    return _sessions(root.store, root.get_hash(exp_hash))[0]


def reproduce(root: _Root, reference: str) -> Recipe:
    """Return how to make an experiment, or a checkpoint, again, and what is missing for it.

    Nothing is run. `print(recipe)` shows the commands, `recipe.write(folder)` writes the files they need,
    `recipe.missing` says what nobody recorded, what was cut or taken out, and what is gone.

    Args:
        reference: `3f2a` (the experiment), `3f2a@100`, `3f2a@best:loss`, `latest`: as for `at`.
    Raises: ValueError, TypeError for other texts; ExperimentNotFoundError, CheckpointNotFoundError.
    """
    told = parse_reference(reference)
    wanted = None
    if not told.is_experiment:
        wanted = root.at(reference)
        exp_hash = wanted.name.exp_hash
    else:
        assert told.exp_hash is not None, "an experiment has a hash"
        exp_hash = root.get_hash(told.exp_hash)
    missing: list[str] = []
    if wanted is not None and wanted.damaged is not None:
        missing.append(f"the checkpoint is damaged: {wanted.damaged}")
    entry = root.get_experiment(exp_hash)
    if entry.record is None:
        missing.append(f"the record of the experiment is damaged: {entry.damaged}")
    sessions, damaged = _sessions(root.store, exp_hash)
    session = _session_of(sessions, wanted.created_at if wanted else None)
    missing += _missing_of_sessions(sessions, damaged, session)
    config, config_file = _config(root, entry.record, wanted, missing)
    samples = _samples(root.store, entry.record, missing)
    if entry.record is not None and entry.record.weak:
        weak = ", ".join(entry.record.weak[:_SHOWN])
        missing.append(f"the source of some code could not be read, only its byte-code: {weak}")
    return Recipe(
        root=str(root.path),
        exp_hash=exp_hash,
        step=None if wanted is None else wanted.name.step,
        revision=None if wanted is None else wanted.name.revision,
        session=session,
        start=_start(root, exp_hash, wanted, missing),
        config=config,
        config_file=config_file,
        samples=samples,
        missing=tuple(missing),
    )


def _sessions(store: Store, exp_hash: str) -> tuple[tuple[Provenance, ...], list[str]]:
    found, damaged = [], []
    try:
        keys = provenance_keys(store, exp_hash)
    except CheckpointError as error:
        return (), [str(error)]
    for key in keys:
        try:
            found.append(read_provenance(store, exp_hash, key))
        except CheckpointError as error:  # noqa: PERF203 - one per file
            damaged.append(str(error))
    return tuple(sorted(found, key=lambda s: (s.recorded_at, s.key))), damaged


def _session_of(sessions: tuple[Provenance, ...], moment: datetime | None) -> Provenance | None:
    """Return the last session that began before a checkpoint; of an experiment the first of all."""
    if not sessions:
        return None
    if moment is None:
        return sessions[0]
    before = [s for s in sessions if s.recorded_at <= moment]
    return before[-1] if before else sessions[0]


def _missing_of_sessions(
    sessions: tuple[Provenance, ...], damaged: list[str], session: Provenance | None
) -> list[str]:
    found = [f"a record of provenance is damaged: {text}" for text in damaged]
    if session is None:
        return [
            *found,
            "no provenance was recorded: code, command line, versions and seeds are unknown",
        ]
    if len(sessions) > 1:
        found.append(
            f"{len(sessions)} sessions opened the experiment; this is the one of"
            f" {session.recorded_at:%Y-%m-%d %H:%M:%S} UTC: root.provenance(...) has them all"
        )
    if len(sessions) + len(damaged) >= MAX_RECORDS:
        found.append(f"sessions after the first {MAX_RECORDS} were not recorded")
    found += [f"when it was recorded: {problem}" for problem in session.problems]
    return found + _missing_of_code(session) + _missing_of_seeds(session)


def _missing_of_code(session: Provenance) -> list[str]:
    code, found = session.code, []
    if any("<redacted>" in word for word in session.command):
        found.append("parts of the command line were taken out: put your own in their place")
    if code is None:
        return [*found, "no commit was recorded: the code is unknown"]
    if code.commit is None:
        found.append("no commit was recorded: the code is unknown")
    if code.remote is None:
        found.append("the repository has no remote: take the copy that has the commit")
    elif "<" in code.remote:
        found.append("the login was taken out of the address of the repository: use your own")
    if code.is_cut:
        found.append("the diff was too long and is cut: it ends after a whole file")
    if code.num_redacted:
        found.append(
            f"{code.num_redacted} secrets or names were taken out of the diff: it may not apply there"
        )
    if code.binary:
        found.append(
            f"changed binary files are not in the diff: {_some(code.binary, len(code.binary))}"
        )
    if code.num_untracked:
        names = _some(code.untracked, code.num_untracked)
        found.append(
            f"files that git does not know are named, their content is not stored: {names}"
        )
    return found


def _missing_of_seeds(session: Provenance) -> list[str]:
    seeds, found = session.seeds, []
    if "torch_initial_seed" not in seeds:
        found.append("the seed of torch was not recorded")
    if seeds.get("hash_randomization") and "pythonhashseed" not in seeds:
        found.append("PYTHONHASHSEED was not set: orders of sets of texts differ from run to run")
    if seeds.get("torch_deterministic") is False:
        found.append("torch was not told to be deterministic: GPUs may differ in the last bits")
    return found


def _some(names: tuple[str, ...], total: int) -> str:
    more = total - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _config(
    root: Keeper,
    record: ExperimentRecord | None,
    wanted: CheckpointEntry | None,
    missing: list[str],
) -> tuple[bytes | None, str | None]:
    """Return the config file as it is stored, checked, and its name."""
    if record is None:
        return None, None
    try:
        name = opening.newest_config(root.store, record.exp_hash)
        if wanted is not None and wanted.damaged is None:
            name = read_manifest(root.store, wanted.name).config_file or name
        if name is None:
            had = record.components.config is not None
            missing.append("the config file is gone" if had else "the experiment has no config")
            return None, None
        read_config(root.store, record, file=name)
        return bytes(root.store.map(layout.config_folder(record.exp_hash) + name)), name
    except CheckpointError as error:
        missing.append(f"the config cannot be read: {error}")
        return None, None


def _samples(store: Store, record: ExperimentRecord | None, missing: list[str]) -> SampleSet | None:
    if record is None:
        return None
    if record.components.data is None:
        missing.append("the experiment has no sample list: which samples were active is unknown")
        return None
    try:
        return read_samples(store, record)
    except CheckpointError as error:
        missing.append(f"the sample list cannot be read: {error}")
        return None


def _start(
    root: _Root, exp_hash: str, wanted: CheckpointEntry | None, missing: list[str]
) -> str | None:
    """Return the checkpoint of another experiment from which the training went on here, as a reference."""
    entries = {entry.digest: entry for entry in root.catalog.checkpoints(exp_hash) if entry.parent}
    if not entries:
        if wanted is None:
            missing.append("the experiment has no checkpoint, so what it began from is unknown")
        return None
    at = wanted if wanted is not None else next(iter(entries.values()))
    for _ in range(len(entries) + 1):
        parent = at.parent
        if parent is None or parent.kind == "fresh":
            return None
        if parent.kind != "checkpoint" or parent.exp_hash is None or parent.step is None:
            missing.append(f"where the weights came from is unknown: {parent.kind}")
            return None
        before = entries.get(parent.manifest_digest or "")
        if before is None:
            break
        at = before
    assert parent is not None, "the loop has set it"
    assert parent.exp_hash is not None
    assert parent.step is not None
    return _reference(root, parent.exp_hash, parent.step, parent.revision, missing)


def _reference(
    root: _Root, exp_hash: str, step: int, revision: int | None, missing: list[str]
) -> str:
    """Return a reference to a parent, and say if it is gone."""
    text = f"{exp_hash}@{step}{'' if revision in (None, 1) else f'.r{revision}'}"
    try:
        entry = root.get_checkpoint(exp_hash, step, revision=revision)
        if entry.damaged is not None:
            raise CheckpointNotFoundError(entry.damaged)
    except CheckpointError as error:
        missing.append(f"the checkpoint it started from, {text}, cannot be had: {error}")
    return text
