"""The formats that are known, and which of them lie at a place."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError, FormatError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Format, Source

__all__ = ["FORMAT_NAMES", "find_sources", "get_format"]

# name -> module; the first that recognises a place has it
_MODULES: Final = {
    "numbered": "numbered",
    "weightslab2": "weightslab2",
    "safetensors": "safetensors_files",
    "torch": "torch_files",
}
FORMAT_NAMES: Final = tuple(_MODULES)
_DEPTH: Final = 3  # folders that are looked into for sources below the place
_MAX_PLACES: Final = 10_000


def get_format(name: str) -> Format:
    """Return a format by name.

    Raises: ValueError naming those there are.
    """
    if name not in _MODULES:
        raise ValueError(f"{name!r:.60} is no format; there are {', '.join(_MODULES)}")
    found: Format = import_module(f"weightslab.formats.{_MODULES[name]}").FORMAT
    return found


def find_sources(
    path: Path, format_name: str | None = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Return what lies at a place, and what could not be opened: (name, reason).

    Links are not followed below the place.

    Raises: NotFoundError if it is not there; FormatError if nothing known lies there.
    """
    if not path.exists():
        raise NotFoundError(f"there is no {path}")
    formats = [get_format(name) for name in ([format_name] if format_name else _MODULES)]
    sources: list[Source] = []
    problems: list[tuple[str, str]] = []
    _look(path, path, formats, sources, problems, depth=0)
    if not sources and not problems:
        raise FormatError(
            f"nothing in {path} is of a known format", hint=f"known are {', '.join(_MODULES)}"
        )
    return sources, problems


def _look(
    path: Path,
    top: Path,
    formats: list[Format],
    sources: list[Source],
    problems: list[tuple[str, str]],
    *,
    depth: int,
) -> None:
    for each in formats:
        if each.recognises(path):
            try:
                sources.append(each.open(path))
            except (CheckpointError, OSError) as error:
                name = path.name if path == top else path.relative_to(top).as_posix()
                problems.append((name, str(error)))
            return
    if not path.is_dir() or depth >= _DEPTH:
        return
    for child in sorted(path.iterdir()):
        if not child.is_symlink() and len(sources) < _MAX_PLACES:
            _look(child, top, formats, sources, problems, depth=depth + 1)
