"""`weightslab export`: a checkpoint in the forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import ReferenceArgument, RootOption
from weightslab.cli.roots import open_root
from weightslab.cli.texts import size

__all__ = ["export"]

_BY_SUFFIX: Final = {
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
}


def export(
    ref: ReferenceArgument,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="NAME.safetensors, NAME.pt, or a folder.", show_default=False
        ),
    ],
    to: Annotated[
        Optional[str],
        typer.Option("--to", help="safetensors, torch or huggingface; by default as PATH ends."),
    ] = None,
    part: Annotated[
        str,
        typer.Option("--part", help="model, model.NAME of several, training; of torch also all."),
    ] = "model",
    root: RootOption = None,
) -> None:
    """Write a checkpoint, verified, in a form that others read.

    safetensors: one file that any library reads. torch: a state_dict for torch.load(weights_only=True);
    `--part all` adds optimizer, step and metrics. huggingface: a folder with config.json, for
    from_pretrained where the model is one of Transformers. Nothing that exists is replaced.

    \b
    Examples:
      weightslab export 3f2a@best:loss model.safetensors
      weightslab export latest model.pt
      weightslab export latest training.pt --part all
      weightslab export 3f2a@100 my-model --to huggingface
    """
    form = to or _BY_SUFFIX.get(path.suffix.lower())
    if form is None:
        raise ValueError(
            f"{path}: the name ends with .safetensors or .pt, or give --to huggingface"
        )
    opened = open_root(root)
    name = opened.at(ref).name
    with render.waiting(f"writing {path}"):
        opened.export(
            name.exp_hash, name.step, path, part=part, revision=name.revision, format=form
        )
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    render.say(f"{path}  {size(sum(file.stat().st_size for file in files))}")
