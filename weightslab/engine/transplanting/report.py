"""The report of a transplant: where each tensor went, and what was left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weightslab.engine.screen import MAX_LINES, clean, portions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Move", "OptimizerMoves", "TransplantReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One tensor of the checkpoint and the one that it went to.

    Names are state_dict keys without wrapper segments; in a dict of models `{name}/` stands before.

    Attributes:
        source: its name in the checkpoint.
        target: its name in the model.
        by: `name`, or `structure` where the module has another path.
        change: what became of it where it did not fit as it is, such as `[10, 128] -> [12, 128]` or
            `float32 -> bfloat16`; empty for a plain copy.
    """

    source: str
    target: str
    by: str = "name"
    change: str = ""

    def __str__(self) -> str:
        arrow = self.target if self.source == self.target else f"{self.source} -> {self.target}"
        return f"{arrow}: {self.change}" if self.change else arrow


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerMoves:
    """The state that one optimizer was given; its settings (learning rate, ...) stay as they are.

    Attributes:
        moved: parameters of the model whose state was taken as it was saved.
        sliced: those whose state was sliced or padded with zeros, as their values were.
        fresh: those without a saved state; what the optimizer had of them, mostly nothing, stays.
        unused: parameters of the checkpoint whose state went nowhere.
    """

    moved: tuple[str, ...] = ()
    sliced: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransplantReport:
    """What a transplant did, or would do, with each tensor of the checkpoint and of the model.

    Attributes:
        checkpoint: `{exp_hash}_step_000100`, where the weights come from.
        copied: tensors of the model that have the values of one of the checkpoint now.
        sliced: those that took the part that both have, and kept their own values beyond.
        fresh: name -> why: those that kept all their values.
        unused: tensors of the checkpoint that went nowhere.
        optimizers: name of the live optimizer -> what became of its state.
        problems: what could not be read and was not needed.
        dry_run: nothing was changed.
    """

    checkpoint: str
    copied: tuple[Move, ...] = ()
    sliced: tuple[Move, ...] = ()
    fresh: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    optimizers: Mapping[str, OptimizerMoves] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def is_complete(self) -> bool:
        """True if every tensor of the model was copied, and every one of the checkpoint used."""
        return not (self.sliced or self.fresh or self.unused)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as plain JSON values."""
        return {
            "checkpoint": self.checkpoint,
            "copied": [_fields(move) for move in self.copied],
            "sliced": [_fields(move) for move in self.sliced],
            "fresh": dict(self.fresh),
            "unused": list(self.unused),
            "optimizers": {
                name: {key: list(value) for key, value in _fields(moves).items()}
                for name, moves in self.optimizers.items()
            },
            "problems": list(self.problems),
            "dry_run": self.dry_run,
        }

    def __str__(self) -> str:
        """Return at most 40 lines of 100 columns; what is left out is counted."""
        verb = "would go" if self.dry_run else "went"
        counts = (
            f"{len(self.copied)} tensors copied, {len(self.sliced)} sliced, {len(self.fresh)} fresh"
        )
        head = f"{self.checkpoint} {verb} into the model: {counts}, {len(self.unused)} unused"
        renamed = [str(m) for m in self.copied if m.source != m.target or m.change]
        sections = [
            ("copied under another name or dtype", renamed),
            ("sliced or padded", [str(move) for move in self.sliced]),
            ("fresh", [f"{name}: {why}" for name, why in self.fresh.items()]),
            ("unused", list(self.unused)),
            *((f"optimizer {name}", _told(moves)) for name, moves in self.optimizers.items()),
            ("problems", list(self.problems)),
        ]
        return _screen(head, [section for section in sections if section[1]])


def _fields(record: Move | OptimizerMoves) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _told(moves: OptimizerMoves) -> list[str]:
    parts = [f"state of {len(moves.moved)} parameters moved, of {len(moves.sliced)} sliced"]
    for word, names in (("without saved state", moves.fresh), ("not used", moves.unused)):
        if names:
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""  # noqa: PLR2004
            parts.append(f"{word}: {', '.join(names[:4])}{more}")
    return parts


def _screen(head: str, sections: Sequence[tuple[str, list[str]]]) -> str:
    given = portions([len(lines) for _, lines in sections], MAX_LINES - 1 - len(sections))
    shown = [head]
    for (title, lines), share in zip(sections, given, strict=True):
        kept = lines if len(lines) <= share else lines[: max(share - 1, 0)]
        shown += [f"{title}:", *(f"  {line}" for line in kept)]
        if len(kept) < len(lines) and share:
            shown.append(f"  and {len(lines) - len(kept):,} more")
    return "\n".join(clean(line) for line in shown[:MAX_LINES])
