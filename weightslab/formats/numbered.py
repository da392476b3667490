"""Roots of the old, numbered CheckpointManager: `checkpoints.metadata` and `ckpt_{id}_{uuid}` files.

There are no steps in them: the id stands for the step, and says so. Parents become lineage. One root is
one experiment for each pair of learning rate and batch size; architecture and samples are unknown.
"""

from __future__ import annotations

import enum
import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import FormatError, MissingExtraError, NotStorableError
from weightslab.formats.numbered_table import (
    NO_ID,
    TABLE_FILE,
    NumberedTable,
    checkpoint_id,
    read_table,
)
from weightslab.formats.pickles import load_pickle, stand_in
from weightslab.formats.plain_parts import plain_entries, split_model
from weightslab.formats.source import Source, SourceCheckpoint, SourceExperiment, SourceState

if TYPE_CHECKING:
    from pathlib import Path

    from weightslab.formats.held import HeldFile
    from weightslab.formats.source import Reader

__all__ = [
    "FORMAT",
    "CheckpointKey",
    "NumberedRoots",
    "Payload",
    "pickled_model",
    "read_payload",
    "revive_model",
]

_ROOT: Final = "root"  # the key of the one experiment that the listing knows
_DATASETS: Final = ("train_dataset", "eval_dataset")  # written by the last versions of the manager


class CheckpointKey(str, enum.Enum):
    """The keys of a checkpoint file. Pickled under the name that the old manager knows."""

    MODEL = "model"
    MODEL_FULL = "model_full"
    OPTIM = "optimizer"
    LRATE = "learning_rate"
    BSIZE = "batch_size"
    TDATA = "train_dataset"
    EDATA = "eval_dataset"
    ENAME = "experiment_name"


