"""The report of a load: what was taken from the checkpoint, and what was not."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["LoadReport"]

_SHOWN = 8  # names of each kind in the text; the attributes have all


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a load did with each entry of the checkpoint and of the live objects.

    Names are state_dict keys without wrapper prefixes; in a dict of models `{name}/` stands before.

    Attributes:
        loaded: entries of the models that have the values of the checkpoint now.
        missing: entries of the models that the checkpoint does not have; they kept their values.
        unexpected: entries of the checkpoint that the models do not have; left out.
        shape_changes: name -> text such as `float32 [10, 128] -> float32 [10, 256]` (checkpoint ->
            model) of entries that are in both and do not fit; the model kept its values.
        casts: name -> text such as `float32 -> bfloat16` of loaded entries that were converted.
        optimizers: names of the optimizers that were restored, as they were saved.
        optimizers_left_out: name -> why the saved state of this optimizer was not restored.
        tracked: names of the tracked objects that were restored.
        tracked_left_out: name -> why the saved state of this object was not restored.
        random_restored: the random state of this process is that of the checkpoint now.
        verify: what was verified, `full` or `size`.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape_changes: dict[str, str] = field(default_factory=dict)
    casts: dict[str, str] = field(default_factory=dict)
    optimizers: tuple[str, ...] = ()
    optimizers_left_out: dict[str, str] = field(default_factory=dict)
    tracked: tuple[str, ...] = ()
    tracked_left_out: dict[str, str] = field(default_factory=dict)
    random_restored: bool = False
    verify: str = "full"

    @property
    def is_complete(self) -> bool:
        """True if models and checkpoint had the same entries and all were loaded."""
        return not (self.missing or self.unexpected or self.shape_changes)

    def __str__(self) -> str:
        """Return a line of numbers, and one for each kind of entry that was not loaded."""
        lines = [f"{len(self.loaded)} entries loaded, {len(self.casts)} of them cast"]
        lines += [
            f"{title}: {_some(names)}"
            for title, names in (
                ("missing in the checkpoint", self.missing),
                ("not in the model", self.unexpected),
                ("do not fit", [f"{k} ({v})" for k, v in self.shape_changes.items()]),
                ("optimizers restored", self.optimizers),
                ("optimizers left out", [f"{k}: {v}" for k, v in self.optimizers_left_out.items()]),
                ("tracked objects restored", self.tracked),
                (
                    "tracked objects left out",
                    [f"{k}: {v}" for k, v in self.tracked_left_out.items()],
                ),
                ("random state", ["restored"] * self.random_restored),
            )
            if names
        ]
        return "\n".join(lines)


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
