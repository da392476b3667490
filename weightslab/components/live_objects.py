"""Live objects: what was passed to the manager, what the ledger holds, what was given last."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weightslab.backend import ledgers
from weightslab.engine.errors import ObjectNotFoundError
from weightslab.engine.identity.samples import SampleSet, relative_to
from weightslab.engine.repository.layout import check_label

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Given", "LiveObjects", "LoadTarget", "named_models", "named_optimizers", "parts_of"]


class LiveObjects:
    """Resolves the objects a call is about.

    The order is: the argument, the ledger, what was given last. Models and optimizers given last are
    held weakly, so that the manager keeps nobody's weights alive, and so are `SampleSet`s that can change and
    data sets with `active_uids`; configs are small and kept, and so is what the samples were.
    """

    def __init__(self) -> None:
        self._model = Given()
        self._optimizer = Given()
        self._config: Any = None
        self._samples: SampleSet | None = None
        self._data: Callable[[], Any] = _nothing

    # ------------------------------------------------------------ models
    def find_model(self, model: Any = None, name: str | None = None) -> Any:
        """Return the model (or dict of models) meant by the arguments; None if there is none.

        Raises: LedgerError for a name that is not registered, or several models without a name and
            none given before; TypeError for something that is no model.
        """
        if model is not None:
            named_models(model)
            return model
        if name is not None:
            return ledgers.get_model(name)
        last = self.last_model()
        try:
            found = ledgers.find_model()
        except ledgers.LedgerError:
            if last is None:
                raise
            return last
        return last if found is None else found

    def get_model(self, model: Any = None, name: str | None = None) -> Any:
        """Return the model meant by the arguments.

        Raises: ObjectNotFoundError if there is none; the errors of `find_model`.
        """
        found = self.find_model(model, name)
        if found is None:
            raise ObjectNotFoundError(
                "no model: none was passed, none is registered and none was given before",
                hint="pass model=, or register_model('name', model) in weightslab.backend.ledgers",
            )
        return found

    def remember_model(self, model: Any) -> None:
        """Hold `model` weakly as the one given last.

        The optimizer given last is forgotten if this is another model than the one it was given for.
        """
        if not self._model.is_same(model):
            named_models(model)
            self._model.set(model)
            self._optimizer.set(None)

    def last_model(self) -> Any:
        """Return the model given last; None if there was none or it is gone."""
        return self._model.get()

    # ------------------------------------------------------------ config and samples
    def find_config(self, config: Any = None) -> Any:
        """Return the config meant by the argument; None if there is none."""
        if config is None:
            config = ledgers.find_hyperparams()
        return self._config if config is None else config

    def remember_config(self, config: Any) -> None:
        """Hold `config` as the one given last."""
        self._config = config

    def find_samples(self, uids: Any = None) -> SampleSet | None:
        """Return a frozen copy of the samples meant by the argument; None if unknown."""
        source = self._find_data() if uids is None else uids
        if source is None:
            return self._samples
        found = _sample_set(source, with_discarded=True).frozen()
        return found if self._samples is None else relative_to(found, self._samples)

    def remember_samples(self, uids: Any, active: SampleSet | None) -> None:
        """Hold the sample set as the one given last, and a live set or data set `uids` weakly."""
        self._samples = active
        if uids is not None:
            can_change = isinstance(uids, SampleSet) or hasattr(uids, "active_uids")
            self._data = _weak(uids) if can_change else _nothing

    def live_samples(self) -> SampleSet | None:
        """Return the samples of the ledger, else of the set given last, as they are now.

        None if there is neither: UIDs that were given once cannot change. A `SampleSet` is
        returned as it is, without a copy, so its digest costs nothing.
        """
        source = self._find_data()
        return None if source is None else _sample_set(source, with_discarded=False)

    def _find_data(self) -> Any:
        registered = ledgers.find_samples()
        return self._data() if registered is None else registered

    # ------------------------------------------------------------ optimizers
    def target(
        self,
        model: Any,
        model_name: str | None,
        optimizer: Any,
        optimizer_name: str | None,
        load_optimizer: bool,
    ) -> LoadTarget:
        """Resolve what a load goes into, before anything is read."""
        found = self.find_optimizer(optimizer, optimizer_name) if load_optimizer else None
        return LoadTarget(
            live=self.get_model(model, model_name),
            optimizers=None if found is None else named_optimizers(found),
            load_optimizer=load_optimizer,
            given=optimizer is not None or optimizer_name is not None,
        )

    @staticmethod
    def find_optimizer(optimizer: Any = None, name: str | None = None) -> Any:
        """Return the optimizer (or dict of optimizers) meant by the arguments; None if none is.

        Raises: LedgerError for a name that is not registered, or several without a name.
        """
        if optimizer is not None:
            named_optimizers(optimizer)
            return optimizer
        return ledgers.find_optimizer() if name is None else ledgers.get_optimizer(name)

    def remember_optimizer(self, optimizer: Any) -> None:
        """Hold `optimizer` weakly as the one given last."""
        if not self._optimizer.is_same(optimizer):
            named_optimizers(optimizer)
            self._optimizer.set(optimizer)

    def last_optimizer(self) -> Any:
        """Return the optimizer of the ledger, else the one given last for this model; None if
        there is neither, or it is gone.

        Raises: LedgerError if several are registered, and none was given.
        """
        last = self._optimizer.get()
        try:
            found = ledgers.find_optimizer()
        except ledgers.LedgerError:
            if last is None:
                raise
            return last
        return last if found is None else found


class Given:
    """An object, or a dict of name -> object, held weakly."""

    def __init__(self) -> None:
        self._refs: dict[str, Callable[[], Any]] = {}
        self._single = True

    def set(self, given: Any) -> None:
        """Hold `given`; None holds nothing."""
        is_dict = isinstance(given, Mapping) and not isinstance(given, torch.nn.Module)
        named = dict(given) if is_dict else {} if given is None else {"": given}
        self._refs = {name: _weak(item) for name, item in named.items()}
        self._single = not is_dict

    def forget(self) -> None:
        """Hold nothing."""
        if self._refs:
            self.set(None)

    @property
    def is_empty(self) -> bool:
        """Nothing was given."""
        return not self._refs

    def is_same(self, given: Any) -> bool:
        """Tell whether this is what is held."""
        if self._single:
            held = self._refs.get("")
            return held is not None and held() is given
        if not isinstance(given, Mapping) or given.keys() != self._refs.keys():
            return False
        return all(reference() is given[name] for name, reference in self._refs.items())

    def get(self) -> Any:
        """Return what is held; None if that is nothing, or any of it is gone."""
        alive = {name: reference() for name, reference in self._refs.items()}
        if not alive or any(item is None for item in alive.values()):
            return None
        return alive[""] if self._single else alive


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTarget:
    """What a load goes into.

    Attributes:
        live: module, or dict of name -> module.
        optimizers: name -> optimizer; None if there is none or none is wanted.
        load_optimizer: restore optimizers too.
        given: the caller named an optimizer, so its state has to be there.
    """

    live: Any
    optimizers: dict[str, Any] | None
    load_optimizer: bool
    given: bool


def named_models(model: Any) -> dict[str, Any]:
    """Return name -> module; a single module has the name "".

    Raises: TypeError if something is no `torch.nn.Module`.
    """
    named = (
        dict(model)
        if isinstance(model, Mapping) and not isinstance(model, torch.nn.Module)
        else {"": model}
    )
    if not named:
        raise ValueError("the dict of models is empty; give at least one model")
    for name, module in named.items():
        if not isinstance(module, torch.nn.Module):
            which = f"model {name!r}" if name else "model"
            raise TypeError(
                f"{which} is a {type(module).__module__}.{type(module).__qualname__}, "
                "not a torch.nn.Module (or a dict of name -> module)"
            )
    return named


def named_optimizers(optimizer: Any) -> dict[str, Any]:
    """Return name -> optimizer; a single one has the name "optimizer".

    Raises: TypeError if something has no state_dict and load_state_dict.
    """
    named = dict(optimizer) if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
    for name, item in named.items():
        if not callable(getattr(item, "state_dict", None)) or not callable(
            getattr(item, "load_state_dict", None)
        ):
            raise TypeError(
                f"{name} is a {type(item).__module__}.{type(item).__qualname__}, "
                "which has no state_dict and load_state_dict"
            )
    return named


def _nothing() -> None:
    return None


def _weak(item: Any) -> Callable[[], Any]:
    """Return a weak reference; to nothing, where the type has none (its last set is kept then)."""
    try:
        return weakref.ref(item)
    except TypeError:
        return _nothing


def _sample_set(uids: Any, *, with_discarded: bool) -> SampleSet:
    """Turn UIDs, a `SampleSet` or an object that knows its `active_uids` into a set."""
    if isinstance(uids, SampleSet):
        return uids
    active = getattr(uids, "active_uids", None)
    if active is None:
        return SampleSet.from_uids(uids)
    found = _from_attribute(active)
    discarded = getattr(uids, "discarded_uids", None)
    if not with_discarded or discarded is None or isinstance(active, SampleSet):
        return found
    return found.with_discarded(_from_attribute(discarded))


def _from_attribute(value: Callable[[], Any] | Any) -> SampleSet:
    found = value() if callable(value) else value
    return found if isinstance(found, SampleSet) else SampleSet.from_uids(found)


def parts_of(model: Any) -> dict[str, Any]:
    """Return part -> module: `model` for a single one, `model.{name}` for those of a dict.

    Raises: ValueError for names that cannot be part of a file name, or that differ only in case.
    """
    named = named_models(model)
    if list(named) == [""]:
        return {"model": model}
    for name in named:
        check_label(name, what="model name")
    if len({name.lower() for name in named}) < len(named):
        raise ValueError(
            f"the model names {sorted(named)} differ only in case, which some file systems ignore"
        )
    return {f"model.{name}": module for name, module in named.items()}
