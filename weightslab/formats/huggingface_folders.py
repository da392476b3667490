"""Folders of Hugging Face: weights under a usual name, `config.json` beside them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from weightslab.formats.folder_format import FolderFormat, no_series
from weightslab.formats.folders import find_file, step_in_name
from weightslab.formats.parts import Parts, as_config
from weightslab.formats.source import SourceCheckpoint, SourceState
from weightslab.formats.weight_files import WeightFiles, find_weights, has_weights, load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["CONFIGS", "FORMAT"]

CONFIGS: Final = ("config.json", "adapter_config.json")


def _holds(folder: Path) -> bool:
    # without a config, several weights files in a folder are whatever they are
    return has_weights(folder) and (
        any((folder / name).is_file() for name in CONFIGS)
        or any(folder.glob("*.index.json"))
        or (folder / "pytorch_model.bin").is_file()
    )


def _make(folder: Path, key: str, experiment: str) -> SourceCheckpoint:
    weights = find_weights(folder)
    configs = [path for name in CONFIGS if (path := find_file(folder, name)) is not None]
    return SourceCheckpoint(
        key=key,
        experiment=experiment,
        files=(*weights.files, *configs),
        load=partial(_load, folder=folder, weights=weights),
        step=step_in_name(folder.name),
    )


def _load(reader: Reader, *, folder: Path, weights: WeightFiles) -> SourceState:
    tensors, extra = load_weights(reader, weights)
    parts = Parts(reader, folder)
    configs = [found for name in CONFIGS if (found := parts.json(name)) is not None]
    used = {*weights.files, *(folder / name for name in CONFIGS)}
    beside = sorted(p.name for p in folder.iterdir() if p not in used and not p.is_dir())
    if beside:
        more = f" and {len(beside) - 8} more" if len(beside) > 8 else ""  # noqa: PLR2004
        parts.omitted.append(f"{', '.join(beside[:8])}{more}: no weights and no config")
    return SourceState(
        models={"": tensors},
        extra={"": extra},
        config=as_config(configs[0] if configs else None, parts.omitted, what="config.json"),
        omitted=tuple(parts.omitted),
        damaged=tuple(parts.damaged),
    )


FORMAT: Final = FolderFormat(name="huggingface", holds=_holds, make=_make, number=no_series)
