import argparse
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import math
import pathlib
import re
import types
import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from weightslab.engine.errors import NotCanonicalError
from weightslab.engine.identity.config import describe_config

omegaconf = pytest.importorskip("omegaconf")
pydantic = pytest.importorskip("pydantic")

BASE = {
    "lr": 1e-3,
    "opt": {"name": "adam", "betas": [0.9, 0.999]},
    "epochs": 10,
    "flag": True,
    "none": None,
}


@dataclasses.dataclass
class Opt:
    name: str = "adam"
    betas: Any = (0.9, 0.999)


@dataclasses.dataclass
class Cfg:
    lr: float = 1e-3
    opt: Opt = dataclasses.field(default_factory=Opt)
    epochs: int = 10
    flag: bool = True
    none: Any = None


class POpt(pydantic.BaseModel):
    name: str = "adam"
    betas: list[float] = [0.9, 0.999]  # noqa: RUF012


class PCfg(pydantic.BaseModel):
    lr: float = 1e-3
    opt: POpt = POpt()
    epochs: int = 10
    flag: bool = True
    none: Any = None


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class Mode(str, enum.Enum):
    FAST = "fast"


class Level(enum.IntEnum):
    HIGH = 3


class Pair(NamedTuple):
    x: int
    y: int


class Plain:
    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Hostile:
    """Every way to ask it something but its `__dict__` raises."""

    def __init__(self, value):
        self.value = value

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None

    def __repr__(self):
        raise RuntimeError

    __str__ = __bool__ = __len__ = __iter__ = __repr__


def digest(value):
    return describe_config({"a": value}).digest


def test_digest_golden():
    config = {"lr": 1e-3, "opt": {"name": "adam", "betas": (0.9, 0.999)}}
    assert describe_config(config).digest == (
        "wl1:sha256:aa0cff7811bd32e6840cb07d653205fc545c7bdf94b0daa0829bfa975e163c95"
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda: dict(reversed(list(BASE.items()))),
        lambda: collections.OrderedDict(BASE),
        lambda: types.MappingProxyType(BASE),
        lambda: collections.ChainMap({}, BASE),
        lambda: argparse.Namespace(**BASE),
        lambda: types.SimpleNamespace(**BASE),
        Cfg,
        PCfg,
        lambda: omegaconf.OmegaConf.create(BASE),
        lambda: omegaconf.OmegaConf.structured(Cfg),
        lambda: yaml.safe_load(yaml.safe_dump(BASE)),
    ],
)
def test_one_config_in_many_forms(form):
    assert describe_config(form()).digest == describe_config(BASE).digest


def test_omegaconf_interpolations_are_resolved():
    config = omegaconf.OmegaConf.create({"lr": "${base}", "base": 1e-3})
    assert describe_config(config).digest == describe_config({"lr": 1e-3, "base": 1e-3}).digest


