"""A loader that knows the numbered files by their old names alone: nothing of this package is in it."""

import enum
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import torch


class _CheckpointDictKeys(str, enum.Enum):
    MODEL = "model"
    MODEL_FULL = "model_full"
    OPTIM = "optimizer"
    LRATE = "learning_rate"
    BSIZE = "batch_size"
    TDATA = "train_dataset"
    EDATA = "eval_dataset"
    ENAME = "experiment_name"


class _OldNames:
    """Stands for the module pickle: the old program had these classes, torch, and no others."""

    __name__ = "pickle"
    load = staticmethod(pickle.load)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if (module, name) == ("weightslab.components.checkpoint", "_CheckpointDictKeys"):
                return _CheckpointDictKeys
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if module.startswith("torch") or module == "_codecs":  # bytes, in protocol 2
                return super().find_class(module, name)
            raise AssertionError(f"the old program has no {module}.{name}")


def old_table(folder):
    table = json.loads((Path(folder) / "checkpoints.metadata").read_text())
    assert set(table) == {"next_id", "parent_id", "id_2_path", "id_2_prnt", "id_2_meta"}
    return table


def old_load(folder, number):
    """Return the dict of a checkpoint, by the path in the table, as the old `load` did."""
    path = old_table(folder)["id_2_path"][str(number)]
    found = torch.load(path, weights_only=False, pickle_module=_OldNames)
    assert all(isinstance(key, _CheckpointDictKeys) for key in found)
    return {key.value: value for key, value in found.items()}
