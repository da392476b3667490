"""The old, numbered CheckpointManager, for code that uses it. New code takes `CheckpointManagerV2`.

manager = CheckpointManager("root_experiment")
first = manager.dump("main", "sgd")     # objects come from the ledger, by name
manager.load(first)                     # the next dump is a child of it

`weightslab import root_experiment --root NEW_ROOT` makes experiments of what it wrote.
"""

from __future__ import annotations

import json
import logging
import operator
import uuid
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.backend import ledgers
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    FormatError,
    LockedError,
    StateMismatchError,
)
from weightslab.engine.storage.local import LocalStore
from weightslab.formats.held import hold_file
from weightslab.formats.numbered import (
    CheckpointKey,
    Payload,
    pickled_model,
    read_payload,
    revive_model,
)
from weightslab.formats.numbered_table import (
    NO_ID,
    TABLE_FILE,
    NumberedTable,
    checkpoint_id,
    read_table,
)

if TYPE_CHECKING:
    import os

    from weightslab.engine.training.plan import RestorePlan

__all__ = ["CheckpointManager"]

logger = logging.getLogger(__name__)
_CheckpointDictKeys = CheckpointKey  # the name under which the keys stand in every file
_DEFAULT_NAME: Final = "main"
_USUAL_HYPERPARAMS: Final = ("main", "experiment")
_SHOWN: Final = 8  # names that a message lists


