"""What changed between two experiments, told from their stored descriptions. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.identity.explain import (
    diff_configs,
    diff_excluded,
    diff_models,
    diff_samples,
)
from weightslab.engine.repository.component_file import (
    read_architecture,
    read_config,
    read_samples,
)
from weightslab.engine.values import Change, Explanation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.repository.catalog import ExperimentEntry
    from weightslab.engine.repository.experiment import Components
    from weightslab.engine.storage.store import Store

__all__ = ["Description", "describe_stored", "diff", "explain", "nearest", "not_counted"]


# what a stored description, sealed by somebody else, can make of a comparison
_MALFORMED: Final = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One side of a comparison; None for a component that was not given or cannot be read.

    Attributes:
        components: digests.
        model, config, samples: what is stored of them.
        excluded: dotted config keys that do not count.
        weak: labels of code that is known as byte-code only.
        environment: versions of Python, libraries and the system.
        problems: what could not be read.
    """

    components: Components
    model: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    samples: SampleSet | None = None
    excluded: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = field(default=())


def describe_stored(store: Store, entry: ExperimentEntry, *, parts: Iterable[str]) -> Description:
    """Read the descriptions of `parts` (`model`, `config`, `data`) of a stored experiment.

    A file that is missing or damaged leaves its component None and is named in `problems`.
    """
    assert entry.record is not None, "only experiments with a record can be compared"
    exp_hash, components = entry.exp_hash, entry.record.components
    found: dict[str, Any] = {}
    problems = []
    readers = {"model": read_architecture, "config": read_config, "data": read_samples}
    for part in parts:
        if getattr(components, part) is None:
            continue
        try:
            found[part] = readers[part](store, entry.record)
        except CheckpointError as error:
            problems.append(f"{part} of {exp_hash} cannot be read: {error}")
    return Description(
        components=components,
        model=found.get("model"),
        config=found.get("config"),
        samples=found.get("data"),
        excluded=entry.record.excluded,
        weak=entry.record.weak,
        environment=entry.record.environment,
        problems=tuple(problems),
    )


def changed_parts(old: Components, new: Components) -> tuple[str, ...]:
    """Return the components whose digests differ."""
    return tuple(p for p in ("model", "config", "data") if getattr(old, p) != getattr(new, p))


def diff(old: Description, new: Description) -> list[Change]:
    """Return what changed from `old` to `new`: model, then config, then data."""
    changes: list[Change] = []
    for part in changed_parts(old.components, new.components):
        before, after = (getattr(d.components, part) for d in (old, new))
        if before is None or after is None:
            kind = "added" if before is None else "removed"
            text = f"{part}: not given before" if before is None else f"{part}: not given any more"
            changes.append(
                Change(component=part, kind=kind, path=part, old=before, new=after, text=text)
            )
            continue
        try:
            found = _diff_part(part, old, new)
        except _MALFORMED:
            found = []
        changes += found or [
            Change(
                component=part,
                kind="changed",
                path=part,
                old=before,
                new=after,
                text=f"{part} changed ({before[:19]}... -> {after[:19]}...)",
            )
        ]
    return changes


def _diff_part(part: str, old: Description, new: Description) -> list[Change]:
    if part == "model" and old.model is not None and new.model is not None:
        return diff_models(old.model, new.model)
    if part == "config" and old.config is not None and new.config is not None:
        return diff_configs(old.config, new.config, exclude=new.excluded, old_exclude=old.excluded)
    if part == "data" and old.samples is not None and new.samples is not None:
        return diff_samples(old.samples, new.samples)
    return []


def explain(store: Store, old: ExperimentEntry, new: ExperimentEntry) -> Explanation:
    """Return what tells two stored experiments apart, and what differs without counting.

    Both must have a record. A file that cannot be read is named in `problems`; that its component
    differs is told all the same.
    """
    assert old.record is not None, "only experiments with a record can be compared"
    assert new.record is not None, "only experiments with a record can be compared"
    parts = changed_parts(old.record.components, new.record.components)
    wanted = dict.fromkeys((*parts, "config"))  # the config has keys that differ without counting
    sides = [describe_stored(store, entry, parts=wanted) for entry in (old, new)]
    return Explanation(
        old=old.exp_hash,
        new=new.exp_hash,
        changes=tuple(diff(*sides)),
        not_counted=tuple(not_counted(*sides)),
        problems=tuple(dict.fromkeys(p for side in sides for p in side.problems)),
    )


def not_counted(old: Description, new: Description) -> Iterator[Change]:
    """Yield what differs, or should be known, and is in no identity."""
    for label in sorted({*old.weak, *new.weak}):
        text = f"weak mark (byte-code, or values that cannot be read): {label}"
        yield Change(component="environment", kind="changed", path=label, text=text)
    if old.config is not None and new.config is not None:
        hidden = [path for path in new.excluded if path in old.excluded]
        for change in diff_excluded(old.config, new.config, exclude=hidden):
            yield replace(change, text=f"{change.text} (excluded)")
    for path in [
        p for p in (*old.excluded, *new.excluded) if (p in old.excluded) != (p in new.excluded)
    ]:
        which = (new if path in new.excluded else old).components.exp_hash
        text = f"the config key {path} is excluded in {which} alone"
        yield Change(component="environment", kind="changed", path=path, text=text)
    for name in sorted({*old.environment, *new.environment}):
        before, after = (side.environment.get(name, "none") for side in (old, new))
        if before != after:
            yield Change(
                component="environment",
                kind="changed",
                path=name,
                old=before,
                new=after,
                text=f"{name} {before} -> {after}",
            )


def nearest(
    store: Store, entries: Iterable[ExperimentEntry], new: Description
) -> tuple[str, list[Change]] | None:
    """Return the experiment that differs least from `new`, and the changes; None without any.

    First counts how many components differ, then how many config keys; of equals the newest wins.
    """
    best: tuple[tuple[int, int], str, list[Change]] | None = None
    for entry in sorted(entries, key=_age, reverse=True):
        if entry.record is None or entry.record.components == new.components:
            continue
        parts = changed_parts(entry.record.components, new.components)
        if best is not None and len(parts) > best[0][0]:
            continue
        changes = diff(describe_stored(store, entry, parts=parts), new)
        rank = len(parts), len(changes)
        if best is None or rank < best[0]:
            best = rank, entry.exp_hash, changes
    return None if best is None else (best[1], best[2])


def _age(entry: ExperimentEntry) -> float:
    return entry.record.created_at.timestamp() if entry.record else 0.0