def test_a_missing_omegaconf_value_is_named():
    config = omegaconf.OmegaConf.create({"opt": {"lr": "???"}})
    with pytest.raises(NotCanonicalError, match=r"opt\.lr"):
        describe_config(config)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (2**53, float(2**53)),
        ((1, 2), [1, 2]),
        (np.int64(5), 5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.str_("x"), "x"),
        (torch.tensor(5), 5),
        (torch.tensor([1.0, 2.0]), [1, 2]),
        (np.array([[1, 2]]), [[1, 2]]),
        (torch.Size([1, 2]), [1, 2]),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (pathlib.PureWindowsPath("a\\b"), "a/b"),
        (torch.device("cuda:0"), "cuda:0"),
        (torch.float, torch.float32),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        ({1, 2}, frozenset({2, 1})),
        (float("nan"), -float("nan")),
        (range(3), [0, 1, 2]),
        (collections.deque([1]), [1]),
        (Pair(1, 2), [1, 2]),
        (collections.defaultdict(int, b=1), {"b": 1}),
        (Mode.FAST, "fast"),
        (Level.HIGH, 3),
        (decimal.Decimal(2), 2),
        (fractions.Fraction(1, 10), decimal.Decimal("0.1")),
        ("\u00e9", "e\u0301"),
        (dt.date(2026, 1, 1), "2026-01-01"),
        (Plain(1), Plain(1)),
        (Slotted([1]), Slotted((1.0,))),
        ({np.int64(1): "a"}, {1: "a"}),
    ],
)
def test_equal_values(left, right):
    assert digest(left) == digest(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (True, 1),
        ("1", 1),
        ("true", True),
        (None, "None"),
        (float("nan"), "nan"),
        (math.inf, -math.inf),
        (0.0, -0.0),
        (2**53, 2**53 + 1),
        (0.1 + 0.2, 0.3),
        ({}, []),
        ({1: "a"}, {"1": "a"}),
        ([1, "1"], ["1", 1]),
        (["ab", "c"], ["a", "bc"]),
        ([[1], 2], [1, [2]]),
        (b"x", "x"),
        (1j, 2j),
        (torch.float16, torch.bfloat16),
        (Color.RED, Color.GREEN),
        (Color.RED, 1),
        (functional.relu, functional.gelu),
        (torch.relu, torch.tanh),
        (torch.optim.SGD, torch.optim.Adam),
        ({1, 2}, {1, 3}),
        (np.arange(5000), np.concatenate([np.arange(2500), [7], np.arange(2501, 5000)])),
        (decimal.Decimal("0.1"), decimal.Decimal("0.2")),
        (fractions.Fraction(1, 3), fractions.Fraction(1, 4)),
        (uuid.UUID(int=1), uuid.UUID(int=2)),
        (dt.timedelta(1), dt.timedelta(2)),
        (np.datetime64("2026-01-01"), np.datetime64("2026-01-02")),
        (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (slice(1), slice(2)),
        (lambda x: x * 0.5, lambda x: x * 0.9),
        (functools.partial(functional.elu, alpha=1), functools.partial(functional.elu, alpha=2)),
        (Plain(1), Plain(2)),
        (Slotted(1), Slotted(2)),
        (Plain(1), {"value": 1}),
        (Plain, Slotted),
    ],
)
def test_different_values(left, right):
    assert digest(left) != digest(right)


def test_structure_is_not_flattened():
    assert describe_config({"a.b": 1}).digest != describe_config({"a": {"b": 1}}).digest
    assert describe_config({"a": None}).digest != describe_config({}).digest