class CheckpointManager:
    """Numbered checkpoints in one folder: `ckpt_{id}_{uuid}` files and the table of them.

    Not for several threads at once; several processes may write to one folder.

    Args:
        root_directory: the folder; made if it is not there.
    Attributes:
        root_directory: its absolute path.
        next_id: the id that was given last; -1 before the first.
        prnt_id: the id that the next checkpoint has as its parent; -1 for none.
        id_to_path: id -> path of the file.
        id_to_prnt: id -> id of the parent.
        id_to_meta: id -> what was attached.
    Raises: FormatError if `checkpoints.metadata` is there and cannot be read, StorageError.
    """

    def __init__(self, root_directory: str | os.PathLike[str] = "root_experiment") -> None:
        warnings.warn(
            "CheckpointManager numbers its files and knows neither config nor data; use "
            "CheckpointManagerV2 (guide, chapter 7), and `weightslab import` for what there is",
            DeprecationWarning,
            stacklevel=2,
        )
        self.root_directory = Path(root_directory).absolute()
        self._store = LocalStore(self.root_directory)
        self._store.create()
        self.prnt_id = NO_ID
        self._take(self._read())

    def __repr__(self) -> str:
        """Return the folder and the counters."""
        return (
            f"CheckpointManager(root_directory={str(self.root_directory)!r}, "
            f"next_id={self.next_id}, prnt_id={self.prnt_id}, checkpoints={len(self.id_to_path)})"
        )

    # ------------------------------------------------------------ saving
    def dump(
        self,
        model_name: str | None = None,
        optimizer_name: str | None = None,
        experiment_name: str | None = None,
        override_filepath: str | os.PathLike[str] | None = None,
        save_full_model: bool = False,
    ) -> int:
        """Save the registered model, and the optimizer if there is one.

        Args:
            model_name, optimizer_name: in the ledger; by default the only one registered.
            experiment_name: is written down.
            override_filepath: write a small JSON there instead, with the names alone.
            save_full_model: pickle the whole model, too; reading it runs code, so nobody does unless
                told to.
        Returns: the id; -1 with `override_filepath`.
        Raises: LedgerError (no such object), NotStorableError, LockedError, StorageError. Nothing was
            saved then.
        Durability: file and table are on disk on return.
        """
        if override_filepath is not None:
            return self._write_note(Path(override_filepath), model_name, experiment_name)
        model = ledgers.get_model(model_name)
        optimizer = _find(ledgers.optimizers, optimizer_name)
        payload = Payload(
            experiment_name=experiment_name,
            batch_size=_batch_size(),
            learning_rate=_learning_rate(optimizer),
            model=model.state_dict(),
            model_full=pickled_model(model) if save_full_model else None,
            optimizer=None if optimizer is None else optimizer.state_dict(),
        )
        return self._commit(payload)

    def _write_note(self, path: Path, model_name: str | None, name: str | None) -> int:
        path = self.root_directory / path
        model = _find(ledgers.models, model_name)
        note = {"experiment_name": name} | (
            {} if model is None else {"model": type(model).__name__}
        )
        store = LocalStore(path.parent)
        store.put(path.name, [json.dumps(note, indent=2).encode("ascii")])
        store.sync("")
        return NO_ID

    def _commit(self, payload: Payload) -> int:
        with self._alone():
            table = self._read()  # another process may have written meanwhile
            names = [checkpoint_id(name) for name in self._store.list("")]
            number = 1 + max([self.next_id, table.next_id, *(n[0] for n in names if n is not None)])
            name = f"ckpt_{number}_{uuid.uuid4()}"
            self._store.put(name, [payload.to_buffer()], if_absent=True)
            self._store.sync("")  # the file has its name before the table tells of it
            table.names[number], table.parents[number] = name, int(self.prnt_id)
            table.meta = {**table.meta, **self.id_to_meta}
            table.next_id = table.parent_id = number
            self._write(table)
        self._take(table)
        return number

    # ------------------------------------------------------------ loading
    def load(
        self,
        checkpoint_id_or_path: int | str | os.PathLike[str],
        model_name: str | None = None,
        optimizer_name: str | None = None,
        hyperparams_name: str | None = None,
        *,
        trust: bool = False,
    ) -> None:
        """Load a checkpoint into the registered model, optimizer and hyperparameters.

        Everything is checked to fit before anything is changed. The next dump is a child of it.

        Args:
            checkpoint_id_or_path: id, as a number or text, or path of a file.
            model_name, optimizer_name: in the ledger; by default the only one registered.
            hyperparams_name: gets `learning_rate` and `batch_size`; by default `main`, `experiment`, or
                the only one registered.
            trust: let pickles of the file run code. A whole model that was saved takes the place of a
                registered one that it does not fit, or that is not there.
        Raises: CheckpointNotFoundError, StateMismatchError, LedgerError, UnsafePickleError, FormatError,
            IntegrityError.
        """
        path, number = self._locate(checkpoint_id_or_path)
        hyperparams = _hyperparams(hyperparams_name)
        optimizer = _find(ledgers.optimizers, optimizer_name)
        with hold_file(path) as held:
            payload = read_payload(held, trust=trust)
            plan = _plan_optimizer(payload, optimizer, path, asked_for=optimizer_name is not None)
            _apply_model(payload, model_name, path, trust=trust)
            if plan is not None:
                plan.apply()
        for key in ("batch_size", "learning_rate"):
            if hyperparams is not None and (value := getattr(payload, key)) is not None:
                _set(hyperparams, key, value)
        self.prnt_id = number

    def _locate(self, wanted: object) -> tuple[Path, int]:
        """Return path and id; the id is -1 for a file that is not of this folder."""
        if isinstance(wanted, bool) or wanted is None:
            raise TypeError(f"a checkpoint is an id or a path, not {wanted!r}")
        if isinstance(wanted, (str, Path)) or hasattr(wanted, "__fspath__"):
            text = str(wanted)
            number = int(text) if text.isascii() and text.isdecimal() else NO_ID
            if number not in self.id_to_path and (path := Path(text)).is_file():
                known = (i for i, each in self.id_to_path.items() if Path(each) == path.absolute())
                return path, next(known, NO_ID)
        else:
            number = operator.index(wanted)  # type: ignore[arg-type] # numpy numbers, too
        if number not in self.id_to_path:
            ids = ", ".join(str(i) for i in sorted(self.id_to_path)[-_SHOWN:]) or "none"
            raise CheckpointNotFoundError(
                f"there is no checkpoint {wanted!s:.200} in {self.root_directory}",
                hint=f"ids: {ids}",
            )
        path = Path(self.id_to_path[number])
        if not path.is_file():
            raise CheckpointNotFoundError(
                f"the file of checkpoint {number} is gone", hint=f"it was {path}"
            )
        return path, number

    # ------------------------------------------------------------ questions
    def get_ids(self) -> set[int]:
        """Return all ids."""
        return set(self.id_to_path)

    def get_path_for_id(self, id: int | str) -> Path:  # noqa: A002 - its old name
        """Return the path of a checkpoint.

        Raises: CheckpointNotFoundError.
        """
        return self._locate(int(id))[0]

    def get_latest_experiment(self) -> int:
        """Return the id that was given last; -1 before the first."""
        return self.next_id

    def get_latest_checkpoint_path(self) -> Path | None:
        """Return the path of the highest id whose file is there; None if there is none."""
        paths = (Path(self.id_to_path[number]) for number in sorted(self.id_to_path, reverse=True))
        return next((path for path in paths if path.is_file()), None)

    def attach_metadata(self, checkpoint_id: int | str, metadata: Mapping[str, Any]) -> None:
        """Write plain JSON values beside a checkpoint, in the place of what was attached before.

        Raises: CheckpointNotFoundError, TypeError (no JSON), LockedError, StorageError.
        """
        _, number = self._locate(int(checkpoint_id))
        meta = json.loads(json.dumps(dict(metadata)))
        with self._alone():
            table = self._read()
            table.meta = {**table.meta, **self.id_to_meta, number: meta}
            self._write(table)
        self._take(table)

    def get_metadata(self, checkpoint_id: int | str) -> dict[str, Any]:
        """Return what was attached to a checkpoint.

        Raises: CheckpointNotFoundError.
        """
        return dict(self.id_to_meta.get(self._locate(int(checkpoint_id))[1], {}))

    # ------------------------------------------------------------ the table
    def _read(self) -> NumberedTable:
        if self._store.stat(TABLE_FILE) is None:
            return NumberedTable()
        return read_table(self.root_directory)

    def _take(self, table: NumberedTable) -> None:
        for name, reason in table.problems:
            logger.warning("%s in %s: %s", name, self.root_directory, reason)
        self.next_id = table.next_id
        self.prnt_id = table.parent_id
        self.id_to_path = {i: str(self.root_directory / name) for i, name in table.names.items()}
        self.id_to_prnt = dict(table.parents)
        self.id_to_meta = dict(table.meta)

    def _write(self, table: NumberedTable) -> None:
        self._store.put(TABLE_FILE, [table.to_bytes(self.root_directory)])
        self._store.sync("")

    def _alone(self) -> Any:
        hold = self._store.hold(f"{TABLE_FILE}.pending")
        if hold is None:
            raise LockedError(
                f"another process is writing to {self.root_directory}", hint="try again"
            )
        return hold


