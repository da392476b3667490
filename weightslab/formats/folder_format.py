"""Formats whose checkpoint is a folder; numbered ones side by side are one experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.formats.source import Source, SourceExperiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weightslab.formats.source import SourceCheckpoint

__all__ = ["FolderFormat", "no_series"]

_NUMBERED: Final = re.compile(
    r"(?:.*[-_.])?(?:checkpoint|step|epoch|iter|iteration)s?[-_=]?(\d{1,18})", re.IGNORECASE
)
_LOOSE: Final = frozenset({".ckpt", ".pt", ".pth", ".safetensors"})  # files that may be of others
_OF_TRAINERS: Final = re.compile(
    r"(optimizer|scheduler|scaler|meta|training_args)(_\d+)?\.(pt|bin)|rng_state(_\d+)?\.pth"
    r"|.*-\d{5}-of-\d{5}\.safetensors"
)


def no_series(_: Path) -> None:
    """Say that folders of a format do not belong together, whatever their names are."""


def number_of(path: Path) -> int | None:
    """Return the number of a folder that is one of several: `checkpoint-500`."""
    found = _NUMBERED.fullmatch(path.name)
    return None if found is None else int(found[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFormat:
    """A format whose checkpoint is a folder.

    Attributes:
        name: as in `Format`.
        holds: tells whether a folder is a checkpoint of it.
        make: (folder, its key, key of its experiment) -> the checkpoint; reads small files only.
        number: number of a folder that stands beside others of the same training; None for others.
    """

    name: str
    holds: Callable[[Path], bool]
    make: Callable[[Path, str, str], SourceCheckpoint]
    number: Callable[[Path], int | None] = number_of

    def recognises(self, path: Path) -> bool:
        """Tell whether `path` is a checkpoint, or a folder of numbered ones."""
        return path.is_dir() and (self.holds(path) or bool(self._series(path)))

    def open(self, path: Path) -> Source:
        """Say what is there."""
        folders = [path] if self.holds(path) else self._series(path)
        is_numbered = self.number(path) is not None and folders == [path]
        key = path.parent.name if is_numbered and path.parent.name else path.name
        checkpoints, problems, claimed = [], [], set()
        for folder in folders:
            claimed.add(folder)
            try:
                found = self.make(folder, folder.name, key)
            except (CheckpointError, OSError) as error:
                problems.append((folder.name, str(error)))
                claimed.update(folder.iterdir())
                continue
            checkpoints.append(found)
            claimed.update(found.files)
            claimed.update(p for p in folder.iterdir() if not p.is_dir() and _belongs(p))
        return Source(
            format=self.name,
            path=path,
            experiments=[SourceExperiment(key=key, name=key)],
            checkpoints=sorted(checkpoints, key=lambda c: (c.step is None, c.step or 0)),
            problems=problems,
            claimed=frozenset(claimed),
        )

    def _series(self, path: Path) -> list[Path]:
        children = [(self.number(child), child) for child in path.iterdir()]
        numbered = [
            (number, child)
            for number, child in children
            if number is not None and child.is_dir() and not child.is_symlink()
        ]
        return [child for _, child in sorted(numbered) if self.holds(child)]


def _belongs(path: Path) -> bool:
    """Tell whether a file beside a checkpoint is a part of it; others may be checkpoints too."""
    return path.suffix not in _LOOSE or _OF_TRAINERS.fullmatch(path.name) is not None
