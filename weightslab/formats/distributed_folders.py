"""Folders of torch.distributed.checkpoint, put together without a process group."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.formats.distributed_metadata import Chunk, Entry, read_metadata
from weightslab.formats.folder_format import FolderFormat
from weightslab.formats.folders import file_in, files_in, find_file, step_in_name
from weightslab.formats.held import hold_file
from weightslab.formats.lightning_files import is_lightning, split_lightning
from weightslab.formats.parts import Parts
from weightslab.formats.pickles import load_pickle
from weightslab.formats.source import SourceCheckpoint, SourceState
from weightslab.formats.stored_tensor import load_tensor
from weightslab.formats.torch_files import split_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from weightslab.formats.held import HeldPart
    from weightslab.formats.source import Reader

__all__ = ["FORMAT"]

_METADATA: Final = ".metadata"
_LIGHTNING: Final = "meta.pt"  # what Lightning writes beside a sharded checkpoint
_APPS: Final = frozenset(
    {"app", "state", "checkpoint", "train_state"}
)  # one more level, see tutorial
_NUMBERED: Final = re.compile(r"optimizer_\d{1,4}")  # of Lightning
_FLAT: Final = ("state.", "param_groups.")


def _holds(folder: Path) -> bool:
    return (folder / _METADATA).is_file()


def _make(folder: Path, key: str, experiment: str) -> SourceCheckpoint:
    with hold_file(file_in(folder, _METADATA)) as held:
        entries = read_metadata(held)
    names = dict.fromkeys(chunk.file for entry in entries for chunk in entry.chunks)
    files = [file_in(folder, name) for name in sorted(names)]
    meta = find_file(folder, _LIGHTNING)
    return SourceCheckpoint(
        key=key,
        experiment=experiment,
        files=(folder / _METADATA, *files, *([] if meta is None else [meta])),
        load=partial(_load, folder=folder),
        step=step_in_name(folder.name),
    )


def _load(reader: Reader, *, folder: Path) -> SourceState:
    entries = read_metadata(reader.hold(folder / _METADATA))
    expected = {p.name for p in files_in(folder)}
    tree: dict[Any, Any] = {}
    damaged: list[str] = []
    for file in sorted({chunk.file for entry in entries for chunk in entry.chunks}):
        if file not in expected:
            raise FormatError(f"{file!r:.80} is not in {folder.name}")
    for entry in entries:
        _put(tree, entry.path, _value(reader, folder, entry, damaged))
    state = _listed(tree)
    parts = Parts(reader, folder)
    meta = parts.pickle(_LIGHTNING)
    damaged += parts.damaged
    if is_lightning(meta):
        return _split_lightning(state, meta, folder.name, tuple(damaged))
    return _split(state, folder.name, tuple(damaged))


def _split_lightning(
    state: dict[Any, Any], meta: dict[str, Any], name: str, damaged: tuple[str, ...]
) -> SourceState:
    """Put together what Lightning has split: tensors here, everything else in `meta.pt`."""
    keys = sorted((k for k in state if _NUMBERED.fullmatch(str(k))), key=lambda k: int(k[10:]))
    optimizers, omitted = _optimizers({key: state[key] for key in keys})
    whole = {**meta, "state_dict": state.get("model"), "optimizer_states": [*optimizers.values()]}
    found = split_lightning(whole, name)
    return replace(found, omitted=(*found.omitted, *omitted), damaged=damaged)


def _split(state: dict[Any, Any], name: str, damaged: tuple[str, ...]) -> SourceState:
    (inner,) = state.values() if len(state) == 1 and set(state) <= _APPS else (state,)
    inner = inner if isinstance(inner, dict) else state
    found = split_state(inner, name)
    optimizers, omitted = _optimizers(found.optimizers)
    return replace(
        found, optimizers=optimizers, omitted=(*found.omitted, *omitted), damaged=damaged
    )


def _optimizers(states: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the optimizers that can be restored, and a line for each that cannot."""
    found: dict[str, Any] = {}
    omitted = []
    for key, state in states.items():
        try:
            found[key] = _optimizer(state)
        except FormatError as error:  # noqa: PERF203 - one, mostly
            omitted.append(f"{key}: {error}")
    return found, omitted


# ---------------------------------------------------------------- values
def _value(reader: Reader, folder: Path, entry: Entry, damaged: list[str]) -> Any:
    if entry.is_tensor:
        return _tensor(reader, folder, entry)
    try:
        return load_pickle(_part(reader, folder, entry.chunks[0]), trust=reader.trust)
    except FormatError as error:
        damaged.append(f"{'.'.join(map(str, entry.path))}: {error}")
        return None


def _part(reader: Reader, folder: Path, chunk: Chunk) -> HeldPart:
    return reader.hold(file_in(folder, chunk.file)).part(chunk.start, chunk.size_bytes)


