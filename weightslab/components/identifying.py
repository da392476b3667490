"""Identifying: from live objects to the identity of the experiment they make up."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weightslab.components.live_objects import named_models, parts_of
from weightslab.engine import compare
from weightslab.engine.compare import Description
from weightslab.engine.errors import IdentityError, StateMismatchError
from weightslab.engine.identity.architecture import describe_model, outline
from weightslab.engine.identity.config import describe_config
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent
from weightslab.engine.saving.drift import check_digest, check_outline
from weightslab.engine.saving.writer import library_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from weightslab.components.live_objects import LiveObjects
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.root import CheckpointRoot
    from weightslab.engine.values import Change

__all__ = ["Identification", "check_drift", "check_model", "compare_with", "identify", "new_record"]

_NEWEST = 20  # experiments that a first hash is compared with: a bound on time, not on correctness


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """An identity with all that was described to find it.

    Attributes:
        components: digests.
        content: what the files of the experiment hold.
        outline: path -> text of the model, to notice a change at the next save.
        excluded: config keys that do not count.
        weak: marks of what could not be described from source.
        warnings: what a person should know, e.g. numbers given as text.
        facts: numbers for listings.
    """

    components: Components
    content: ExperimentContent
    outline: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def exp_hash(self) -> str:
        """The 16 hex digits that name the experiment."""
        return self.components.exp_hash

    @property
    def description(self) -> Description:
        """This identity as one side of a comparison."""
        return Description(
            components=self.components,
            model=self.content.architecture,
            config=self.content.config,
            samples=self.content.samples,
            excluded=self.excluded,
        )


def identify(
    live: LiveObjects,
    model: Any,
    config: Any,
    uids: Any,
    *,
    exclude: Sequence[str],
    libraries: Iterable[str] = (),
    last: Identification | None,
) -> Identification:
    """Describe what is given, else what is live, else keep what was described last.

    The objects are remembered in `live` only after all of them could be described.

    Raises: IdentityError naming what cannot be described.
    """
    found_model = live.find_model(model)
    if found_model is not None:
        parts_of(found_model)  # names that no file could have are refused before a hash is taken
    found_config = live.find_config(config)
    active = live.find_samples(uids)
    described = None if found_model is None else describe_model(found_model, libraries=libraries)
    settings = None if found_config is None else describe_config(found_config, exclude=exclude)
    kept = last.components if last is not None else Components()
    components = Components(
        model=kept.model if described is None else described.digest,
        config=kept.config if settings is None else settings.digest,
        data=kept.data if active is None else active.digest,
    )
    if components == Components():
        raise IdentityError(
            "there is nothing to identify: no model, no config and no samples were given",
            hint="pass at least one of model=, config=, active_data_uids=, or register them",
        )
    content = ExperimentContent(
        architecture=_or_last(described and described.document, last, "architecture"),
        architecture_text=_or_last(described and described.text, last, "architecture_text") or "",
        config=_or_last(settings and settings.plain, last, "config"),
        samples=_or_last(active, last, "samples"),
    )
    if found_model is not None:
        live.remember_model(found_model)
    if found_config is not None:
        live.remember_config(found_config)
    live.remember_samples(uids, content.samples)
    return Identification(
        components=components,
        content=content,
        outline=outline_of(found_model) if found_model is not None else _last_outline(last),
        excluded=settings.excluded if settings else (last.excluded if last else ()),
        weak=described.weak if described else (last.weak if last else ()),
        warnings=settings.warnings if settings else (),
        facts=_facts(found_model, last) | ({} if active is None else {"num_samples": len(active)}),
    )


def _or_last(value: Any, last: Identification | None, name: str) -> Any:
    if value is not None or last is None:
        return value
    return getattr(last.content, name)


def _last_outline(last: Identification | None) -> Mapping[str, str]:
    return {} if last is None else last.outline


def outline_of(model: Any) -> dict[str, str]:
    """Return the outline of a model, or of all models of a dict under `{name}:`."""
    named = named_models(model)
    if list(named) == [""]:
        return outline(model)
    return {
        f"{name}:{path}": text
        for name in sorted(named)
        for path, text in outline(named[name]).items()
    }


def compare_with(
    root: CheckpointRoot, last: Identification | None, found: Identification
) -> tuple[str | None, list[Change]]:
    """Return the experiment to compare `found` with, and what changed.

    That is the current one; without one the nearest of the newest of the root. Back in an experiment
    that is known already, nothing changed.
    """
    if last is not None:
        return last.exp_hash, compare.diff(last.description, found.description)
    if root.catalog.experiment(found.exp_hash) is not None:
        return None, []
    newest = [e for e in root.catalog.experiments() if e.record is not None][-_NEWEST:]
    near = compare.nearest(root.store, newest, found.description)
    return (None, []) if near is None else near


def check_drift(current: Identification, model: Any, samples: SampleSet | None) -> None:
    """Raise if the model to be saved, or the live sample set, is not that of `current`.

    Raises: StateMismatchError saying what changed.
    """
    if current.components.model is not None:
        check_outline(current.outline, outline_of(model), exp_hash=current.exp_hash)
    if samples is not None:
        check_digest(
            current.components.data,
            samples.digest,
            what="sample set",
            exp_hash=current.exp_hash,
        )


def check_model(current: Identification, model: Any, *, libraries: Iterable[str] = ()) -> None:
    """Raise unless `current` has a model, and that is the whole description of `model`.

    Raises: StateMismatchError.
    """
    if current.components.model is None:
        raise StateMismatchError(
            f"the experiment {current.exp_hash} has no model",
            hint="call update_experiment_hash(model=...), which writes the architecture too",
        )
    found = describe_model(model, libraries=libraries).digest
    check_digest(current.components.model, found, what="model", exp_hash=current.exp_hash)


def _facts(model: Any, last: Identification | None) -> dict[str, Any]:
    facts: dict[str, Any] = dict(last.facts) if last is not None else {}
    if model is None:
        return facts
    modules = named_models(model)
    return facts | {
        "model_class": ", ".join(sorted({type(m).__name__ for m in modules.values()})),
        "num_parameters": sum(p.numel() for m in modules.values() for p in m.parameters()),
        "num_modules": sum(1 for m in modules.values() for _ in m.modules()),
    }


def new_record(
    found: Identification,
    *,
    clock: Callable[[], datetime],
    compared_with: str | None,
    changes: Sequence[Change],
) -> ExperimentRecord:
    """Return the record with which the experiment would begin now."""
    changed_from = None
    if compared_with is not None and compared_with != found.exp_hash:
        changed_from = {"exp_hash": compared_with, "changes": [change.text for change in changes]}
    return ExperimentRecord(
        components=found.components,
        created_at=clock(),
        excluded=found.excluded,
        weak=found.weak,
        environment=library_versions()
        | {"system": platform.system(), "machine": platform.machine()},
        facts=found.facts,
        changed_from=changed_from,
    )