CheckpointKey.__module__ = "weightslab.components.checkpoint"  # which imports it under this name
CheckpointKey.__name__ = CheckpointKey.__qualname__ = "_CheckpointDictKeys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The content of a checkpoint file; None is what it does not have.

    Attributes:
        experiment_name, batch_size, learning_rate: as they were registered.
        model: `state_dict` of the model.
        model_full: pickled model, never run by reading it.
        optimizer: `state_dict` of the optimizer.
        rest: other entries.
    """

    experiment_name: str | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    model: Mapping[str, Any] | None = None
    model_full: bytes | None = None
    optimizer: Mapping[str, Any] | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)

    def to_buffer(self) -> memoryview:
        """Return the file: a dictionary with the old keys, as torch.save writes it."""
        import torch

        keys = (
            CheckpointKey.ENAME, CheckpointKey.BSIZE, CheckpointKey.LRATE, CheckpointKey.MODEL,
            CheckpointKey.MODEL_FULL, CheckpointKey.OPTIM,
        )  # fmt: skip
        file = io.BytesIO()
        torch.save({key: getattr(self, key.value) for key in keys}, file)
        return file.getbuffer()


def read_payload(held: HeldFile, *, trust: bool = False) -> Payload:
    """Read a checkpoint file; no code of it is run without `trust`.

    Raises: UnsafePickleError, TruncatedError, FormatError.
    """
    members = {key.name: key.value for key in CheckpointKey}
    stand_ins = (
        stand_in(f"{CheckpointKey.__module__}.{CheckpointKey.__name__}", members),
        stand_in("weightslab.components.tracking.TrackingMode"),
    )
    name = held.path.name
    found = load_pickle(held, trust=trust, stand_ins=stand_ins)
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise FormatError(f"{name} is no checkpoint of the numbered CheckpointManager")
    entries = {str(key): value for key, value in found.items()}
    own = {key: entries.pop(key, None) for key in Payload.__slots__ if key != "rest"}
    for key in ("model", "optimizer"):
        if not isinstance(own[key], (Mapping, type(None))):
            raise FormatError(f"the {key} in {name} is a {type(own[key]).__name__}, no state dict")
    if not isinstance(own["model_full"], (bytes, type(None))):
        raise FormatError(f"model_full in {name} is a {type(own['model_full']).__name__}, no bytes")
    own["learning_rate"] = _number(own["learning_rate"])
    return Payload(**own, rest=entries)


def _number(value: Any) -> Any:
    """Return the number in a tensor of one element: a learning rate may be one."""
    import torch

    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def pickled_model(model: object) -> bytes:
    """Pickle a whole model, with dill where it is installed, as the old manager did.

    Raises: NotStorableError.
    """
    try:
        if find_spec("dill") is not None:
            made: bytes = import_module("dill").dumps(model)
            return made
        return pickle.dumps(model)
    except Exception as error:
        raise NotStorableError(
            f"the whole model cannot be pickled: {type(error).__name__}: {error!s:.200}",
            hint="install dill (pip install 'weightslab[numbered]'), define the class in a module, "
            "or leave save_full_model=False: the weights are saved all the same",
        ) from error


def revive_model(data: bytes) -> Any:
    """Run a pickled model; whoever wrote it can run any code here.

    Raises: MissingExtraError, FormatError.
    """
    try:
        if find_spec("dill") is not None:
            return import_module("dill").loads(data)
        return pickle.loads(data)  # noqa: S301 - the caller trusts it, and has said so
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "dill":
            raise MissingExtraError(
                "model_full needs dill", hint="pip install 'weightslab[numbered]'"
            ) from error
        raise FormatError(f"model_full needs the module {error.name}") from error
    except Exception as error:
        raise FormatError(
            f"model_full cannot be read: {type(error).__name__}: {error!s:.200}"
        ) from error


class NumberedRoots:
    """A folder with a table or numbered files; or one such file."""

    name = "numbered"

    def recognises(self, path: Path) -> bool:
        """Tell by the names."""
        if not path.is_dir():
            return checkpoint_id(path.name) is not None and path.is_file()
        return (path / TABLE_FILE).is_file() or any(map(_is_numbered, path.glob("ckpt_*")))

    def open(self, path: Path) -> Source:
        """Say what is there."""
        if not path.is_dir():
            return _source(path, NumberedTable(), {path.name: path})
        table = NumberedTable()
        if (path / TABLE_FILE).exists():
            try:
                table = read_table(path)
            except FormatError as error:
                table.problems.append((TABLE_FILE, str(error)))
        else:
            table.problems.append((TABLE_FILE, "is not there: parents are unknown"))
        files = {each.name: each for each in path.iterdir() if each.is_file()}
        return _source(path, table, files)


def _is_numbered(path: Path) -> bool:
    return checkpoint_id(path.name) is not None


def _source(path: Path, table: NumberedTable, files: dict[str, Path]) -> Source:
    taken: dict[str, int] = {}
    order = [(i, table.names[i]) for i in table.order()]
    for number, name in _loose(table, files):
        order.append((number, name))
        table.strangers[number] = f"unknown: {name} is not in {TABLE_FILE}"
    found = []
    for number, name in order:
        reason = _obstacle(name, files.get(name), taken)
        if reason is not None:
            table.problems.append((f"id {number}", reason))
            continue
        taken[name] = number
        parent = table.parents.get(number, NO_ID)
        beside = plain_entries(table.meta.get(number, {}), "metadata")[0]
        if number in table.strangers:
            beside["parent"] = str(table.strangers[number])[:200]
        found.append(
            SourceCheckpoint(
                key=name,
                experiment=_ROOT,
                files=(files[name],),
                load=partial(_load, path=files[name], beside=beside),
                step=number,
                step_is="checkpoint id",
                parent=table.names.get(parent),
                is_first=parent == NO_ID and number not in table.strangers,
            )
        )
    first = min(order, default=None)
    known = checkpoint_id(first[1]) if first else None
    return Source(
        format=NumberedRoots.name,
        path=path,
        experiments=[SourceExperiment(key=_ROOT, identity=known[1] if known else "")],
        checkpoints=found,
        problems=table.problems,
    )


def _loose(table: NumberedTable, files: dict[str, Path]) -> list[tuple[int, str]]:
    """Return id and name of the numbered files that the table does not know; those whose id is that
    of another file are told.
    """
    known = set(table.names.values())
    used = {number for number, name in table.names.items() if name in files}
    found = []
    for name in sorted(files):
        numbered = checkpoint_id(name)
        if numbered is None or name in known:
            continue
        if numbered[0] in used:
            reason = f"its id {numbered[0]} is that of another file; import this file by itself"
            table.problems.append((name, reason))
            continue
        used.add(numbered[0])
        found.append((numbered[0], name))
    return sorted(found)


def _obstacle(name: str, path: Path | None, taken: dict[str, int]) -> str | None:
    if path is None:
        return f"its file {name} is gone"
    if path.is_symlink():
        return f"its file {name} is a link, which is not followed"
    if name in taken:
        return f"its file {name} is that of id {taken[name]}, too"
    return None


def _load(reader: Reader, path: Path, beside: dict[str, Any]) -> SourceState:
    payload = read_payload(reader.hold(path), trust=reader.trust)
    tensors, extra, omitted = split_model(payload.model, f"the model in {path.name}")
    hyperparameters = {"learning_rate": payload.learning_rate, "batch_size": payload.batch_size}
    config, left = plain_entries(
        {key: value for key, value in hyperparameters.items() if value is not None}, "config"
    )
    name = payload.experiment_name if isinstance(payload.experiment_name, str) else None
    if payload.model_full is not None:
        digest = hashlib.sha256(payload.model_full).hexdigest()
        omitted.append("model_full: a pickled model, which is code")
        beside = beside | {
            "model_full": {"size_bytes": len(payload.model_full), "digest": f"sha256:{digest}"}
        }
    datasets = {k: v for k in _DATASETS if isinstance(v := payload.rest.get(k), Mapping)}
    others = {k: v for k, v in payload.rest.items() if k not in datasets and v is not None}
    plain, unread = plain_entries(others, "checkpoint")
    return SourceState(
        models={"": tensors},
        extra={"": extra},
        optimizers={} if payload.optimizer is None else {"optimizer": payload.optimizer},
        schedulers=datasets,
        config=({"experiment_name": name} if name else {}) | config if config else None,
        name=name,
        metadata={"experiment_name": name} | plain | beside,
        omitted=(*omitted, *left, *unread),
    )


FORMAT: Final = NumberedRoots()
