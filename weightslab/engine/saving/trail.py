"""The trail: what the loop told of the first steps after a checkpoint. Free of torch.

It is saved with the next checkpoint, so that these steps can be taken again and compared bit by bit.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TRAIL", "StepRecord", "Trail", "plain_number", "trail_from_tree"]

TRAIL: Final = "trail"  # its place in the training state
_LIMIT: Final = 32  # steps; some 100 bytes each in a manifest
_SHOWN: Final = 4  # UIDs of a batch in words; enough to know it by


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What is known of one step.

    Attributes:
        step: the step.
        metrics: name -> number, as told to `manager.step`.
        uids: `xxh3-128:...` of the UIDs of its batches; None if they are unknown.
        shown: the first of these UIDs in words; only of a step that was taken just now.
    """

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    uids: str | None = None
    shown: str = ""

    def to_tree(self) -> dict[str, Any]:
        """Return it as it is saved."""
        return {"step": self.step, "metrics": self.metrics, "uids": self.uids}

    @classmethod
    def from_tree(cls, tree: Any) -> StepRecord:
        """Read what `to_tree` returned.

        Raises: FormatError.
        """
        if isinstance(tree, dict) and set(tree) == {"step", "metrics", "uids"}:
            step, metrics, uids = tree["step"], tree["metrics"], tree["uids"]
            are_numbers = isinstance(metrics, dict) and all(
                type(number) in (int, float) for number in metrics.values()
            )
            if type(step) is int and are_numbers and isinstance(uids, (str, type(None))):
                return cls(step=step, metrics=metrics, uids=uids)
        raise FormatError(f"the record of a step is {tree!r:.80}, which is no such record")


class Trail:
    """The first steps after a checkpoint, in order.

    A step costs a microsecond; what takes longer is done when a checkpoint is saved.

    Args:
        limit: how many steps are kept; those after them are not.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._exp_hash = ""
        self._last = -1
        self._is_saved = False
        self._told: list[tuple[int, Any, Any]] = []
        self._records: list[StepRecord] = []
        self.is_open = True

    @property
    def is_empty(self) -> bool:
        """No step was noted since the last checkpoint."""
        return self._is_saved or not (self._told or self._records)

    @property
    def last_step(self) -> int | None:
        """The step noted last; None before the first."""
        return self._last if self._told or self._records else None

    def begin(self, records: Iterable[StepRecord] = (), exp_hash: str = "") -> None:
        """Begin anew behind a checkpoint that was loaded.

        Args:
            records: the trail that led to it: saved again with it, if it is saved again.
            exp_hash: its experiment.
        """
        self._told, self._records = [], list(records)
        self._exp_hash, self._is_saved, self.is_open = exp_hash, True, True
        self._last = self._records[-1].step if self._records else -1

    def note_saved(self) -> None:
        """Begin anew with the next step; until then this trail stays, for saving the step again."""
        self._is_saved = self.is_open = True

    def note(self, exp_hash: str, step: int, metrics: Any, batches: Any) -> None:
        """Note a step; look at `is_open` before, which is False where it is not kept any more.

        Args:
            exp_hash: the current experiment; the steps of another one are forgotten.
            step: the step; of a step that was noted before, and all after it, the trail is
                forgotten: the loop was rewound.
            metrics: mapping of name -> number, or None.
            batches: the UIDs, or objects with `uids()`, one for each sampler; None: unknown.
        """
        told = self._told
        if self._is_saved or exp_hash != self._exp_hash or step <= self._last:
            told = self._told = []
            self._records, self._exp_hash, self._is_saved = [], exp_hash, False
        if isinstance(metrics, Mapping):  # what is none is refused by the save
            metrics = {name: _kept(value) for name, value in metrics.items()}
        else:
            metrics = None
        told.append((step, metrics, batches))
        self._last = step
        self.is_open = len(told) + len(self._records) < self._limit

    def records(self, exp_hash: str, step: int | None = None) -> list[StepRecord]:
        """Return the trail of an experiment up to a step, without what is no number."""
        if exp_hash != self._exp_hash:
            return []
        self._records += [_record(*each) for each in self._told]
        self._told = []
        return [r for r in self._records if step is None or r.step <= step]


def _kept(value: Any) -> Any:
    """Keep a number as it is now: a tensor may be added to in place."""
    detach = getattr(value, "detach", None)
    return value if detach is None else detach().clone()


def _record(step: int, metrics: Mapping[str, Any] | None, batches: Any) -> StepRecord:
    found = {name: plain_number(value) for name, value in (metrics or {}).items()}
    numbers_told = {n: v for n, v in found.items() if v is not None and isinstance(n, str)}
    if batches is None:
        return StepRecord(step=step, metrics=numbers_told)
    lists = [list(batch.uids() if hasattr(batch, "uids") else batch) for batch in batches]
    text = ", ".join(
        f"{str(uids[:_SHOWN])[:-1]}{', ...' * (len(uids) > _SHOWN)}]" for uids in lists
    )
    digest = digest_bytes(json.dumps(lists).encode())
    return StepRecord(step=step, metrics=numbers_told, uids=digest, shown=text)


def plain_number(value: Any) -> float | None:
    """Return a number of Python, NumPy or a tensor without dimensions as int or float; else None."""
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        return None
    return int(number) if isinstance(number, numbers.Integral) else float(number)


def trail_from_tree(tree: Any) -> list[StepRecord]:
    """Return the trail of a checkpoint, as decoded from its training state; None: it has none.

    Raises: FormatError.
    """
    steps = [] if tree is None else tree.get("steps") if isinstance(tree, dict) else None
    if not isinstance(steps, list):
        raise FormatError(f"the trail of a checkpoint is {tree!r:.80}, which is no trail")
    return [StepRecord.from_tree(step) for step in steps]
