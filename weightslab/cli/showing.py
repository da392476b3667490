"""`weightslab show`: everything about one experiment or one checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightslab.cli import render
from weightslab.cli.arguments import JsonOption, ReferenceArgument, RootOption, chosen
from weightslab.cli.listing import metrics_text, reference_of
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import inert, number, size, when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.repository.notes import ExperimentNotes, Note
    from weightslab.engine.root import CheckpointRoot

__all__ = ["show"]

_TENSORS = (
    Column("TENSOR", least=12),
    Column("DTYPE", rank=2),
    Column("SHAPE"),
    Column("SIZE", is_right=True, rank=1),
)
_MAX_STEPS = 12


def show(
    ref: ReferenceArgument,
    config: Annotated[bool, typer.Option("--config", help="The config, whole.")] = False,
    architecture: Annotated[
        bool, typer.Option("--architecture", help="The picture of the model.")
    ] = False,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Each tensor of the checkpoint.")
    ] = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an experiment, or a checkpoint: HASH@STEP, HASH@latest, latest.

    \b
    Examples:
      weightslab show 3f2a
      weightslab show 3f2a --config
      weightslab show 3f2a@100 --tensors
      weightslab show best:loss --json
    """
    opened = open_root(root)
    exp_hash, name = chosen(opened, ref)
    if name is None:
        if tensors:
            raise ValueError(f"tensors are those of a checkpoint: {ref}@latest")
        found = _experiment(opened, exp_hash)
    else:
        manifest = opened.manifest(
            opened.get_checkpoint(exp_hash, name.step, revision=name.revision)
        )
        found = _checkpoint(manifest, tensors=tensors or as_json)
    _add_descriptions(opened, found, exp_hash, config=config, architecture=architecture)
    if as_json:
        render.show_json("show", {"root": str(opened.path), **found})
        return
    render.say_facts(_experiment_facts(found) if name is None else _checkpoint_facts(found))
    _say_descriptions(found, tensors=tensors)


# ---------------------------------------------------------------- what is known
def _experiment(root: CheckpointRoot, exp_hash: str) -> dict[str, Any]:
    notes = root.notes.read(exp_hash)
    record = root.get_experiment(exp_hash).record
    found = {"kind": "experiment", **root.info(exp_hash)}
    found["facts"] = {} if record is None else dict(record.facts)
    found["damaged_record"] = root.get_experiment(exp_hash).damaged
    return found | _notes(notes)


def _notes(notes: ExperimentNotes) -> dict[str, Any]:
    told = {
        kind: [_note(note) for note in getattr(notes, kind)] for kind in ("notes", "tags", "pins")
    }
    return told | {"damaged_notes": list(notes.damaged)}


def _note(note: Note) -> dict[str, Any]:
    return {
        "text": note.text,
        "step": note.step,
        "revision": note.revision,
        "created_at": note.created_at.isoformat(),
    }


def _checkpoint(manifest: Manifest, *, tensors: bool) -> dict[str, Any]:
    name, link = manifest.name, manifest.parent
    found: dict[str, Any] = {
        "kind": "checkpoint",
        "exp_hash": name.exp_hash,
        "step": name.step,
        "revision": name.revision,
        "sequence": manifest.sequence,
        "created_at": manifest.created_at.isoformat(),
        "digest": manifest.digest,
        "derived_from": manifest.derived_from,
        "metrics": manifest.metric_values(),
        "metadata": manifest.metadata,
        "parent": {key: getattr(link, key) for key in link.__slots__},
        "parts": list(manifest.parts),
        "num_tensors": len(manifest.tensors),
        "size_bytes": manifest.size_bytes,
        "files": {file.name: file.size_bytes for file in manifest.files},
        "config_file": manifest.config_file,
        "versions": manifest.versions,
    }
    if tensors:
        found["tensors"] = {
            key: {"dtype": t.dtype, "shape": list(t.shape), "size_bytes": t.size_bytes}
            for key, t in manifest.tensors.items()
        }
    return found


