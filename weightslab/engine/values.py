"""Values that cross the floors of the engine: frozen, validated, without behaviour."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import FormatError
from weightslab.engine.screen import screen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Change",
    "Explanation",
    "FileRecord",
    "HashUpdate",
    "MetricRecord",
    "ParentLink",
    "TensorRecord",
    "parse_utc",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two experiments.

    Attributes:
        component: `model`, `config` or `data`; `environment` for what is in no identity.
        kind: `added`, `removed`, `replaced`, `moved` or `changed`.
        path: module path, dotted config key, or `samples`.
        old: the old value as plain JSON; None where there was none.
        new: the new value as plain JSON; None where there is none.
        text: one line for people, e.g. `fc2: Linear(128 -> 10) became Linear(256 -> 10)`.
        detail: further lines, complete: a unified diff of source, what follows from the change.
        paths: all modules that changed in this way, where they are more than one.
    """

    component: str
    kind: str
    path: str
    old: Any = None
    new: Any = None
    text: str
    detail: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

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
        """Return the hash and what changed: at most 40 lines of 100 columns."""
        head = f"{self.exp_hash} ({'new' if self.is_new else 'known'})"
        if self.compared_with and self.changes:
            head += f", compared with {self.compared_with}:"
        return screen(head, self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What tells two experiments apart. Iterates over its changes; empty if they are one.

    Attributes:
        old: hash of the one; None if there is none yet.
        new: hash of the other; None if there is none yet.
        changes: each difference of the identities once: model, then config, then data.
        not_counted: differences that are in no identity: config keys that do not count, versions of
            libraries, code that is known as byte-code only.
        problems: descriptions that could not be read; what they hold is told by its digest alone.
    """

    old: str | None
    new: str | None
    changes: tuple[Change, ...] = ()
    not_counted: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Change]:
        """Yield the changes."""
        return iter(self.changes)

    def __len__(self) -> int:
        """Return the number of changes."""
        return len(self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole explanation as plain JSON values."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def __str__(self) -> str:
        """Return at most 40 lines of 100 columns; what is left out is counted."""
        if self.old is None or self.new is None:
            return "there are no two hashes to compare yet"
        count = len(self.changes)
        told = f"{count:,} change{'' if count == 1 else 's'}" if count else "no differences"
        beside = [*self.not_counted, *self.problems]
        return screen(f"{self.old} -> {self.new}: {told}", self.changes, beside)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord:
    """Metrics of one step, as `log_metrics` was given them.

    Attributes:
        exp_hash: experiment that was current.
        step: the step.
        created_at: aware UTC time of the call.
        metrics: name -> number; may be NaN or infinite.
    """

    exp_hash: str
    step: int
    created_at: datetime
    metrics: dict[str, float]


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
