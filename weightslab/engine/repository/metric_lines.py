"""Metric lines: what stands in `logs/metrics.jsonl`, written and read. Free of torch.

    {"time": "2026-01-01T00:00:00+00:00", "exp_hash": "...", "step": 10, "metrics": {"loss": 0.5}}

Numbers that JSON has no word for are tagged as everywhere: `{"$float": "nan"}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError
from weightslab.engine.jsonform import decode, encode
from weightslab.engine.storage.journal import LocalJournal
from weightslab.engine.values import MetricRecord, parse_utc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["METRICS_FILE", "read_metrics", "to_line"]

METRICS_FILE: Final = "logs/metrics.jsonl"


def to_line(record: MetricRecord) -> dict[str, Any]:
    """Return a record as plain JSON."""
    return {
        "time": record.created_at.isoformat(),
        "exp_hash": record.exp_hash,
        "step": record.step,
        "metrics": encode(record.metrics, path="metrics"),
    }


def read_metrics(root: Path, exp_hash: str | None, name: str | None) -> Iterator[MetricRecord]:
    """Yield the records of a root in the order they were appended.

    Lines that were cut off, or that say something else, are passed over.

    Args:
        root: the root.
        exp_hash: only this experiment.
        name: only this metric, and only records that have it.
    """
    for line in LocalJournal(root / METRICS_FILE).read():
        record = _parse(line)
        if record is None or exp_hash not in (None, record.exp_hash):
            continue
        if name is None:
            yield record
        elif name in record.metrics:
            yield MetricRecord(
                exp_hash=record.exp_hash,
                step=record.step,
                created_at=record.created_at,
                metrics={name: record.metrics[name]},
            )


def _parse(line: dict[str, Any]) -> MetricRecord | None:
    try:
        exp_hash, step, metrics = line["exp_hash"], line["step"], decode(line["metrics"])
        created_at = parse_utc(line["time"])
    except (KeyError, FormatError):
        return None
    is_right = isinstance(exp_hash, str) and type(step) is int and isinstance(metrics, dict)
    if not is_right or not all(type(value) in (int, float) for value in metrics.values()):
        return None
    return MetricRecord(exp_hash=exp_hash, step=step, created_at=created_at, metrics=metrics)
