"""`ExperimentHashGenerator`: the hash of (model, config, active samples), without any files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightslab.engine import compare
from weightslab.engine.compare import Description
from weightslab.engine.identity.canonical import combine, exp_hash_of
from weightslab.engine.identity.config import ConfigDescription, describe_config
from weightslab.engine.identity.library import checked_libraries
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository.experiment import Components
from weightslab.engine.values import Explanation

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExperimentHashGenerator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """The three components of one hash; None: not given."""

    model: Any
    config: ConfigDescription | None
    data: SampleSet | None

    def digests(self) -> dict[str, str | None]:
        parts = {"model": self.model, "config": self.config, "data": self.data}
        return {name: part.digest if part is not None else None for name, part in parts.items()}

    def exp_hash(self) -> str:
        return exp_hash_of(combine(**self.digests()))

    def side(self) -> Description:
        """Return it as one side of a comparison."""
        return Description(
            components=Components(**self.digests()),
            model=None if self.model is None else self.model.document,
            config=None if self.config is None else self.config.plain,
            samples=self.data,
            excluded=() if self.config is None else self.config.excluded,
            weak=() if self.model is None else self.model.weak,
        )


class ExperimentHashGenerator:
    """Computes experiment hashes and says what changed between the last two.

    A component that is not given is `absent`: a hash of model and config is not the hash of model,
    config and an empty set of samples. Not thread-safe.

    Args:
        config_exclude: full dotted config paths (`data.dir`) that do not count.
        libraries: top-level packages whose classes are known by name and constructor arguments, like
            those of torch, and not by their code.
    Raises: TypeError, ValueError.
    """

    def __init__(
        self, *, config_exclude: Sequence[str] = (), libraries: Sequence[str] = ()
    ) -> None:
        self._libraries = checked_libraries(libraries)
        self._exclude = config_exclude if isinstance(config_exclude, str) else (*config_exclude,)
        self._last: _Described | None = None
        self._before_last: _Described | None = None

    def generate_hash(
        self, model: Any = None, config: Any = None, active_data_uids: Any = None
    ) -> str:
        """Return the 16-digit experiment hash and remember it as the last one.

        Args:
            model: a module, or a dict of name -> module.
            config: dict, Namespace, dataclass, pydantic or OmegaConf object.
            active_data_uids: any collection of sample UIDs, or a `SampleSet`.
        Raises: IdentityError for what cannot be described; nothing is remembered then.
        """
        described = self._describe(model, config, active_data_uids)
        self._before_last, self._last = self._last, described
        return described.exp_hash()

    def has_changed(
        self, model: Any = None, config: Any = None, active_data_uids: Any = None
    ) -> tuple[bool, set[str]]:
        """Compare with the last generated hash, without side effects.

        Returns: whether anything differs, and the names of what does (`model`, `config`, `data`).
            Before the first hash everything that is given has changed.
        """
        new = self._describe(model, config, active_data_uids).digests()
        old = self._last.digests() if self._last is not None else dict.fromkeys(new)
        changed = {name for name in new if new[name] != old[name]}
        return bool(changed) or self._last is None, changed

    def get_last_hash(self) -> str | None:
        """Return the last generated hash, None before the first."""
        return self._last.exp_hash() if self._last is not None else None

    def get_component_hashes(self) -> dict[str, str | None]:
        """Return the full digests of `model`, `config`, `data` (None: absent) and `combined`.

        `combined` is what `get_last_hash()` returns. Before the first hash all are None.
        """
        if self._last is None:
            return dict.fromkeys(("model", "config", "data", "combined"))
        return {**self._last.digests(), "combined": self._last.exp_hash()}

    def explain(self) -> Explanation:
        """Return what changed between the last two generated hashes; empty if there are not two."""
        old, new = self._before_last, self._last
        if old is None or new is None:
            return Explanation(old=None, new=self.get_last_hash())
        return Explanation(
            old=old.exp_hash(),
            new=new.exp_hash(),
            changes=tuple(compare.diff(old.side(), new.side())),
            not_counted=tuple(compare.not_counted(old.side(), new.side())),
        )

    def _describe(self, model: Any, config: Any, uids: Any) -> _Described:
        described_model = None
        if model is not None:
            from weightslab.engine.identity.architecture import describe_model

            described_model = describe_model(model, libraries=self._libraries)
        return _Described(
            model=described_model,
            config=None if config is None else describe_config(config, exclude=self._exclude),
            data=None if uids is None else _frozen_set(uids),
        )


def _frozen_set(uids: Any) -> SampleSet:
    found = uids if isinstance(uids, SampleSet) else SampleSet.from_uids(uids)
    return found.frozen()
