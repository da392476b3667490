"""A diagnosis: what is wrong with a root, where, how bad it is, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ERROR", "NOTE", "WARNING", "Diagnosis", "Problem"]

ERROR: Final = "error"
WARNING: Final = "warning"
NOTE: Final = "note"
_ORDER: Final = (ERROR, WARNING, NOTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, or that a person should know.

    Attributes:
        severity: `error` (something is lost or cannot be used), `warning` (something is in the way),
            `note` (good to know).
        kind: one word for programs, e.g. `hold`, `manifest`; the guide lists them.
        where: the key in the root, or what is outside of it.
        what: what is wrong, in words.
        mend: what to do, a call or a command.
        is_mendable: `root.doctor(mend=True)` does it.
    """

    severity: str
    kind: str
    where: str
    what: str
    mend: str
    is_mendable: bool = False

    def __post_init__(self) -> None:
        if self.severity not in _ORDER:
            raise ValueError(f"a severity is one of {', '.join(_ORDER)}, not {self.severity!r}")

    @property
    def subject(self) -> tuple[str, str]:
        """What is equal for the same problem in two diagnoses."""
        return self.kind, self.where

    def __str__(self) -> str:
        """Return one line, in which characters that a screen would obey are escaped."""
        text = f"{self.severity}: {self.where}: {self.what}; {self.mend}"
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `root.doctor` found.

    Iterates over its problems, errors first.

    Attributes:
        problems: what is wrong; after mending what is left.
        mended: what was wrong and is not any more.
        failed: what could not be mended, and why.
        num_experiments, num_checkpoints: what was looked at.
    """

    problems: tuple[Problem, ...] = ()
    mended: tuple[Problem, ...] = ()
    failed: tuple[str, ...] = ()
    num_experiments: int = 0
    num_checkpoints: int = 0

    @property
    def is_healthy(self) -> bool:
        """True if there are neither errors nor warnings."""
        return all(problem.severity == NOTE for problem in self.problems)

    def __iter__(self) -> Iterator[Problem]:
        """Yield the problems."""
        return iter(self.problems)

    def __len__(self) -> int:
        """Return how many problems there are."""
        return len(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "is_healthy": self.is_healthy,
            "num_experiments": self.num_experiments,
            "num_checkpoints": self.num_checkpoints,
            "problems": [_fields(problem) for problem in self.problems],
            "mended": [_fields(problem) for problem in self.mended],
            "failed": list(self.failed),
        }

    def __str__(self) -> str:
        """Return a line of numbers, and one for each problem and for what was mended."""
        counts = [(s, sum(p.severity == s for p in self.problems)) for s in _ORDER]
        told = (
            ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts if n)
            or "nothing is wrong"
        )
        head = f"{self.num_experiments:,} experiments, {self.num_checkpoints:,} checkpoints: {told}"
        lines = [head, *(f"  {problem}" for problem in self.problems)]
        lines += [f"  mended: {str(problem).partition(': ')[2]}" for problem in self.mended]
        return "\n".join([*lines, *(f"  not mended: {text!r}" for text in self.failed)])


def in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    """Return problems, the worst first, those of one experiment together."""
    return tuple(
        sorted(problems, key=lambda p: (_ORDER.index(p.severity), p.where, p.kind, p.what))
    )


def _fields(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in problem.__slots__}
