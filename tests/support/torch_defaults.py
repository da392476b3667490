"""The frozen table of constructor defaults of torch.nn: how it is made, and written again.

    PYTHONPATH=tests python -m support.torch_defaults

writes `weightslab/engine/identity/torch_defaults.json` for the installed torch. Models described
before keep their hash only if the lines of old classes stay as they are: add new classes and new
parameters, and change an old default only together with the scheme.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from pathlib import Path

TABLE = Path(__file__).parents[2] / "weightslab/engine/identity/torch_defaults.json"
REQUIRED = {"$required": None}


def module_classes():
    """Return all torch.nn.Module classes that are defined below torch.nn, by full name."""
    import torch
    from torch import nn

    for found in pkgutil.walk_packages(nn.__path__, "torch.nn."):
        if "_internal" not in found.name and "experimental" not in found.name:
            importlib.import_module(found.name)
    classes, stack = {}, [nn.Module]
    while stack:
        cls = stack.pop()
        stack.extend(cls.__subclasses__())
        if cls.__module__.startswith("torch.nn.") and "<locals>" not in cls.__qualname__:
            classes[f"{cls.__module__}.{cls.__qualname__}"] = cls
    assert torch.nn.Linear in classes.values()
    return dict(sorted(classes.items()))


def parameters_of(cls):
    """Return constructor parameter -> default of one class body; `*args` left out."""
    init = vars(cls).get("__init__")
    if init is None:
        return {}
    found = list(inspect.signature(init).parameters.values())[1:]
    return {
        p.name: written(p.default) for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def written(default):
    """Return the form of a default in the table."""
    from weightslab.engine.identity.library import dotted_name
    from weightslab.engine.identity.plain import to_plain

    if default is inspect.Parameter.empty:
        return REQUIRED
    name = dotted_name(default)
    return {"$name": name} if name is not None else to_plain(default, json=True)


def current_table():
    """Return full class name -> {parameter: default} of the installed torch."""
    table = {name: parameters_of(cls) for name, cls in module_classes().items()}
    return {name: found for name, found in table.items() if found}


def main():
    """Write the table."""
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in current_table().items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
