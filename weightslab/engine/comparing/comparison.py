"""Comparing: references looked up, each part read once, what cannot be read told."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Protocol

from weightslab.engine import compare as explaining
from weightslab.engine.comparing.optimizers import optimizer_facts
from weightslab.engine.comparing.results import ArchitectureDiff, Comparison, Side, rows_of
from weightslab.engine.comparing.samples import diff_data
from weightslab.engine.comparing.tables import config_table
from weightslab.engine.errors import CheckpointError, ObjectNotFoundError
from weightslab.engine.reference import parse_reference
from weightslab.engine.repository import opening
from weightslab.engine.repository.claim import reading
from weightslab.engine.repository.component_file import (
    read_architecture,
    read_config,
    read_samples,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from weightslab.engine.comparing.results import DataDiff, Row, WeightsDiff
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["compare"]

_FEWEST: Final = 2


class Root(Protocol):
    """What a comparison needs of a root."""

    @property
    def store(self) -> Store:
        """Where its files are."""
        ...

    def get_experiment(self, exp_hash: str) -> ExperimentEntry:
        """Return an experiment by hash or prefix."""
        ...

    def at(self, reference: str) -> CheckpointEntry:
        """Return the checkpoint that a reference names."""
        ...

    def latest(self, exp_hash: str | None = None) -> CheckpointEntry | None:
        """Return the newest readable checkpoint."""
        ...


def compare(
    root: Root, *references: str, weights: bool = False, tensors: str | tuple[str, ...] = "*"
) -> Comparison:
    """Return what differs between experiments or checkpoints: model, config, samples, metrics, ...

    Reads what is stored; runs none of it, and does not import torch. A part that is damaged or missing
    is named in `.problems`, and everything else is compared.

    Args:
        references: two or more, as for `at`. A bare hash is the experiment; its newest checkpoint
            stands for it where metrics, optimizers and weights are compared.
        weights: compare the tensors, too. Those that differ by their digests are read, in blocks, and
            verified; the memory this takes does not grow with the checkpoints.
        tensors: which tensors, as for `tensors`: a glob or several. With `*` optimizer moments take
            part, otherwise only if a pattern begins with `training/`.
    Raises: ValueError, TypeError for references that are none; ExperimentNotFoundError,
        CheckpointNotFoundError; ObjectNotFoundError if no tensor of any side fits a pattern.
    """
    if len(references) < _FEWEST:
        raise ValueError(f"compare takes two references or more, not {len(references)}")
    with ExitStack() as stack:
        opened = [_open(root, text, stack) for text in references]
        problems: list[str] = []
        architecture = _architecture(root.store, opened)
        config = _config(root.store, opened)
        data = _data(root.store, opened)
        optimizers = _optimizers(root.store, opened)
        found: tuple[WeightsDiff, ...] = ()
        if weights:
            found = _weights(root.store, opened, tensors, problems)
        told = [problem for one in opened for problem in one.problems]
    return Comparison(
        sides=tuple(one.side for one in opened),
        architecture=architecture,
        config=config,
        data=data,
        weights=found,
        optimizers=optimizers,
        metrics=_metrics(opened),
        environment=_environment(opened),
        problems=tuple(dict.fromkeys([*told, *problems])),
    )


@dataclass(slots=True)
class _Opened:
    """A side, and what is known of it."""

    side: Side
    entry: ExperimentEntry
    manifest: Manifest | None = None
    problems: list[str] = field(default_factory=list)

    def attempt(self, what: str, read: Callable[[], Any]) -> Any:
        """Return what `read` returns; None, and the reason noted, if it cannot be read."""
        try:
            return read()
        except CheckpointError as error:
            self.problems.append(f"{what} of {self.side.label} cannot be read: {error.message}")
            return None


def _open(root: Root, text: str, stack: ExitStack) -> _Opened:
    told = parse_reference(text)
    checkpoint: CheckpointEntry | None
    if told.is_experiment and told.exp_hash is not None:
        entry = root.get_experiment(told.exp_hash)
        checkpoint = root.latest(entry.exp_hash)
    else:
        checkpoint = root.at(text)
        entry = root.get_experiment(checkpoint.name.exp_hash)
    name = None if checkpoint is None else checkpoint.name
    side = Side(
        reference=text,
        exp_hash=entry.exp_hash,
        step=None if name is None else name.step,
        revision=None if name is None else name.revision,
        is_experiment=told.is_experiment,
    )
    opened = _Opened(side, entry)
    if entry.record is None:
        opened.problems.append(f"the experiment {side.label} cannot be read: {entry.damaged}")
    if name is not None:
        opened.manifest = opened.attempt(
            "the checkpoint", lambda: stack.enter_context(reading(root.store, name))
        )
    return opened


# ---------------------------------------------------------------- descriptions
def _architecture(store: Store, opened: list[_Opened]) -> tuple[ArchitectureDiff, ...]:
    described: list[explaining.Description | None] = []
    for one in opened:
        if one.entry.record is None:
            described.append(None)
            continue
        found = explaining.describe_stored(store, one.entry, parts=("model",))
        one.problems += found.problems
        described.append(found)
    first, *others = described
    diffs = []
    for at, other in enumerate(others, 1):
        if first is None or other is None:
            continue
        changes = tuple(c for c in explaining.diff(first, other) if c.component == "model")
        if changes:
            diffs.append(ArchitectureDiff(old=0, new=at, changes=changes))
    return tuple(diffs)


def _config(store: Store, opened: list[_Opened]) -> tuple[Row, ...]:
    configs = [_config_of(store, one) for one in opened]
    excluded = [() if one.entry.record is None else one.entry.record.excluded for one in opened]
    return config_table(configs, excluded)


def _config_of(store: Store, one: _Opened) -> dict[str, Any] | None:
    """Return the config that a checkpoint was saved with, the newest of an experiment; {} without."""
    record = one.entry.record
    if record is None:
        return None
    if one.side.is_experiment:
        file = opening.newest_config(store, record.exp_hash)
    elif one.manifest is None:
        return None
    else:
        file = one.manifest.config_file
    if file is None and record.components.config is None:
        return {}
    found: dict[str, Any] | None = one.attempt(
        "the config", lambda: read_config(store, record, file=file)
    )
    return found


def _data(store: Store, opened: list[_Opened]) -> tuple[DataDiff, ...]:
    digests = [None if e.record is None else e.record.components.data for e in _entries(opened)]
    known: dict[str, SampleSet | None] = {}
    diffs = []
    for at in range(1, len(opened)):
        if digests[0] == digests[at]:
            continue
        pair = (opened[0], opened[at])
        found = [_samples_of(store, one, known) for one in pair]
        unread = [one for one, samples in zip(pair, found, strict=True) if samples is None]
        if all(one.entry.record and not one.entry.record.components.data for one in unread):
            diffs.append(diff_data(found[0], found[1], places=(0, at)))
    return tuple(diff for diff in diffs if diff is not None)


def _entries(opened: list[_Opened]) -> list[ExperimentEntry]:
    return [one.entry for one in opened]


def _samples_of(store: Store, one: _Opened, known: dict[str, SampleSet | None]) -> SampleSet | None:
    """Return the samples; None without, or if they cannot be read, which is noted once."""
    record = one.entry.record
    if record is None or record.components.data is None:
        return None
    if record.exp_hash not in known:
        known[record.exp_hash] = one.attempt("the samples", lambda: read_samples(store, record))
    return known[record.exp_hash]


# ---------------------------------------------------------------- checkpoints
def _optimizers(store: Store, opened: list[_Opened]) -> tuple[Row, ...]:
    def facts(manifest: Manifest) -> Any:
        return optimizer_facts(store, manifest)

    if not _all_saved(opened):
        return ()
    columns = [_of_manifest(one, "the optimizers", facts) for one in opened]
    if any(
        column == {} for column in columns
    ):  # beside nothing, each setting would be a difference
        columns = [_classes_alone(column) for column in columns]
    return rows_of(columns, only_different=True, counts=False)


def _classes_alone(facts: dict[str, Any] | None) -> dict[str, Any] | None:
    return facts and {key: value for key, value in facts.items() if key.endswith(".class")}


def _metrics(opened: list[_Opened]) -> tuple[Row, ...]:
    columns = [_of_manifest(one, "the metrics", lambda m: m.metric_values()) for one in opened]
    return rows_of(columns, only_different=False, counts=False)


def _all_saved(opened: list[_Opened]) -> bool:
    """Tell whether each side has a checkpoint: beside none, everything of it would be a difference."""
    return all(one.side.step is not None for one in opened)


def _of_manifest(one: _Opened, what: str, read: Callable[[Manifest], Any]) -> Any:
    """Return what `read` finds; nothing without a checkpoint, None if it cannot be read."""
    manifest = one.manifest
    if manifest is None:
        return {} if one.side.step is None else None
    return one.attempt(what, lambda: read(manifest))


def _environment(opened: list[_Opened]) -> tuple[Row, ...]:
    """Versions and facts of where an experiment began, and of what wrote the checkpoint."""
    columns: list[dict[str, Any] | None] = []
    for one in opened:
        if one.entry.record is None:
            columns.append(None)
            continue
        found: dict[str, Any] = dict(one.entry.record.environment)
        if one.manifest is not None and _all_saved(opened):
            found |= {f"saved with {name}": v for name, v in one.manifest.versions.items()}
        columns.append(found)
    return rows_of(columns, only_different=True, counts=False)


# ---------------------------------------------------------------- weights
def _weights(
    store: Store, opened: list[_Opened], tensors: str | tuple[str, ...], problems: list[str]
) -> tuple[WeightsDiff, ...]:
    from weightslab.engine.comparing.weights import TensorSource, compare_weights

    patterns = (tensors,) if isinstance(tensors, str) else tuple(tensors)
    sources = [
        None
        if one.manifest is None
        else TensorSource(store, one.manifest, lambda n: _wants(patterns, n), label=one.side.label)
        for one in opened
    ]
    for one, source in zip(opened, sources, strict=True):
        if source is None and one.side.step is None:
            one.problems.append(f"{one.side.label} has no checkpoint whose weights can be compared")
    _refuse_useless(patterns, [s for s in sources if s is not None])
    diffs = []
    for at, (one, other) in enumerate(zip(opened[1:], sources[1:], strict=True), 1):
        first = sources[0]
        if first is None or other is None:
            continue
        moved = _moved(store, (opened[0], one), (first, other))
        diff, found = compare_weights((first, other), (0, at), moved)
        diffs.append(diff)
        problems += [f"{opened[0].side.label} and {one.side.label}: {text}" for text in found]
    return tuple(diffs)


def _wants(patterns: tuple[str, ...], name: str) -> bool:
    if not name.startswith("training/"):
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    is_moment = "/state/state/" in name and not name.endswith("/step")
    return any(
        is_moment
        if pattern == "*"
        else pattern.startswith("training/") and fnmatchcase(name, pattern)
        for pattern in patterns
    )


def _refuse_useless(patterns: tuple[str, ...], sources: list[Any]) -> None:
    for pattern in patterns:
        fits = any(_wants((pattern,), name) for source in sources for name in source.records)
        if sources and not fits and pattern != "*":
            raise ObjectNotFoundError(
                f"no tensor of {' or '.join(s.label for s in sources)} fits {pattern!r:.80}",
                hint="`root.tensors` takes the same patterns; `*` stands for any text",
            )


def _moved(
    store: Store, opened: tuple[_Opened, _Opened], sources: tuple[Any, Any]
) -> dict[str, str]:
    """Return new name -> old name of tensors whose module got another path."""
    from weightslab.engine.tensors.matching import Spec, classes_of, match_tensors

    if sources[0].records.keys() == sources[1].records.keys():
        return {}
    found: dict[str, str] = {}
    prefixes = [{_model_of(name) for name in source.records} for source in sources]
    for prefix in sorted(prefixes[0] & prefixes[1]):
        if prefix.startswith("training/"):
            continue
        specs: list[dict[str, Spec]] = []
        classes: list[dict[str, str]] = []
        for one, source in zip(opened, sources, strict=True):
            specs.append(
                {
                    name[len(prefix) :]: Spec(record.dtype, record.shape)
                    for name, record in source.records.items()
                    if _model_of(name) == prefix
                }
            )
            document = _document(store, one)
            classes.append({} if document is None else classes_of(document, prefix.rstrip("/")))
        _, moved = match_tensors(specs[0], specs[1], classes[0], classes[1])
        found |= {f"{prefix}{new}": f"{prefix}{old}" for new, old in moved.items()}
    return found


def _document(store: Store, one: _Opened) -> Mapping[str, Any] | None:
    """Return the stored architecture; None where it cannot be read, which is told already."""
    record = one.entry.record
    if record is None or record.components.model is None:
        return None
    try:
        return read_architecture(store, record)
    except CheckpointError:
        return None


def _model_of(name: str) -> str:
    """Return what stands before the state_dict key: empty, `{model}/`, `training/`."""
    head, slash, _ = name.partition("/")
    return f"{head}/" if slash else ""
