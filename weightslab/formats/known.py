"""The formats that are known, and which of them lie at a place."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError, FormatError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Format, Source

__all__ = ["FORMAT_NAMES", "find_sources", "get_format"]

# name -> module; the first that recognises a place has it, so folders come before single files
_MODULES: Final = {
    "numbered": "numbered",
    "weightslab2": "weightslab2",
    "torch-distributed": "distributed_folders",
    "transformers": "transformers_folders",
    "accelerate": "accelerate_folders",
    "huggingface": "huggingface_folders",
    "lightning": "lightning_files",
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
    search = _Search(path, formats)
    search.look(path, depth=0)
    if not search.sources and not search.problems:
        raise FormatError(
            f"nothing in {path} is of a known format", hint=f"known are {', '.join(_MODULES)}"
        )
    return search.sources, search.problems


@dataclass(slots=True)
class _Search:
    """Looks for sources at a place and below it."""

    top: Path
    formats: list[Format]
    sources: list[Source] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    claimed: set[Path] = field(default_factory=set)  # of sources that were found above

    def look(self, path: Path, *, depth: int) -> None:
        """Open what lies at `path`, and look into it for what that does not claim."""
        try:
            if path not in self.claimed and self._open(path):
                return
            if not path.is_dir() or depth > _DEPTH:
                return
            children = sorted(path.iterdir())
        except (CheckpointError, OSError) as error:
            self.problems.append((self._name(path), str(error)))
            return
        for child in children:
            if len(self.sources) >= _MAX_PLACES:
                self.problems.append((self._name(path), f"more than {_MAX_PLACES} sources"))
                return
            if not child.is_symlink():
                self.look(child, depth=depth + 1)
            elif child not in self.claimed and not _stays_in(child, self.top):
                self.problems.append((self._name(child), "a link that leads out of the source"))

    def _open(self, path: Path) -> bool:
        """Open what lies at `path`; True if that is all there is."""
        for each in self.formats:
            if each.recognises(path):
                found = each.open(path)
                self.sources.append(found)
                if found.claimed is None:
                    return True
                self.claimed |= found.claimed
                if path in self.claimed:
                    break  # else there may be more in the folder, of other formats
        return False

    def _name(self, path: Path) -> str:
        return path.name if path == self.top else path.relative_to(self.top).as_posix()


def _stays_in(link: Path, top: Path) -> bool:
    """Tell whether a link leads to what is looked at anyway."""
    try:
        return link.resolve().is_relative_to(top.resolve())
    except (OSError, RuntimeError):  # a loop
        return False