def _add_descriptions(
    root: CheckpointRoot, found: dict[str, Any], exp_hash: str, *, config: bool, architecture: bool
) -> None:
    if config:
        found["config"] = root.config(exp_hash, step=found.get("step"))
    if architecture:
        from weightslab.engine.repository.component_file import read_architecture_text

        found["architecture"] = read_architecture_text(root.store, exp_hash)


# ---------------------------------------------------------------- in words
def _experiment_facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    facts, steps = found["facts"], found["steps"]
    yield "experiment", found["exp_hash"]
    yield "name", inert(found["name"] or "")
    yield "created", when(found["created_at"])
    if found["damaged_record"]:
        yield "damaged", inert(found["damaged_record"])
    yield "model", _model(facts)
    yield "samples", number(facts.get("num_samples"))
    shown = ", ".join(map(str, steps[-_MAX_STEPS:]))
    yield "steps", f"... {shown}" if len(steps) > _MAX_STEPS else shown
    yield "checkpoints", f"{len(steps)}, {size(found['size_bytes'])}" if steps else "none"
    for stem, why in found["damaged"].items():
        yield "damaged", f"{inert(stem)}: {inert(why)}"
    yield "parents", ", ".join(map(inert, found["parents"]))
    yield from _change_facts(found["changed_from"])
    identity = found["identity"] or {}
    yield "excluded", ", ".join(map(inert, identity.get("excluded", ())))
    yield "weak", ", ".join(map(inert, identity.get("weak", ())))
    yield from _note_facts(found)


def _model(facts: dict[str, Any]) -> str:
    words = [inert(facts["model_class"])] if facts.get("model_class") else []
    if facts.get("num_parameters") is not None:
        words.append(f"{number(facts['num_parameters'])} parameters")
    return ", ".join(words)


def _change_facts(told: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(told, dict):
        return
    yield "changed from", inert(told.get("exp_hash", ""))
    changes = told.get("changes")
    for change in changes if isinstance(changes, list) else ():
        yield "", f"  {inert(change)}"


def _note_facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("tags", "notes", "pins"):
        for note in found[kind]:
            about = "" if note["step"] is None else f"step {note['step']}: "
            yield kind[:-1], f"{about}{inert(note['text'])}" or "pinned"
    for problem in found["damaged_notes"]:
        yield "damaged", inert(problem)


def _checkpoint_facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "checkpoint", reference_of(found["exp_hash"], found["step"], found["revision"])
    yield "created", when(found["created_at"])
    yield "sequence", number(found["sequence"])
    yield "from", _parent(found["parent"])
    yield "made from", found["derived_from"] or ""
    yield "metrics", metrics_text(found["metrics"])
    yield "metadata", "" if found["metadata"] is None else inert(found["metadata"])
    yield "parts", ", ".join(map(inert, found["parts"]))
    yield "tensors", f"{number(found['num_tensors'])}, {size(found['size_bytes'])}"
    for name, size_bytes in found["files"].items():
        yield "file", f"{inert(name)}  {size(size_bytes)}"
    yield "config", inert(found["config_file"] or "")
    yield "versions", " ".join(f"{inert(k)}={inert(v)}" for k, v in found["versions"].items())
    yield "digest", found["digest"]


def _parent(link: dict[str, Any]) -> str:
    if link["kind"] != "checkpoint":
        return {"fresh": "a new model"}.get(link["kind"], str(link["kind"]))
    told = reference_of(inert(link["exp_hash"]), link["step"], link["revision"] or 1)
    through = f" through {', '.join(map(inert, link['via']))}" if link["via"] else ""
    return told + through


def _say_descriptions(found: dict[str, Any], *, tensors: bool) -> None:
    if "config" in found:
        render.say("", *(f"{inert(k)}: {inert(v)}" for k, v in _dotted(found["config"])))
    if "architecture" in found:
        render.say("", *map(inert, found["architecture"].splitlines()))
    if tensors and "tensors" in found:
        rows = [
            [inert(key), t["dtype"], str(t["shape"]), size(t["size_bytes"])]
            for key, t in found["tensors"].items()
        ]
        render.say("")
        render.say_table(_TENSORS, rows)


def _dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of a nested config."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _dotted(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
