"""Configs: which values are one, and which are two."""

import argparse
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import re
import types
import uuid

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  as users write it
import yaml
from support.identity import Case, case_name


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Opaque:
    def __init__(self, v):
        self.v = v


@dataclasses.dataclass
class Optimizer:
    name: str = "adam"
    betas: list = dataclasses.field(default_factory=lambda: [0.9, 0.999])


@dataclasses.dataclass
class Config:
    lr: float = 1e-3
    opt: Optimizer = dataclasses.field(default_factory=Optimizer)
    epochs: int = 10
    flag: bool = True
    none: object = None


BASE = {
    "lr": 1e-3,
    "opt": {"name": "adam", "betas": [0.9, 0.999]},
    "epochs": 10,
    "flag": True,
    "none": None,
}
NAN_WITH_PAYLOAD = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf8\x7f", "<f8")[0]
SHARED = [1, 2]
PAIR = collections.namedtuple("PAIR", "x y")  # noqa: PYI024  what is tested is an untyped one


def _omegaconf(**more):
    from omegaconf import OmegaConf

    return OmegaConf.create({**BASE, **more})


def _pydantic():
    import pydantic

    class Inner(pydantic.BaseModel):
        name: str = "adam"
        betas: list = [0.9, 0.999]

    class Outer(pydantic.BaseModel):
        lr: float = 1e-3
        opt: Inner = Inner()
        epochs: int = 10
        flag: bool = True
        none: object = None

    return Outer()


# name, value, another value: of one key
VALUES = [
    ("number", 1e-3, 2e-3), ("last bit", 0.1 + 0.2, 0.3), ("order of a list", [1, 2], [2, 1]),
    ("none or its text", None, "None"), ("text or int", "1", 1), ("text or bool", "true", True),
    ("bool or int", True, 1), ("nan or text", math.nan, "NaN"), ("nan or none", math.nan, None),
    ("sign of infinity", math.inf, -math.inf), ("large ints", 2**53, 2**53 + 1),
    ("empty dict or list", {}, []), ("parts of a list", ["ab", "c"], ["a", "bc"]),
    ("accent", "\xe9", "e"), ("bytes or text", b"x", "x"), ("dtype", torch.float16, torch.bfloat16),
    ("enum member", Colour.RED, Colour.GREEN), ("state of an object", Opaque(1), Opaque(2)),
    ("function", F.relu, F.gelu), ("class", torch.optim.SGD, torch.optim.Adam),
    ("member of a set", {1, 2}, {1, 3}), ("array", np.array([1.0, 2.0]), np.array([1.0, 2.5])),
    ("middle of a long array", np.arange(5000), np.where(np.arange(5000) == 2500, 7, np.arange(5000))),
    ("which is the text", [1, "1"], ["1", 1]), ("path", pathlib.Path("/a"), pathlib.Path("/b")),
    ("sign of zero", 0.0, -0.0), ("decimal", decimal.Decimal("0.1"), decimal.Decimal("0.2")),
    ("date", dt.date(2026, 1, 1), dt.date(2026, 1, 2)),
    ("fraction", fractions.Fraction(1, 3), fractions.Fraction(1, 4)),
    ("lambda", lambda x: x * 0.5, lambda x: x * 0.9), ("uuid", uuid.UUID(int=1), uuid.UUID(int=2)),
    ("numpy date", np.datetime64("2026-01-01"), np.datetime64("2026-01-02")),
    ("pattern", re.compile("a"), re.compile("b")), ("seed", 1, 2),
    ("type of an exponent", 1e-3, "1e-3"),
]  # fmt: skip
SAME = [
    ("float spelling", 1e-3, 0.001), ("numpy int", 5, np.int64(5)), ("numpy float", 0.5, np.float64(0.5)),
    ("numpy bool", True, np.bool_(True)), ("single precision", 0.5, np.float32(0.5)),
    ("torch scalar", 5, torch.tensor(5)), ("tuple or list", [0.9, 0.999], (0.9, 0.999)),
    ("whole float", 1, 1.0), ("path or text", pathlib.PurePosixPath("/a/b"), "/a/b"),
    ("nan", math.nan, np.float64("nan")), ("nan with a payload", math.nan, NAN_WITH_PAYLOAD),
    ("order of a set", {"x", "y", "z"}, {"z", "y", "x"}), ("frozen set", {1, 2}, frozenset({1, 2})),
    ("dtype by two names", torch.float32, torch.float), ("device or text", torch.device("cuda:0"), "cuda:0"),
    ("equal objects", Opaque(1), Opaque(1)), ("array or list", np.array([1, 2]), [1, 2]),
    ("composed letters", "\xe9", "e\u0301"), ("numpy text", np.str_("x"), "x"),
    ("named tuple", [1, 2], PAIR(1, 2)),
    ("enum twice", Colour.RED, Colour.RED), ("function twice", F.relu, F.relu),
    ("class twice", torch.optim.Adam, torch.optim.Adam),
]  # fmt: skip
TOP_DIFFER = [
    ("key renamed", {"lr": 1}, {"LR": 1}), ("key added", {"lr": 1}, {"lr": 1, "wd": 0}),
    ("nested value", {"o": {"lr": 1}}, {"o": {"lr": 2}}), ("dotted or nested", {"a.b": 1}, {"a": {"b": 1}}),
    ("none or missing", {"a": None}, {}), ("key of text or int", {1: "a"}, {"1": "a"}),
    ("text with separators", {"a": "1,b:2"}, {"a": "1", "b": "2"}),
    ("text with quotes", {"a": 'x","b":"y'}, {"a": "x", "b": "y"}),
]  # fmt: skip
TOP_SAME = [
    ("order of keys", BASE, dict(reversed(list(BASE.items())))),
    ("ordered dict", BASE, collections.OrderedDict(BASE)),
    ("proxy", BASE, types.MappingProxyType(BASE)),
    ("argparse", BASE, argparse.Namespace(**BASE)),
    ("simple namespace", BASE, types.SimpleNamespace(**BASE)),
    ("dataclass", BASE, Config()),
    ("yaml there and back", BASE, yaml.safe_load(yaml.safe_dump(BASE))),
    ("json there and back", {"b": (1, 2), "x": 1e-5}, json.loads(json.dumps({"b": (1, 2), "x": 1e-5}))),
    ("one list twice", {"a": SHARED, "b": SHARED}, {"a": [1, 2], "b": [1, 2]}),
    ("default dict", {"a": 1}, collections.defaultdict(int, a=1)),
]  # fmt: skip


def _config(name, same, left, right):
    return Case(name, same, lambda: left, lambda: right, kind="config")


CASES = [
    *(_config(name, False, {"a": left}, {"a": right}) for name, left, right in VALUES),
    *(_config(name, True, {"a": left}, {"a": right}) for name, left, right in SAME),
    *(_config(name, False, left, right) for name, left, right in TOP_DIFFER),
    *(_config(name, True, left, right) for name, left, right in TOP_SAME),
    Case("omegaconf", True, lambda: BASE, _omegaconf, kind="config"),
    Case(
        "interpolation",
        True,
        lambda: {**BASE, "base": 1e-3},
        lambda: _omegaconf(lr="${base}", base=1e-3),
        kind="config",
    ),
    Case("pydantic", True, lambda: BASE, _pydantic, kind="config"),
]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_configs(case):
    case.check()
