"""Selecting: single tensors of a checkpoint, verified and copied out, without any model."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.loading.options import FULL, check_verify
from weightslab.engine.loading.reading import read_tensors

if TYPE_CHECKING:
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store

__all__ = ["load_tensors"]


def load_tensors(
    store: Store,
    manifest: Manifest,
    patterns: str | tuple[str, ...],
    *,
    verify: str = FULL,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """Return some tensors of a checkpoint; no byte of another tensor is read.

    Names are state_dict keys; in a checkpoint of several models `{model}/` stands before them, and
    tensors of the training state are `training/{path}`, e.g. `training/optimizer/adam/state/state/0/exp_avg`.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        patterns: one glob or several: `*` stands for any text, dots and slashes included, `?` for
            one character, `[ab]` for one of them. A tensor is taken if one pattern fits its name.
        verify: `full`, or `size`: sizes and headers alone.
        device: where the tensors go.
        dtype: convert floating-point tensors; None keeps every dtype.
    Returns: name -> tensor with memory of its own; tied names share one tensor.
    Raises: ObjectNotFoundError if a pattern fits nothing, naming what is near; MissingObjectError,
        TruncatedError, DigestMismatchError, FormatError.
    """
    check_verify(verify)
    keys = {_name_of(key): key for key in sorted(manifest.tensors)}
    keys |= {_name_of(key): kept for key, kept in sorted(manifest.aliases.items())}
    chosen: dict[str, str] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        found = {name: key for name, key in keys.items() if fnmatchcase(name, pattern)}
        if not found:
            raise _nothing_fits(manifest, pattern, list(keys))
        chosen |= found
    mapped = read_tensors(store, manifest, set(chosen.values()), verify=verify)
    own = {key: _owned(tensor, device, dtype) for key, tensor in mapped.items()}
    return {name: own[chosen[name]] for name in keys if name in chosen}


def _name_of(key: str) -> str:
    """Return the name that people use for `{part}/{key}` of a manifest."""
    part, _, name = key.partition("/")
    if part == "model":
        return name
    return f"{part.removeprefix('model.')}/{name}"


def _nothing_fits(manifest: Manifest, pattern: str, names: list[str]) -> ObjectNotFoundError:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
    return ObjectNotFoundError(
        f"no tensor of {manifest.name.stem} fits {pattern!r}",
        hint=f"it holds {len(names)}, such as {', '.join(near)}" if near else "it holds none",
    )


def _owned(
    mapped: torch.Tensor, device: str | torch.device, dtype: torch.dtype | None
) -> torch.Tensor:
    """Copy a tensor out of the mapped file, which must not be written to."""
    wanted = dtype if dtype is not None and mapped.is_floating_point() else mapped.dtype
    return torch.empty_like(mapped, device=device, dtype=wanted).copy_(mapped)