def _tensor(reader: Reader, folder: Path, entry: Entry) -> torch.Tensor:
    """Put a tensor together; a tensor in one piece is not copied.

    Raises: FormatError unless its pieces are what they are said to be and fill it exactly.
    """
    import torch

    name = ".".join(map(str, entry.path))
    _check_pieces(entry, name)
    whole = None
    for chunk in entry.chunks:
        piece = load_tensor(_part(reader, folder, chunk))
        if not isinstance(piece, torch.Tensor):
            raise FormatError(f"a piece of {name!r:.80} is a {type(piece).__name__}")
        if str(piece.dtype) != f"torch.{entry.dtype}" or tuple(piece.shape) != chunk.sizes:
            raise FormatError(f"a piece of {name!r:.80} is {piece.dtype} {list(piece.shape)}")
        if len(entry.chunks) == 1:
            return piece.detach()
        if whole is None:
            whole = torch.empty(entry.shape, dtype=piece.dtype)
        place = whole
        for dimension, (start, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
            place = place.narrow(dimension, start, size)
        place.copy_(piece)
    assert whole is not None, "pieces were checked"
    return whole


def _check_pieces(entry: Entry, name: str) -> None:
    """Raise unless the pieces lie in the tensor, apart from each other, and fill it."""
    if not entry.chunks:
        raise FormatError(f"{name!r:.80} has no pieces")
    total = 0
    for chunk in entry.chunks:
        inside = len(chunk.offsets) == len(chunk.sizes) == len(entry.shape) and all(
            start + size <= whole
            for start, size, whole in zip(chunk.offsets, chunk.sizes, entry.shape, strict=True)
        )
        if not inside:
            raise FormatError(f"a piece of {name!r:.80} lies outside of it")
        total += math.prod(chunk.sizes)
    if total != math.prod(entry.shape) or _overlap(entry.chunks):
        raise FormatError(f"the pieces of {name!r:.80} do not fill it exactly")


def _overlap(chunks: tuple[Chunk, ...]) -> bool:
    solid = sorted((c for c in chunks if math.prod(c.sizes)), key=lambda c: c.offsets)
    for number, one in enumerate(solid):
        for other in solid[number + 1 :]:
            if other.offsets[0] >= one.offsets[0] + one.sizes[0]:
                break  # sorted by the first dimension: nor does any that follows
            if all(
                a < b + m and b < a + n
                for a, n, b, m in zip(
                    one.offsets, one.sizes, other.offsets, other.sizes, strict=True
                )
            ):
                return True
    return False


# ---------------------------------------------------------------- the tree
def _put(tree: dict[Any, Any], path: tuple[str | int, ...], value: Any) -> None:
    for key in path[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise FormatError(f"{'.'.join(map(str, path))!r:.80} is both a value and a folder")
        tree = below
    if path[-1] in tree:
        raise FormatError(f"{'.'.join(map(str, path))!r:.80} is there twice")
    tree[path[-1]] = value


def _listed(tree: Any) -> Any:
    """Make lists of what has the positions 0, 1, ... for keys: text keys are those of dictionaries."""
    if not isinstance(tree, dict):
        return tree
    found = {key: _listed(value) for key, value in tree.items()}
    if found and all(type(key) is int for key in found):
        if sorted(found) != list(range(len(found))):
            raise FormatError("a list in .metadata has gaps")
        return [found[position] for position in range(len(found))]
    return found


def _optimizer(state: Any) -> dict[str, Any]:
    """Return the state of an optimizer with its parameters numbered, as optimizers have it.

    Raises: FormatError for a state that is flattened over parameters: its groups are not told.
    """
    if not isinstance(state, dict) or not isinstance(state.get("param_groups"), list):
        flat = isinstance(state, dict) and any(str(key).startswith(_FLAT) for key in state)
        raise FormatError(
            "flattened over the names of parameters; its groups are not told"
            if flat
            else "no state of an optimizer"
        )
    order = [p for group in state["param_groups"] for p in group.get("params", [])]
    numbers = {str(parameter): number for number, parameter in enumerate(order)}
    if len(numbers) != len(order):
        raise FormatError("a parameter is in two groups")
    named = all(isinstance(parameter, str) for parameter in order)
    found = state.get("state") or {}
    if not isinstance(found, dict) or not set(map(str, found)) <= set(numbers):
        raise FormatError("it has state of parameters that are in no group")
    groups = [
        {**group, "params": [numbers[str(p)] if named else p for p in group.get("params", [])]}
        for group in state["param_groups"]
    ]
    places = numbers if named else {str(p): p for p in order}
    return {
        **state,
        "state": {places[str(parameter)]: entry for parameter, entry in found.items()},
        "param_groups": groups,
    }


FORMAT: Final = FolderFormat(name="torch-distributed", holds=_holds, make=_make)
