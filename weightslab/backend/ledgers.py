"""The ledger: name -> live object, for models, optimizers, dataloaders and what steers them.

    register_model("main", model)
    get_model("main")        # by name
    get_model()              # the only one registered; none or several is an error that lists them

Each kind has `register_x`, `get_x`, `find_x`, `list_xs` and `unregister_x`. Names are unique per
kind; registering a name again replaces its object. Everything here is thread-safe.
"""

from __future__ import annotations

import difflib
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Ledger",
    "LedgerError",
    "clear_all",
    "dataloaders",
    "find_dataloader",
    "find_hyperparams",
    "find_model",
    "find_optimizer",
    "find_samples",
    "find_scheduler",
    "get_dataloader",
    "get_hyperparams",
    "get_model",
    "get_optimizer",
    "get_samples",
    "get_scheduler",
    "hyperparams",
    "list_dataloaders",
    "list_hyperparams",
    "list_models",
    "list_optimizers",
    "list_samples",
    "list_schedulers",
    "models",
    "optimizers",
    "register_dataloader",
    "register_hyperparams",
    "register_model",
    "register_optimizer",
    "register_samples",
    "register_scheduler",
    "samples",
    "schedulers",
    "unregister_dataloader",
    "unregister_hyperparams",
    "unregister_model",
    "unregister_optimizer",
    "unregister_samples",
    "unregister_scheduler",
]


class LedgerError(LookupError):
    """A name is not in the ledger, or no name was given where not exactly one is registered."""


class Ledger:
    """Live objects of one kind under unique names. Thread-safe.

    Args:
        kind: what an object of it is called in error messages, e.g. `model`.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._lock = threading.RLock()
        self._objects: dict[str, Callable[[], Any]] = {}

    def __repr__(self) -> str:
        """Return kind and names."""
        return f"<Ledger of {self._kind}: {', '.join(self.list()) or 'empty'}>"

    def register(self, name: str, obj: Any, *, weak: bool = False) -> None:
        """Put `obj` under `name`, in place of what was there.

        Args:
            name: any text that is not empty.
            obj: the live object; not None.
            weak: do not keep `obj` alive; it leaves the ledger when nobody else has it.
        Raises: TypeError for a name that is no text, an object that is None, and `weak` with a type
            that has no weak references (dict, list); ValueError for an empty name.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a {self._kind} is a str, not {type(name).__name__}")
        if not name:
            raise ValueError(f"the name of a {self._kind} is empty; give it one")
        if obj is None:
            raise TypeError(f"None is no {self._kind}; use unregister to remove {name!r}")
        entry = self._weak_entry(name, obj) if weak else _strong_entry(obj)
        with self._lock:
            self._objects[name] = entry

    def get(self, name: str | None = None) -> Any:
        """Return the object under `name`, or the only one there is.

        Raises: LedgerError that lists the names, and the nearest, if there is no such name, or if
            `name` is None and not exactly one object is registered.
        """
        with self._lock:
            alive = self._alive()
        if name is None and len(alive) == 1:
            return next(iter(alive.values()))
        if name is not None and name in alive:
            return alive[name]
        raise LedgerError(_complaint(self._kind, name, sorted(alive)))

    def find(self, name: str | None = None) -> Any:
        """Return the object under `name`, or None if there is none.

        Without a name: the only object, or None if nothing is registered.

        Raises: LedgerError if `name` is None and several are registered: which one is meant is a
            question, not an absence.
        """
        with self._lock:
            alive = self._alive()
        if name is not None:
            return alive.get(name)
        return self.get() if alive else None

    def list(self) -> list[str]:
        """Return the names of all objects that are alive, sorted."""
        with self._lock:
            return sorted(self._alive())

    def unregister(self, name: str) -> bool:
        """Remove `name`; the object itself lives on. False if it was not there."""
        with self._lock:
            found = self._objects.pop(name, None)
        return found is not None and found() is not None

    def clear(self) -> None:
        """Remove every name."""
        with self._lock:
            self._objects.clear()

    def _alive(self) -> dict[str, Any]:
        found = {name: entry() for name, entry in self._objects.items()}
        alive = {name: obj for name, obj in found.items() if obj is not None}
        if len(alive) < len(found):  # weakly held objects that died
            self._objects = {name: self._objects[name] for name in alive}
        return alive

    def _weak_entry(self, name: str, obj: Any) -> Callable[[], Any]:
        try:
            return weakref.ref(obj)
        except TypeError as error:
            raise TypeError(
                f"the {self._kind} {name!r} is a {type(obj).__name__}, which has no weak "
                "references; register it without weak=True"
            ) from error


def _complaint(kind: str, name: str | None, names: list[str]) -> str:
    known = ", ".join(repr(known) for known in names)
    if not names:
        what = f"no {kind} is registered"
        return f"{what}, so there is no {name!r}" if name is not None else what
    if name is None:
        return f"{len(names)} {kind} entries are registered: {known}; say which one by its name"
    near = difflib.get_close_matches(str(name), names, n=1)
    nearest = f"nearest: {near[0]!r}; " if near else ""
    return f"no {kind} {name!r} is registered; {nearest}registered: {known}"


def _strong_entry(obj: Any) -> Callable[[], Any]:
    return lambda: obj


models: Final = Ledger("model")
optimizers: Final = Ledger("optimizer")
dataloaders: Final = Ledger("dataloader")
hyperparams: Final = Ledger("hyperparams")
samples: Final = Ledger("samples")
schedulers: Final = Ledger("scheduler")

register_model = models.register
get_model = models.get
find_model = models.find
list_models = models.list
unregister_model = models.unregister

register_optimizer = optimizers.register
get_optimizer = optimizers.get
find_optimizer = optimizers.find
list_optimizers = optimizers.list
unregister_optimizer = optimizers.unregister

register_dataloader = dataloaders.register
get_dataloader = dataloaders.get
find_dataloader = dataloaders.find
list_dataloaders = dataloaders.list
unregister_dataloader = dataloaders.unregister

register_hyperparams = hyperparams.register
get_hyperparams = hyperparams.get
find_hyperparams = hyperparams.find
list_hyperparams = hyperparams.list
unregister_hyperparams = hyperparams.unregister

register_samples = samples.register
get_samples = samples.get
find_samples = samples.find
list_samples = samples.list
unregister_samples = samples.unregister

register_scheduler = schedulers.register
get_scheduler = schedulers.get
find_scheduler = schedulers.find
list_schedulers = schedulers.list
unregister_scheduler = schedulers.unregister


def clear_all() -> None:
    """Empty all six ledgers."""
    for ledger in (models, optimizers, dataloaders, hyperparams, samples, schedulers):
        ledger.clear()
