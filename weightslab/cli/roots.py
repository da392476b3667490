"""Which root is meant, opened as the command needs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import NotFoundError

if TYPE_CHECKING:
    from weightslab.engine.root import CheckpointRoot

__all__ = ["VARIABLE", "find_root", "open_new_root", "open_root"]

VARIABLE: Final = "WEIGHTSLAB_ROOT"
DEFAULT: Final = "root_experiment"
_GIVE: Final = f"give one: --root FOLDER, or the variable {VARIABLE}"
# what lies in a folder of another kind, and what that kind is called; the first that fits is named
_KINDS: Final = (
    ("experiment.json", "an experiment of a root, not the root"),
    (".metadata", "a checkpoint of torch.distributed.checkpoint"),
    ("trainer_state.json", "a checkpoint of the Transformers Trainer"),
    ("checkpoint-*/trainer_state.json", "an output folder of the Transformers Trainer"),
    ("lightning_logs", "a log folder of Lightning"),
    ("version_*/checkpoints/*.ckpt", "a log folder of Lightning"),
    ("model.safetensors", "a Hugging Face model"),
    ("model.safetensors.index.json", "a Hugging Face model"),
    ("pytorch_model.bin", "a Hugging Face model"),
    ("mlruns", "a folder with runs of MLflow"),
    ("meta.yaml", "a folder of MLflow"),
    ("wandb", "a folder with runs of Weights & Biases"),
    ("*.ckpt", "a folder with checkpoints of Lightning"),
    ("*.pt", "a folder with files of torch.save"),
    ("*.pth", "a folder with files of torch.save"),
    ("*.safetensors", "a folder with safetensors files"),
)


def find_root(given: Path | None) -> Path:
    """Return the folder that is meant: the given one, that of the variable, or `root_experiment`.

    Raises: NotFoundError that says how to give one, or what the folder is instead of a root.
    """
    told = given or (Path(found) if (found := os.environ.get(VARIABLE)) else None)
    path = told or Path(DEFAULT)
    if not path.exists():
        if told is None:
            raise NotFoundError(f"no root: there is no folder {DEFAULT} here", hint=_GIVE)
        raise NotFoundError(f"no root {path}: there is no such folder", hint=_GIVE)
    if not path.is_dir():
        raise NotFoundError(f"{path} is a file; a root is a folder", hint=_GIVE)
    if not (path / "checkpoints").is_dir() or _is_lightning(path):
        raise NotFoundError(f"{path} is no root: {_kind_of(path)}", hint=_nearby(path))
    return path


def _is_lightning(path: Path) -> bool:
    """Tell whether `checkpoints/` is that of Lightning, which has files in the place of folders."""
    return any(path.glob("checkpoints/*.ckpt"))


def _kind_of(path: Path) -> str:
    if _is_lightning(path):
        return "it is a log folder of Lightning"
    for pattern, kind in _KINDS:
        if next(iter(path.glob(pattern)), None) is not None:
            return f"it is {kind}"
    return "it has no folder checkpoints" if any(path.iterdir()) else "it is empty"


def _nearby(path: Path) -> str:
    """Say where the root is, where the folder is one in it, or holds one."""
    for folder in list(path.absolute().parents)[:2]:
        if path.absolute().relative_to(folder).parts[0] == "checkpoints":
            return f"the root is {folder}"
    found = sorted(p.parent for p in path.glob("*/checkpoints") if p.is_dir())
    if found:
        return f"there is one in it: --root {found[0]}"
    return _GIVE


def open_root(given: Path | None, *, write: bool = False) -> CheckpointRoot:
    """Open the root that is meant; for reading alone unless the command changes it.

    Raises: NotFoundError; StorageError if it cannot be written to.
    """
    from weightslab.engine.root import CheckpointRoot

    return CheckpointRoot(find_root(given), read_only=not write)


def open_new_root(given: Path | None, *, write: bool) -> CheckpointRoot:
    """Open the root that something goes into; it is made if there is no such folder, or an empty one.

    Raises: NotFoundError if the folder is something else; StorageError if it cannot be written to.
    """
    from weightslab.engine.root import CheckpointRoot

    told = given or (Path(found) if (found := os.environ.get(VARIABLE)) else None)
    path = told or Path(DEFAULT)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        path = find_root(path)
    return CheckpointRoot(path, read_only=not write, must_exist=False)