# ---------------------------------------------------------------- live objects
def _find(ledger: ledgers.Ledger, name: str | None) -> Any:
    """Return the object of this name, which has to be there, or the only one, which need not."""
    return ledger.find() if name is None else ledger.get(name)


def _hyperparams(name: str | None) -> Any:
    if name is not None:
        return ledgers.get_hyperparams(name)
    names = ledgers.list_hyperparams()
    usual = next((each for each in _USUAL_HYPERPARAMS if each in names), None)
    if usual is None and len(names) != 1:
        return None
    return ledgers.get_hyperparams(usual)


def _set(hyperparams: Any, key: str, value: Any) -> None:
    if isinstance(hyperparams, MutableMapping):
        hyperparams[key] = value
    else:
        setattr(hyperparams, key, value)


def _told(*keys: str) -> Any:
    """Return the first of these entries that the registered hyperparameters have."""
    found = _hyperparams(None)
    for key in keys:
        value = found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)
        if value is not None:
            return value
    return None


def _learning_rate(optimizer: Any) -> float | None:
    groups = getattr(optimizer, "param_groups", None)
    value = groups[0].get("lr") if groups else _told("learning_rate", "lr")
    return None if value is None else float(value)


def _batch_size() -> int | None:
    """Return the batch size of the training data: of the loader that is named so, or all agree on."""
    names = ledgers.list_dataloaders()
    training = [name for name in names if "train" in name.lower()]
    sizes = {
        getattr(ledgers.get_dataloader(name), "batch_size", None) for name in training or names
    } - {None}
    value = sizes.pop() if len(sizes) == 1 else _told("batch_size")
    return None if value is None else int(value)


def _apply_model(payload: Payload, name: str | None, path: Path, *, trust: bool) -> None:
    can_revive = trust and payload.model_full is not None
    if can_revive and ledgers.models.find(name) is None:
        _register(payload, name)
        return
    model = ledgers.get_model(name)
    try:
        saved = _fitting(payload, model, path)
    except StateMismatchError:
        if not can_revive:
            raise
        _register(payload, name)
    else:
        model.load_state_dict(saved)


def _register(payload: Payload, name: str | None) -> None:
    names = ledgers.list_models()
    target = name or (names[0] if names else _DEFAULT_NAME)
    assert payload.model_full is not None
    ledgers.register_model(target, revive_model(payload.model_full))
    logger.warning("the model %r is the whole one from the checkpoint now", target)


def _fitting(payload: Payload, model: Any, path: Path) -> dict[str, Any]:
    """Return what the model takes of the checkpoint: all entries, but for bookkeeping that it lacks.

    Raises: StateMismatchError, FormatError.
    """
    import torch

    if payload.model is None:
        raise FormatError(f"{path.name} holds no weights")
    live = model.state_dict()
    kept = {k: v for k, v in payload.model.items() if k in live or isinstance(v, torch.Tensor)}
    missing, unexpected = [k for k in live if k not in kept], [k for k in kept if k not in live]
    changes = {
        key: f"{_form(kept[key])} -> {_form(here)}"
        for key, here in live.items()
        if key in kept and _form(kept[key]) != _form(here)
    }
    if not (missing or unexpected or changes):
        return kept
    told = [f"missing: {_some(missing)}"] * bool(missing)
    told += [f"unexpected: {_some(unexpected)}"] * bool(unexpected)
    told += [f"changed: {_some([f'{k} {v}' for k, v in changes.items()])}"] * bool(changes)
    raise StateMismatchError(
        f"{path.name} does not fit the model; {'; '.join(told)}",
        missing=missing,
        unexpected=unexpected,
        shape_changes=changes,
        hint="it has a whole model beside its weights, which trust=True lets run"
        if payload.model_full is not None
        else "register the model that was saved",
    )


def _form(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return "no tensor"
    return f"{str(dtype).removeprefix('torch.')} {list(value.shape)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _plan_optimizer(
    payload: Payload, optimizer: Any, path: Path, *, asked_for: bool
) -> RestorePlan | None:
    from weightslab.engine.training.optimizers import plan_optimizer_restore

    if optimizer is not None and payload.optimizer is not None:
        state = dict(payload.optimizer)
        return plan_optimizer_restore(optimizer, {"class": None, "names": [], "state": state})
    if asked_for:
        raise StateMismatchError(f"{path.name} holds no optimizer state", hint="name no optimizer")
    if optimizer is not None or payload.optimizer is not None:
        where = "is registered" if optimizer is None else "state is in the checkpoint"
        logger.warning("no optimizer %s: %s gives the weights alone", where, path.name)
    return None
