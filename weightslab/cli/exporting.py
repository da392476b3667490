"""`weightslab export`: the weights of a checkpoint as one file of their own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weightslab.cli import render
from weightslab.cli.arguments import ReferenceArgument, RootOption
from weightslab.cli.roots import open_root
from weightslab.cli.texts import size
from weightslab.engine.errors import AlreadyExistsError, MissingExtraError, ObjectNotFoundError

if TYPE_CHECKING:
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.root import CheckpointRoot

__all__ = ["export"]

_TORCH = (".pt", ".pth", ".bin")


def export(
    ref: ReferenceArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="NAME.safetensors, NAME.pt.", show_default=False),
    ],
    part: Annotated[
        str, typer.Option("--part", help="model, model.NAME of several models, or training.")
    ] = "model",
    root: RootOption = None,
) -> None:
    """Write the weights of a checkpoint, verified, into one new file.

    `.safetensors` is read by any library; `.pt` is a state_dict for torch.load(..., weights_only=True),
    and needs torch. An existing file is never replaced.

    \b
    Examples:
      weightslab export 3f2a@best:loss model.safetensors
      weightslab export latest model.pt
    """
    suffix = file.suffix.lower()
    if suffix not in (".safetensors", *_TORCH):
        raise ValueError(f"{file}: the name ends with .safetensors or .pt")
    opened = open_root(root)
    name = opened.at(ref).name
    with render.waiting(f"writing {file}"):
        if suffix == ".safetensors":
            opened.export(name.exp_hash, name.step, file, part=part, revision=name.revision)
        else:
            _export_torch(opened, name, file, part)
    render.say(f"{file}  {size(file.stat().st_size)}")


def _export_torch(root: CheckpointRoot, name: CheckpointName, file: Path, part: str) -> None:
    """Write a state_dict with `torch.save`; the file appears whole, or not at all."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(".pt needs torch", hint="pip install torch") from error
    if file.exists():
        raise AlreadyExistsError(f"{file} exists", hint="choose another path; nothing is replaced")
    prefix = "" if part == "model" else f"{part.removeprefix('model.')}/"
    entry = root.get_checkpoint(name.exp_hash, name.step, revision=name.revision)
    if part not in entry.parts:
        raise ObjectNotFoundError(
            f"checkpoint {name.stem} has no part {part!r}", hint=f"it has {', '.join(entry.parts)}"
        )
    pattern = f"{prefix}*"
    found = root.tensors(name.exp_hash, name.step, pattern, revision=name.revision)
    others = tuple(f"{p.removeprefix('model.')}/" for p in entry.parts if p != "model")
    state = {
        key.removeprefix(prefix): tensor
        for key, tensor in found.items()
        if prefix or not key.startswith(others)
    }
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.link(temporary, file)  # fails where somebody made it meanwhile
    except FileExistsError as error:
        raise AlreadyExistsError(f"{file} exists", hint="nothing was replaced") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
