"""Interleaved timing: each round in another order; medians, and ratios to one of them.

The order is shuffled, so that nobody always comes after the one that leaves most work behind.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Candidate:
    """One way to do the work.

    Attributes:
        name: shown in the table.
        run: does the work once; called with the number of the round.
        before: prepares a round; not timed.
        after: cleans up after a round; not timed.
    """

    name: str
    run: Callable[[int], object]
    before: Callable[[int], object] = lambda _: None
    after: Callable[[int], object] = lambda _: None


@dataclass
class Row:
    """Figures of one candidate over all rounds, in seconds."""

    name: str
    wall: float
    cpu: float
    best: float
    worst: float


def interleave(candidates: list[Candidate], *, rounds: int, warmup: int = 1) -> list[Row]:
    """Run all candidates in turn, `rounds` times after `warmup` uncounted ones; medians per row."""
    wall: dict[str, list[float]] = {c.name: [] for c in candidates}
    cpu: dict[str, list[float]] = {c.name: [] for c in candidates}
    order = random.Random(0)
    for number in range(warmup + rounds):
        for candidate in order.sample(candidates, len(candidates)):
            candidate.before(number)
            gc.collect()
            cpu_start, start = time.process_time(), time.perf_counter()
            candidate.run(number)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            candidate.after(number)
            if number >= warmup:
                wall[candidate.name].append(seconds)
                cpu[candidate.name].append(cpu_seconds)
    return [
        Row(
            c.name,
            statistics.median(wall[c.name]),
            statistics.median(cpu[c.name]),
            min(wall[c.name]),
            max(wall[c.name]),
        )
        for c in candidates
    ]


def table(title: str, rows: list[Row], *, relative_to: str) -> str:
    """Render rows as a Markdown table with the ratio of medians to one of them."""
    base = next(row.wall for row in rows if row.name == relative_to)
    lines = [
        f"### {title}",
        "",
        f"| way | median | x {relative_to} | CPU | min to max |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.name} | {_ms(r.wall)} | {r.wall / base:.2f} | {_ms(r.cpu)} "
        f"| {_ms(r.best)} to {_ms(r.worst)} |"
        for r in rows
    ]
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
