"""What a comparison says: frozen records that turn into plain JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.comparing.shown import to_html, to_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightslab.engine.comparing.numbers import Sums
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.values import Change

__all__ = [
    "ArchitectureDiff",
    "Comparison",
    "DataDiff",
    "ModuleDiff",
    "MomentDiff",
    "Row",
    "Side",
    "TensorDiff",
    "TensorNumbers",
    "WeightsDiff",
]

MAX_LISTED_UIDS: Final = 1000  # a report is a page of JSON, not a second copy of the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the things compared.

    Attributes:
        reference: as it was given.
        exp_hash: the experiment, in full.
        step: the checkpoint whose metrics and tensors stand for it; None without any.
        revision: of that step; None without any.
        is_experiment: the experiment was named, and the checkpoint is its newest.
        label: what a person sees: `3f2a9c1b@100`.
    """

    reference: str
    exp_hash: str
    step: int | None = None
    revision: int | None = None
    is_experiment: bool = False

    @property
    def label(self) -> str:
        """`3f2a9c1b`, `3f2a9c1b@100`, `3f2a9c1b@100.r2`."""
        if self.is_experiment or self.step is None:
            return self.exp_hash[:8]
        revision = f".r{self.revision}" if self.revision not in (None, 1) else ""
        return f"{self.exp_hash[:8]}@{self.step}{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One value of each side.

    Attributes:
        path: dotted key.
        values: as plain JSON, by side; None where there is none.
        present: by side: whether it has the key; None where that side could not be read.
        counts: False for what is in no identity (excluded config keys, environment).
    """

    path: str
    values: tuple[Any, ...]
    present: tuple[bool | None, ...]
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureDiff:
    """What changed in the model from the first side to another; positions in `Comparison.sides`."""

    old: int
    new: int
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiff:
    """Which samples the first side and another do not share.

    Attributes:
        old, new: positions in `Comparison.sides`.
        num_old, num_new: active samples; None for a side without samples.
        added, removed: the samples, all of them.
        by_label: facet -> value -> [removed, added]: for facets that count (`labels`, `tags`).
        relabelled: facet -> samples of both sides whose value differs.
    """

    old: int
    new: int
    num_old: int | None
    num_new: int | None
    added: SampleSet
    removed: SampleSet
    by_label: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    relabelled: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values, with up to 1,000 UIDs of either kind."""
        return {
            "old": self.old,
            "new": self.new,
            "num_old": self.num_old,
            "num_new": self.num_new,
            "num_added": len(self.added),
            "num_removed": len(self.removed),
            "added": _first(self.added),
            "removed": _first(self.removed),
            "by_label": plain(self.by_label),
            "relabelled": dict(self.relabelled),
        }


