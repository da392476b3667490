"""Tracking: what belongs to a training besides models and optimizers, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.backend import ledgers
from weightslab.engine.errors import NotStorableError
from weightslab.engine.repository.layout import check_label
from weightslab.engine.training.sampler import ResumableSampler
from weightslab.engine.training.state import is_stateful, require_trackable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Tracking"]


class Tracking:
    """The objects whose state is saved with the optimizers: those tracked, and those of the ledger.

    Tracked objects are held strongly: a scheduler that nobody else holds still belongs to the
    training, and a state that is silently absent is worse than an object that lives too long.
    """

    def __init__(self) -> None:
        self._objects: dict[str, Any] = {}

    def change(self, objects: Mapping[str, Any]) -> None:
        """Track each object under its name, in place of what was there; None tracks it no more.

        Raises: TypeError naming an object that cannot be saved and restored, ValueError for a name
            that is no label; nothing is changed then.
        """
        for name, item in objects.items():
            check_label(name, what="the name of a tracked object")
            if item is not None:
                require_trackable(name, item)
        kept = {name: item for name, item in self._objects.items() if name not in objects}
        new = {name: item for name, item in objects.items() if item is not None}
        self._objects = kept | new

    def tracked(self) -> dict[str, Any]:
        """Return name -> object of what was tracked by name."""
        return dict(self._objects)

    def found(self) -> dict[str, Any]:
        """Return `scheduler.{name}` and `dataloader.{name}` of what the ledger holds.

        A data loader without a state of its own stands for its batch sampler or sampler, if that has
        one; without any, it is not here. An object that is tracked by name is not here either.

        Raises: NotStorableError naming a scheduler that has no state.
        """
        found = {}
        for name in ledgers.list_schedulers():
            item = ledgers.find_scheduler(name)
            if item is not None and not is_stateful(item):
                raise NotStorableError(
                    f"the registered scheduler {name!r} has no state_dict and load_state_dict, so it "
                    "cannot be saved and restored",
                    hint=f"give it both, or unregister_scheduler({name!r})",
                )
            found[f"scheduler.{name}"] = item
        for name in ledgers.list_dataloaders():
            found[f"dataloader.{name}"] = _position_of(ledgers.find_dataloader(name))
        known = {id(item) for item in self._objects.values()}
        return {
            name: item for name, item in found.items() if item is not None and id(item) not in known
        }

    def samplers(self) -> list[ResumableSampler]:
        """Return the resumable samplers among both, in the order of their names."""
        everything = sorted(self.everything().items())
        return [item for _, item in everything if isinstance(item, ResumableSampler)]

    def everything(self) -> dict[str, Any]:
        """Return name -> object of both.

        Raises: as `found`.
        """
        return self._objects | self.found()


def _position_of(loader: Any) -> Any:
    """Return what knows where `loader` is in its data: itself, its batch sampler or its sampler."""
    samplers = (getattr(loader, name, None) for name in ("batch_sampler", "sampler"))
    return next((item for item in (loader, *samplers) if is_stateful(item)), None)
