"""Values that cross the floors of the engine: frozen, validated, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Change", "FileRecord", "HashUpdate", "ParentLink", "TensorRecord", "parse_utc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two experiments.

    Attributes:
        component: `model`, `config` or `data`.
        kind: `added`, `removed`, `replaced` or `changed`.
        path: module path, dotted config key, or `samples`.
        old: the old value as plain JSON; None where there was none.
        new: the new value as plain JSON; None where there is none.
        text: one line for people, e.g. `fc2: Linear(128 -> 10) became Linear(256 -> 10)`.
    """

    component: str
    kind: str
    path: str
    old: Any = None
    new: Any = None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class HashUpdate:
    """Result of `update_experiment_hash`; unpacks as `exp_hash, is_new`.

    Attributes:
        exp_hash: 16 hex digits of the experiment that is current now.
        is_new: True if this call created it in the root.
        changes: what changed against `compared_with`, in words and values.
        compared_with: the experiment that was current before, else the nearest one among the newest
            of the root; None if there was nothing to compare with.
    """

    exp_hash: str
    is_new: bool
    changes: tuple[Change, ...] = ()
    compared_with: str | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield `exp_hash` and `is_new`."""
        return iter((self.exp_hash, self.is_new))

    def __str__(self) -> str:
        """Return the hash and what changed, a line each."""
        head = f"{self.exp_hash} ({'new' if self.is_new else 'known'})"
        if self.compared_with and self.changes:
            head += f", compared with {self.compared_with}:"
        return "\n".join([head, *(f"  {change}" for change in self.changes)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """Where one tensor lies inside a file, and what it must hash to.

    Attributes:
        file: name of the file, beside the manifest.
        dtype: safetensors name (`F32`, `BF16`, `I64`, ...).
        shape: sizes of the dimensions.
        offset: first byte of the tensor, counted from the start of the file.
        size_bytes: length of the tensor in the file.
        digest: `xxh3-128:...` of these bytes.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    digest: str

    def __post_init__(self) -> None:
        if self.offset < 0 or self.size_bytes < 0 or any(n < 0 for n in self.shape):
            raise FormatError(f"tensor record with a negative number: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a checkpoint: all bytes are covered by `digest`.

    Attributes:
        name: file name, beside the manifest.
        part: `model`, `model.{name}` or `training`.
        size_bytes: length of the file.
        digest: `xxh3-128:...` of the whole file.
        header_size_bytes: length of what stands before the first tensor byte.
        header_digest: `xxh3-128:...` of these bytes. Header and tensors together cover the whole
            file, so that tensors can be verified in parallel or alone.
        codec: how tensors became bytes; `safetensors`.
    """

    name: str
    part: str
    size_bytes: int
    digest: str
    header_size_bytes: int
    header_digest: str
    codec: str = "safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentLink:
    """Where the weights of a checkpoint came from.

    Attributes:
        kind: `fresh` (first checkpoint of a new model), `checkpoint`, `import` or `unknown`.
        exp_hash: experiment of the parent checkpoint; None unless `kind` is `checkpoint`.
        step: step of the parent checkpoint.
        revision: revision of the parent checkpoint.
        manifest_digest: `sha256:...` of the manifest of the parent checkpoint.
        via: experiments that were current since the parent, in order, also those that saved nothing.
        exact: True if no other experiment was current since the parent, None if unknown.
    """

    kind: str
    exp_hash: str | None = None
    step: int | None = None
    revision: int | None = None
    manifest_digest: str | None = None
    via: tuple[str, ...] = ()
    exact: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("fresh", "checkpoint", "import", "unknown"):
            raise FormatError(f"unknown kind of parent {self.kind!r}")


def parse_utc(text: str) -> datetime:
    """Return the aware datetime of an ISO 8601 text that has an offset.

    Raises: FormatError.
    """
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{text!r} is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        raise FormatError(f"{text!r} has no UTC offset")
    return moment