def _first(samples: SampleSet) -> list[int | str]:
    return [uid for uid, _ in zip(samples, range(MAX_LISTED_UIDS), strict=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNumbers:
    """How far two tensors, or all tensors of a module, lie apart.

    Norms, cosine and differences are over the items that are finite on both sides; the others are
    counted. None: not defined (a side is missing, has another shape, or is zero).

    Attributes:
        num_items: items compared.
        l2_old, l2_new, l2_difference: Euclidean norms.
        relative: `l2_difference / l2_old`.
        cosine: of the angle between them; of complex items its real part.
        max_abs: the largest absolute difference of an item.
        fraction_changed: of the items, those whose value differs; -0 is 0, and NaN is NaN.
        num_nan_old, num_inf_old, num_nan_new, num_inf_new: items that are no finite numbers.
    """

    num_items: int
    l2_old: float | None
    l2_new: float | None
    l2_difference: float | None
    relative: float | None
    cosine: float | None
    max_abs: float | None
    fraction_changed: float | None
    num_nan_old: int = 0
    num_inf_old: int = 0
    num_nan_new: int = 0
    num_inf_new: int = 0

    @property
    def became_nonfinite(self) -> bool:
        """The new side has more NaN, or more Inf, than the old one."""
        return self.num_nan_new > self.num_nan_old or self.num_inf_new > self.num_inf_old

    @classmethod
    def of(cls, sums: Sums, *, old: bool = True, new: bool = True) -> TensorNumbers:
        """Turn sums into numbers.

        Args:
            sums: what was added up.
            old, new: which sides were read; without both there is nothing to relate.
        """
        both = old and new and sums.items > 0
        norms = [_root(square) for square in (sums.old_square, sums.new_square)]
        between = _root(sums.difference_square) if both else None
        lengths = None if None in norms else norms[0] * norms[1]  # type: ignore[operator]
        cosine = sums.product / lengths if both and lengths else None
        return cls(
            num_items=sums.items,
            l2_old=norms[0] if old else None,
            l2_new=norms[1] if new else None,
            l2_difference=between,
            relative=_ratio(between, norms[0]),
            cosine=None if cosine is None else max(-1.0, min(1.0, cosine)),
            max_abs=_finite(sums.max_abs) if both else None,
            fraction_changed=sums.changed / sums.items if both else None,
            num_nan_old=sums.old_nan,
            num_inf_old=sums.old_inf,
            num_nan_new=sums.new_nan,
            num_inf_new=sums.new_inf,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _root(square: float) -> float | None:
    return math.sqrt(square) if math.isfinite(square) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    if part is None or whole is None:
        return None
    if not whole:
        return None if part else 0.0
    return _finite(part / whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDiff:
    """One tensor that is not the same on both sides.

    Attributes:
        name: on the new side; on the old one where it is gone.
        kind: `changed`, `reshaped` (another shape), `added`, `removed`, `moved` (the same bytes under
            another name), `unreadable` (damaged, or of a dtype without numbers).
        old_name: its name on the old side where that is another.
        dtype_old, dtype_new: safetensors names; None where there is none.
        shape_old, shape_new: None where there is none.
        numbers: None where nothing was read.
    """

    name: str
    kind: str
    old_name: str | None = None
    dtype_old: str | None = None
    dtype_new: str | None = None
    shape_old: tuple[int, ...] | None = None
    shape_new: tuple[int, ...] | None = None
    numbers: TensorNumbers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleDiff:
    """All tensors in and below a module that changed, as one.

    Attributes:
        path: of the module; empty for the model.
        num_tensors: that both sides have in the same shape.
        num_changed: of them; the numbers are over these alone, since no other is read.
        numbers: how far they lie apart.
    """

    path: str
    num_tensors: int
    num_changed: int
    numbers: TensorNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentDiff:
    """One kind of state of an optimizer, over all its parameters.

    Attributes:
        optimizer: its name.
        key: `exp_avg`, `momentum_buffer`, ...
        num_tensors: that were read.
        numbers: how far they lie apart; norms alone where only one side has them.
    """

    optimizer: str
    key: str
    num_tensors: int
    numbers: TensorNumbers


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDiff:
    """The tensors of the first side and another.

    Attributes:
        old, new: positions in `Comparison.sides`.
        num_same: tensors whose recorded digests, dtypes and shapes are equal; they are not read.
        tensors: the others, in the order of the model.
        modules: every module with a tensor that changed, outermost first.
        moments: the state of optimizers, where it differs.
        read_bytes: how much was read, and verified, on both sides together.
    """

    old: int
    new: int
    num_same: int = 0
    tensors: tuple[TensorDiff, ...] = ()
    modules: tuple[ModuleDiff, ...] = ()
    moments: tuple[MomentDiff, ...] = ()
    read_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between experiments or checkpoints; `print` shows a screen of it.

    With more than two sides, tables have a column for each, and everything else is told from the
    first side to each of the others.

    Attributes:
        sides: what was compared.
        architecture: what changed in the models, where it did.
        config: the keys that differ, outermost.
        data: which samples differ, where they do.
        weights: of tensors; empty unless asked for.
        optimizers: settings and progress of optimizers that differ.
        metrics: all metrics of the checkpoints.
        environment: versions and facts of the system that differ.
        problems: what could not be read, and so is not compared.
    """

    sides: tuple[Side, ...]
    architecture: tuple[ArchitectureDiff, ...] = ()
    config: tuple[Row, ...] = ()
    data: tuple[DataDiff, ...] = ()
    weights: tuple[WeightsDiff, ...] = ()
    optimizers: tuple[Row, ...] = ()
    metrics: tuple[Row, ...] = ()
    environment: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the whole comparison as plain JSON values; non-finite numbers are texts."""
        found: dict[str, Any] = plain(self)
        for record, side in zip(found["sides"], self.sides, strict=True):
            record["label"] = side.label
        return found

    def __str__(self) -> str:
        """Return at most 40 lines of 100 columns; what is left out is counted."""
        return to_text(self)

    def _repr_html_(self) -> str:
        """Return tables for a notebook; every text is escaped."""
        return to_html(self)


def plain(value: Any) -> Any:
    """Return a value as what JSON has: no NaN, no tuples, texts as keys."""
    found = value
    if isinstance(value, DataDiff):
        found = value.to_dict()
    elif is_dataclass(value):
        found = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    elif isinstance(value, dict):
        found = {str(key): plain(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [plain(item) for item in value]
    elif isinstance(value, float):
        found = value if math.isfinite(value) else str(value)
    elif value is not None and not isinstance(value, (bool, int, str)):
        found = str(value)
    return found


def rows_of(
    sides: Iterable[dict[str, Any] | None], *, only_different: bool, counts: bool
) -> tuple[Row, ...]:
    """Return a table of flat records, one for each side; None for one that could not be read."""
    columns = list(sides)
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column or ()):
        present = tuple(None if c is None else key in c for c in columns)
        values = tuple(None if c is None else plain(c.get(key)) for c in columns)
        read = [(p, v) for p, v in zip(present, values, strict=True) if p is not None]
        if not only_different or any(cell != read[0] for cell in read):
            rows.append(Row(path=key, values=values, present=present, counts=counts))
    return tuple(rows)