@pytest.mark.parametrize(
    "value",
    [
        *[(1, 2), {3, 1, 2}, {"b", "a"}, pathlib.PurePath("a/b"), b"\x00\xff", 1 + 2j, 2**70],
        *[
            np.arange(3),
            torch.tensor(1.5),
            Color.RED,
            torch.float16,
            functional.relu,
            Plain([1, (2,)]),
        ],
        *[decimal.Decimal("0.1"), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)],
        *[{(1, 2): "x"}, {1: "a", None: "b", 0.5: "c"}, re.compile("a"), "e\u0301", -0.0],
        *[float("nan"), float("inf"), 1e-5, 1e300, "1e-3", "", "null", "2026-01-01", "a: b\n- c"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_form_survives_yaml_with_the_same_digest(value):
    first = describe_config({"a": value})
    again = describe_config(yaml.safe_load(yaml.safe_dump(first.plain, allow_unicode=True)))
    assert again.digest == first.digest
    assert repr(again.plain) == repr(first.plain)


def test_plain_form_is_readable():
    config = {"size": (3, 5), "out": pathlib.PurePath("a/b"), "tags": {"b", "a"}, "n": np.int64(3)}
    assert describe_config(config).plain == {
        "size": [3, 5],
        "out": "a/b",
        "tags": ["a", "b"],
        "n": 3,
    }


def test_set_members_are_sorted_by_value_not_by_spelling():
    assert describe_config({"a": {10, 9, 1}}).plain == {"a": [1, 9, 10]}


def test_excluded_keys_are_kept_but_do_not_count():
    config = {"lr": 1, "root_log_dir": "/x", "data": {"dir": "/d", "n": 2}}
    found = describe_config(config, exclude=["data.dir"])
    assert found.digest == describe_config({"lr": 1, "data": {"n": 2}}).digest
    assert found.plain == config
    assert found.excluded == (
        *("root_log_dir", "experiment_name", "is_training", "pause_at_step"),
        "data.dir",
    )
    assert found.flat == {"lr": 1, "data.n": 2}


def test_exclusion_takes_full_paths_only():
    one = describe_config({"train": {"dir": 1}}, exclude=["dir"]).digest
    assert one != describe_config({"train": {"dir": 2}}, exclude=["dir"]).digest


def test_an_excluded_value_may_be_anything():
    found = describe_config({"lr": 1, "log": {"sink": object()}}, exclude=["log"])
    assert found.plain["log"] == {"sink": {"$opaque": "builtins.object"}}
    assert found.digest == describe_config({"lr": 1}).digest


def test_exclude_given_as_one_text_is_an_error():
    with pytest.raises(TypeError, match="sequence of dotted paths"):
        describe_config({}, exclude="lr")


@pytest.mark.parametrize("text", ["1e-3", "1E5", "0.001", "3", "-2", ".5", "1_000"])
def test_number_like_text_is_warned_about_by_path(text):
    (warning,) = describe_config({"opt": {"lr": text}}).warnings
    assert warning.startswith(f"opt.lr is the text {text!r}, not a number")


def test_the_warning_says_what_to_write():
    (warning,) = describe_config({"lr": "1e-3"}).warnings
    assert "write 1.0e-3" in warning


@pytest.mark.parametrize("text", ["adam", "007", "v1", "1e", "nan", "", "1.2.3", "-"])
def test_other_text_is_not_warned_about(text):
    assert describe_config({"a": [text]}).warnings == ()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"a\.b\[1\]: a builtins\.object has no deterministic form"),
        ((i for i in ()), "builtins.generator"),
        (torch.nn.Linear(1, 1), "pass modules as `model`"),
        (torch.empty(2, device="meta"), "torch.Tensor"),
        (np.longdouble(1), "no deterministic form"),
        ("\ud800", "lone surrogate"),
        (np, "builtins.module"),
    ],
)
def test_what_has_no_form_is_named_by_path_and_type(value, words):
    with pytest.raises(NotCanonicalError, match=words):
        describe_config({"a": {"b": [0, value]}})


@pytest.mark.parametrize("config", [5, "lr=1", [1, 2], None])
def test_a_config_is_a_mapping(config):
    with pytest.raises(NotCanonicalError, match="mapping of names to values"):
        describe_config(config)


def test_a_cycle_is_an_error():
    inner: dict = {}
    inner["again"] = [inner]
    with pytest.raises(NotCanonicalError, match=r"a\.again\[0\]: a container that holds itself"):
        describe_config({"a": inner})


def test_a_value_used_twice_is_no_cycle():
    shared = [1, 2]
    expected = describe_config({"a": [1, 2], "b": [1, 2]}).digest
    assert describe_config({"a": shared, "b": shared}).digest == expected


def test_aliases_that_explode_are_stopped(monkeypatch):
    monkeypatch.setattr("weightslab.engine.identity.plain.MAX_VALUES", 1000)
    value: list = []
    for _ in range(40):
        value = [value, value]
    with pytest.raises(NotCanonicalError, match="more than 1000 values"):
        describe_config({"a": value})


def test_depth_and_length_are_no_problem():
    deep: Any = 0
    for i in range(1000):
        deep = {"k": deep} if i % 2 else [deep]
    found = describe_config({"deep": deep, "long": list(range(100_000))})
    assert len(found.plain["long"]) == 100_000


def test_two_keys_that_become_one_are_refused():
    with pytest.raises(NotCanonicalError, match="two keys"):
        describe_config({"a": {pathlib.PurePosixPath("x"): 1, "x": 2}})


def test_pairs_with_odd_keys_do_not_depend_on_their_order():
    assert digest({(1, 2): "a", (0, 1): "b"}) == digest({(0, 1): "b", (1, 2): "a"})
    assert digest({(1, 2): ["a"]}) != digest({(1, 2): ["b"]})


def test_an_object_is_read_without_asking_it():
    assert digest(Hostile(1)) == digest(Hostile(1))
    assert digest(Hostile(1)) != digest(Hostile(2))
