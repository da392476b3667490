"""Replay: steps that were taken again, held against what was recorded of them. Free of torch."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.saving.trail import StepRecord

__all__ = ["ReplayReport", "first_difference", "state_difference"]

_SHOWN: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What came of steps that were taken again.

    Attributes:
        from_step: the checkpoint they began from; None if there was none to begin from.
        to_step: the step that was reached.
        num_compared: steps of which metrics or UIDs of batches were recorded, and compared.
        state_compared: the checkpoint that is resumed was reached, and every tensor and value of its
            state was compared.
        difference: the first difference in words; None if there is none.
        why_not: why nothing could be compared; None if something was.
    """

    from_step: int | None = None
    to_step: int | None = None
    num_compared: int = 0
    state_compared: bool = False
    difference: str | None = None
    why_not: str | None = None

    def __str__(self) -> str:
        """Return a line for people."""
        if self.why_not is not None:
            return f"nothing was verified: {self.why_not}"
        told = f"steps {self.from_step} to {self.to_step} again: {self.num_compared} compared"
        told += ", the state at the end too" if self.state_compared else ""
        return f"{told}; {self.difference or 'no difference'}"


def first_difference(recorded: Sequence[StepRecord], again: Sequence[StepRecord]) -> str | None:
    """Return the first difference between records of the same steps; None if there is none."""
    earlier = {record.step: record for record in recorded}
    for now in again:
        then = earlier.get(now.step)
        if then is None:
            continue
        for what in (_uids_difference(then, now), *_metric_differences(then, now)):
            if what is not None:
                return f"step {now.step}: {what}"
    return None


def _uids_difference(then: StepRecord, now: StepRecord) -> str | None:
    if then.uids == now.uids or None in (then.uids, now.uids):
        return None
    return f"another batch; now it is {now.shown}"


def _metric_differences(then: StepRecord, now: StepRecord) -> Iterator[str]:
    for name in sorted(then.metrics.keys() & now.metrics.keys()):
        was, is_now = then.metrics[name], now.metrics[name]
        if _bits(was) != _bits(is_now):
            yield f"{name} was {was!r}, now it is {is_now!r}"


def _bits(number: float) -> object:
    """Return what is equal for equal numbers alone: NaN is itself, 0.0 is not -0.0."""
    return number if isinstance(number, int) else struct.pack("<d", number)


def state_difference(
    manifest: Manifest, content: Mapping[str, Any], ignored: Collection[str]
) -> str | None:
    """Return the first difference between a checkpoint and a state; None if there is none.

    Args:
        manifest: the checkpoint.
        content: `Manifest.content` of the state as it is now.
        ignored: entries of the training state that are told, not trained.
    """
    then = manifest.content()
    for part in then["parts"]:
        prefix = f"{part}/"
        names = {k for side in (then, content) for k in side["tensors"] if k.startswith(prefix)}
        for name in sorted(names):
            if then["tensors"].get(name) != content["tensors"].get(name):
                return f"step {manifest.name.step}: the tensor {name} differs"
    before, now = ({**side["state"]} for side in (then, content))
    for side in (before, now):
        if isinstance(side.get("training"), dict):
            side["training"] = {k: v for k, v in side["training"].items() if k not in ignored}
    place = _find_place(before, now, "")
    return None if place is None else f"step {manifest.name.step}: {place}"


def _find_place(then: Any, now: Any, path: str) -> str | None:
    """Return where two trees of JSON differ first, and how."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            found = _find_place(then.get(key), now.get(key), f"{path}/{key}" if path else key)
            if found is not None:
                return found
        return None
    if type(then) is type(now) and then == now:
        return None
    return f"{path} was {str(then)[:_SHOWN]}, now it is {str(now)[:_SHOWN]}"
