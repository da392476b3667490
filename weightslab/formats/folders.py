"""Names in a folder of a source: they come from files of others, and none leads out of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["file_in", "files_in", "find_file", "parse_object", "read_object", "step_in_name"]

_MAX_JSON_BYTES: Final = 256 << 20  # an index of a million tensors is about 100 MB
_SNAPSHOTS: Final = "snapshots"  # Hugging Face's cache: its files are links into `blobs` beside it
_STEP: Final = re.compile(r"(?:step|iter|checkpoint)[-_=]?(\d{1,18})(?!\d)", re.IGNORECASE)
_NAME: Final = re.compile(r"[^/\\\0]{1,255}")


def file_in(folder: Path, name: object) -> Path:
    """Return the file of this name in a folder.

    A link is followed only to a file in the same folder or, in a cache of Hugging Face, to the
    `blobs` of the same model.

    Raises: FormatError for a name that is none, or leads out; NotFoundError if it is not there.
    """
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or name in (".", "..")
        or ":" in name  # a drive, or a stream of a file, on Windows
    ):
        raise FormatError(f"{name!r:.80} is no name of a file in {folder.name}")
    path = folder / name
    if path.is_symlink() and not _stays(path, folder):
        raise FormatError(f"{name} is a link that leads out of {folder.name}")
    if not path.is_file():
        raise NotFoundError(f"{name} is not in {folder.name}")
    return path


def _stays(path: Path, folder: Path) -> bool:
    home = folder.resolve()
    homes = {home}
    if home.parent.name == _SNAPSHOTS:
        homes.add(home.parent.parent / "blobs")
    try:
        return path.resolve().parent in homes
    except (OSError, RuntimeError) as error:  # a loop
        raise FormatError(f"{path.name} is a link that leads nowhere") from error


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder; None if it is not there.

    Raises: FormatError for a link that leads out.
    """
    try:
        return file_in(folder, name)
    except NotFoundError:
        return None


def files_in(folder: Path) -> list[Path]:
    """Return what lies in a folder besides folders, by name."""
    return sorted(path for path in folder.iterdir() if not path.is_dir())


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, as `parse_object` does, and no more of a file than that takes.

    Raises: FormatError, OSError of the system.
    """
    with path.open("rb") as file:
        return parse_object(file.read(_MAX_JSON_BYTES + 1), what=path.name)


def parse_object(data: bytes | memoryview, *, what: str) -> dict[str, Any]:
    """Parse a JSON object as trainers write it (NaN is allowed), of bounded size, no key twice.

    Raises: FormatError.
    """
    if len(data) > _MAX_JSON_BYTES:
        raise FormatError(f"{what} has {len(data)} bytes; the limit is {_MAX_JSON_BYTES}")
    try:
        found = json.loads(bytes(data), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON: {error!s:.200}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{what} is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.80} stands there twice")
        found[key] = value
    return found


def step_in_name(name: str) -> int | None:
    """Return the number of steps that a name tells: `checkpoint-500`, `epoch=1-step=20`."""
    found = _STEP.search(name)
    return None if found is None else int(found[1])
