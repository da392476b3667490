"""Roots of WeightsLab 2.0: `checkpoints/manifest.yaml`, and folders for models, HP and data.

An experiment there has a hash of 24 characters: HP (8), model (8), data (8). Its steps are in the names of
the files. Times in it are local times without a zone; they are kept as texts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.pickles import load_pickle, stand_in
from weightslab.formats.plain_parts import plain_entries, split_model
from weightslab.formats.small_text import load_json, load_yaml
from weightslab.formats.source import Source, SourceCheckpoint, SourceExperiment, SourceState
from weightslab.formats.weightslab2_lineage import Span, find_parents
from weightslab.formats.weightslab2_random import random_of
from weightslab.formats.weightslab2_samples import Samples, read_samples

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["FORMAT", "Weightslab2Roots"]

_MANIFEST: Final = "manifest.yaml"
_STATE: Final = ".checkpoint_manager_state.json"
_HASH: Final = re.compile(r"[0-9a-zA-Z]{24}")
_FILE: Final = re.compile(r"([0-9a-zA-Z]{24})_step_([0-9]{1,18})\.pt")
_TOLD: Final = ("hp_hash", "model_hash", "data_hash", "created", "last_used", "notes")
_TAKEN: Final = frozenset(
    {"model_state_dict", "optimizer_state_dict", "step", "exp_hash", "rng_state", "metadata"}
)


@dataclass(slots=True)
class _Found:
    """What the folders hold.

    Attributes:
        files: hash -> step -> file.
        entries: hash -> what the manifest says of it.
        current, previous: the experiment in use last, and the one before, where they are told.
        problems: (name, reason).
    """

    files: dict[str, dict[int, Path]] = field(default_factory=lambda: defaultdict(dict))
    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    current: str | None = None
    previous: str | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)


class Weightslab2Roots:
    """A root_log_dir of WeightsLab 2.0, or its folder `checkpoints`."""

    name = "weightslab2"

    def recognises(self, path: Path) -> bool:
        """Tell by the names."""
        return _home(path) is not None

    def open(self, path: Path) -> Source:
        """Say what is there."""
        home = _home(path)
        if home is None:
            raise FormatError(f"{path} is no root of WeightsLab 2.0")
        found = _look(home)
        hashes = sorted(found.files, key=lambda h: (_text(found.entries.get(h, {}), "created"), h))
        configs = {hp: _config(home, hp, found.problems) for hp in sorted({h[:8] for h in hashes})}
        samples = {
            data: read_samples(home / "data" / data, found.problems)
            for data in sorted({h[16:] for h in hashes})
        }
        spans = [_span(h, found) for h in hashes]
        parents = find_parents(spans, found.current, found.previous)
        return Source(
            format=self.name,
            path=path,
            experiments=[
                _experiment(h, found.entries.get(h, {}), configs[h[:8]], samples[h[16:]])
                for h in hashes
            ],
            checkpoints=[
                _checkpoint(h, step, found.files[h][step], parents.get((h, step)))
                for h, step in _in_order(spans, parents)
            ],
            problems=found.problems,
        )


def _home(path: Path) -> Path | None:
    """Return the folder `checkpoints` of a root, given either."""
    for home in (path / "checkpoints", path):
        has_models = (home / "models").is_dir()
        if has_models and (home / "HP").is_dir():
            return home
        if (home / _MANIFEST).is_file() and (has_models or (home / "data").is_dir()):
            return home
    return None


# ---------------------------------------------------------------- what is there
def _look(home: Path) -> _Found:
    found = _Found()
    for folder in _children(home / "models"):
        for path in _children(folder):
            reason = _add_file(path, found.files)
            if reason is not None:
                found.problems.append((_name(home, path), reason))
    _read_manifest(home, found)
    _read_state(home, found)
    return found


def _add_file(path: Path, files: dict[str, dict[int, Path]]) -> str | None:
    """Note a checkpoint; return why a file cannot be one, None for files of other kinds."""
    named = _FILE.fullmatch(path.name)
    if named is None:
        return "is no name of a checkpoint" if path.suffix in (".pt", ".pth") else None
    exp_hash, step = named[1], int(named[2])
    if path.is_symlink() or not path.is_file():
        return "is no file of its own"
    if exp_hash[8:16] != path.parent.name:
        return "lies in the folder of another model"
    if step in files[exp_hash]:
        return f"is step {step} a second time"
    files[exp_hash][step] = path
    return None


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _name(home: Path, path: Path) -> str:
    """Return the name that a path has in a root, wherever that lies."""
    return f"checkpoints/{path.relative_to(home).as_posix()}"


def _read_manifest(home: Path, found: _Found) -> None:
    name = f"checkpoints/{_MANIFEST}"
    if not (home / _MANIFEST).exists():
        found.problems.append((name, "is not there: names, notes and order are unknown"))
        return
    try:
        document = _mapping(load_yaml(home / _MANIFEST), _MANIFEST)
        entries = _mapping(document.get("experiments"), f"experiments in {_MANIFEST}")
    except (FormatError, OSError) as error:
        found.problems.append((name, str(error)))
        return
    found.current = _text(document, "latest_hash") or None
    for exp_hash, entry in entries.items():
        is_hash = isinstance(exp_hash, str) and _HASH.fullmatch(exp_hash)
        if not is_hash or not isinstance(entry, Mapping):
            found.problems.append((name, f"the entry {exp_hash!r:.60} is not in order"))
            continue
        found.entries[exp_hash] = entry
        newest = entry.get("latest_weight_checkpoint")
        there = found.files[exp_hash].values() if exp_hash in found.files else ()
        if newest is not None and newest not in [path.name for path in there]:
            found.problems.append((name, f"{newest!s:.80}, the newest of {exp_hash}, is gone"))


def _read_state(home: Path, found: _Found) -> None:
    path = home.parent / _STATE
    if home.name != "checkpoints" or not path.is_file():
        return
    try:
        state = _mapping(load_json(path), _STATE)
    except (FormatError, OSError) as error:
        found.problems.append((_STATE, str(error)))
        return
    if current := _text(state, "current_exp_hash"):
        found.current, found.previous = current, _text(state, "previous_exp_hash") or None


def _config(home: Path, hp_hash: str, problems: list[tuple[str, str]]) -> Mapping[str, Any] | None:
    path = home / "HP" / hp_hash / f"{hp_hash}_config.yaml"
    if not path.exists():
        return None
    try:
        document = _mapping(load_yaml(path), path.name)
        return _mapping(document.get("hyperparameters"), f"hyperparameters in {path.name}")
    except (FormatError, OSError) as error:
        problems.append((_name(home, path), str(error)))
        return None


def _mapping(found: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise FormatError(f"{what}: a {type(found).__name__}, not a mapping")
    return found


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


# ---------------------------------------------------------------- what it is here
def _experiment(
    exp_hash: str, entry: Mapping[str, Any], config: Mapping[str, Any] | None, samples: Samples
) -> SourceExperiment:
    notes = _text(entry, "notes")
    told, _ = plain_entries({k: entry[k] for k in _TOLD if k in entry}, "manifest")
    return SourceExperiment(
        key=exp_hash,
        identity=exp_hash,
        config=config,
        uids=samples.active,
        discarded=samples.discarded,
        name=_text(entry, "experiment_name") or None,
        notes=(notes,) if notes else (),
        metadata=told | {"exp_hash": exp_hash} | ({"samples": samples.why} if samples.why else {}),
    )


def _span(exp_hash: str, found: _Found) -> Span:
    entry = found.entries.get(exp_hash, {})
    return Span(
        exp_hash=exp_hash,
        steps=tuple(sorted(found.files[exp_hash])),
        created=_text(entry, "created"),
        last_used=_text(entry, "last_used"),
    )


def _in_order(
    spans: list[Span], parents: Mapping[tuple[str, int], tuple[str, int]]
) -> list[tuple[str, int]]:
    """Return all checkpoints, parents before children; a parent is older, so there is no circle."""
    done: dict[tuple[str, int], None] = {}
    for span in spans:
        for step in span.steps:
            line = [(span.exp_hash, step)]
            while (parent := parents.get(line[-1])) is not None and parent not in done:
                line.append(parent)
            done.update(dict.fromkeys(reversed(line)))
    return list(done)


def _checkpoint(
    exp_hash: str, step: int, path: Path, parent: tuple[str, int] | None
) -> SourceCheckpoint:
    return SourceCheckpoint(
        key=_key(exp_hash, step),
        experiment=exp_hash,
        files=(path,),
        load=partial(_load, path=path, exp_hash=exp_hash, step=step),
        step=step,
        parent=None if parent is None else _key(*parent),
    )


def _key(exp_hash: str, step: int) -> str:
    return f"{exp_hash}_step_{step:06d}"


def _load(reader: Reader, path: Path, exp_hash: str, step: int) -> SourceState:
    stand_ins = (stand_in("weightslab.components.tracking.TrackingMode"),)
    found = load_pickle(reader.hold(path), trust=reader.trust, stand_ins=stand_ins)
    found = _mapping(found, path.name)
    for key, expected in (("step", step), ("exp_hash", exp_hash)):
        if found.get(key, expected) != expected:
            raise FormatError(
                f"{path.name} says {key} {found[key]!r:.60}, its name says {expected!r}",
                hint="it was renamed; give it its own name back",
            )
    model = found.get("model_state_dict")
    tensors, extra, omitted = split_model(model, f"the model in {path.name}")
    given, left = plain_entries(found.get("metadata") or {}, "metadata")
    others = {k: v for k, v in found.items() if k not in _TAKEN and v is not None}
    random, reason = random_of(found.get("rng_state"))
    if reason is not None:
        others["rng_state"] = found["rng_state"]
        omitted.append(f"random state: {reason}; in the metadata as it is")
    plain, unread = plain_entries(others, "checkpoint")
    optimizer = found.get("optimizer_state_dict")
    return SourceState(
        models={"": tensors},
        extra={"": extra},
        optimizers={"optimizer": optimizer} if isinstance(optimizer, Mapping) else {},
        random=random,
        metadata=plain | given,
        omitted=(*omitted, *left, *unread),
    )


FORMAT: Final = Weightslab2Roots()
