"""Weights as Hugging Face's libraries write them: one file, or shards with an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from weightslab.engine.errors import FormatError, NotFoundError
from weightslab.formats.folders import file_in, find_file, parse_object, read_object
from weightslab.formats.pickles import load_pickle
from weightslab.formats.safetensors_files import load_safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.source import Reader

__all__ = ["WeightFiles", "find_weights", "has_weights", "load_weights"]

_STEMS: Final = ("model", "pytorch_model", "adapter_model", "diffusion_pytorch_model")
_ENDINGS: Final = (".safetensors", ".bin")  # the safer first, as their loaders do
_INDEX: Final = ".index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files that hold the weights of a folder.

    Attributes:
        index: the file that tells which shard has which tensor; None for a single file.
        shards: the files with tensors.
    """

    index: Path | None
    shards: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return self.shards if self.index is None else (self.index, *self.shards)


def has_weights(folder: Path) -> bool:
    """Tell whether there is a weights file, or an index of some, under a usual name."""
    return _find(folder) is not None


def _find(folder: Path, stems: tuple[str, ...] = _STEMS) -> str | None:
    for ending in _ENDINGS:
        for stem in stems:
            for name in (f"{stem}{ending}", f"{stem}{ending}{_INDEX}"):
                if (folder / name).is_file() or (folder / name).is_symlink():
                    return name
    return None


def find_weights(folder: Path, stems: tuple[str, ...] = _STEMS) -> WeightFiles:
    """Return the files that hold the weights; of an index, the shards that it names.

    Raises: NotFoundError; FormatError for an index that is not in order or leads out.
    """
    name = _find(folder, stems)
    if name is None:
        raise NotFoundError(f"there are no weights in {folder.name}")
    path = file_in(folder, name)
    if not name.endswith(_INDEX):
        return WeightFiles(index=None, shards=(path,))
    places = _places(read_object(path), name)
    shards = dict.fromkeys(places.values())
    missing = [shard for shard in shards if find_file(folder, shard) is None]
    if missing:
        raise NotFoundError(
            f"{name} names {len(shards)} shards, and {', '.join(missing[:4])}"
            f"{' and others are' if len(missing) > 4 else ' is'} not there"  # noqa: PLR2004
        )
    return WeightFiles(index=path, shards=tuple(file_in(folder, shard) for shard in shards))


def _places(index: dict[str, Any], name: str) -> dict[str, str]:
    """Return tensor -> shard."""
    found = index.get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise FormatError(f"{name} has no weight_map of names")
    if not found:
        raise FormatError(f"{name} names no tensors")
    return found


def load_weights(
    reader: Reader, weights: WeightFiles
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors, and the entries that are none.

    Raises: FormatError where index and shards do not agree, or two shards have a tensor;
        UnsafePickleError and its kinds.
    """
    tensors: dict[str, torch.Tensor] = {}
    extra: dict[str, Any] = {}
    homes: dict[str, str] = {}
    for shard in weights.shards:
        for key, value in _load_shard(reader, shard).items():
            if key in homes:
                raise FormatError(f"{key!r:.80} is in {homes[key]} and in {shard.name}")
            homes[key] = shard.name
            if isinstance(value, torch.Tensor):
                tensors[key] = value.detach()
            else:
                extra[key] = value
    if weights.index is not None:
        index = parse_object(reader.hold(weights.index).view, what=weights.index.name)
        for key, shard_name in _places(index, weights.index.name).items():
            if homes.get(key) != shard_name:
                raise FormatError(f"{key!r:.80} is not in {shard_name}, as the index says")
    return tensors, extra


def _load_shard(reader: Reader, path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        tensors: dict[str, Any] = load_safetensors(reader.hold(path))[0]
        return tensors
    found = load_pickle(reader.hold(path), trust=reader.trust)
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise FormatError(f"{path.name} holds a {type(found).__name__}, not a state dict")
    return found
