"""Names in a folder, numbers in names, JSON of trainers, and random states of others."""

import math
import random

import numpy as np
import pytest
import torch

from weightslab.engine.errors import FormatError, NotFoundError
from weightslab.formats.accelerate_folders import counted_steps
from weightslab.formats.folders import file_in, find_file, parse_object, step_in_name
from weightslab.formats.parts import as_config, as_metrics, plain_entries
from weightslab.formats.random_states import pack_states


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "..\\a", "C:a", "a\0b", "x" * 256, None, 3, b"a"]
)
def test_what_is_no_name_of_a_file_is_refused(tmp_path, name):
    with pytest.raises(FormatError, match="no name of a file"):
        file_in(tmp_path, name)


def test_a_file_is_found_and_a_folder_or_a_link_that_leads_out_is_not(tmp_path):
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "a").write_text("")
    (tmp_path / "secret").write_text("")
    (home / "in").symlink_to("a")
    (home / "out").symlink_to("../secret")
    (home / "loop").symlink_to("loop")
    assert file_in(home, "a") == home / "a"
    assert file_in(home, "in") == home / "in"
    assert find_file(home, "gone") is None
    for name, error in (("gone", NotFoundError), ("folder", NotFoundError), ("out", FormatError)):
        with pytest.raises(error):
            file_in(home, name)
    with pytest.raises((FormatError, NotFoundError)):
        file_in(home, "loop")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-500", 500), ("epoch=1-step=20", 20), ("model_step_000100", 100), ("iter7", 7),
        ("Step-3", 3), ("model", None), ("footsteps", None), ("v2", None), ("step-" + "9" * 30, None),
    ],
)  # fmt: skip
def test_steps_are_read_from_names(name, step):
    assert step_in_name(name) == step


def test_json_of_trainers_may_have_nan_and_no_key_twice():
    assert math.isnan(parse_object(b'{"loss": NaN}', what="a")["loss"])
    for text in (b"", b"[]", b"{", b'{"a": 1, "a": 2}', b'"x"', b"\xff", b"[" * 100_000):
        with pytest.raises(FormatError):
            parse_object(text, what="a")


def test_what_has_no_stored_form_is_left_out_and_told():
    omitted = []
    assert plain_entries({"a": 1, "b": object(), "c": [torch.ones(1)]}, omitted) == {"a": 1}
    assert [line.split(" ")[0] for line in omitted] == ["b", "c[0]"]
    assert as_config({"lr": object()}, omitted, what="hyper") is None
    assert as_config([1], omitted, what="hyper") is None
    assert as_config({"lr": 1}, omitted, what="hyper") == {"lr": 1}
    assert [line.split(":")[0] for line in omitted[2:]] == ["hyper", "hyper"]


def test_metrics_are_numbers():
    found = {"a": 1, "b": torch.tensor(0.5), "c": True, "d": "1", "e": torch.ones(2), 3: 1.0}
    assert as_metrics(found) == {"a": 1, "b": 0.5}


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        ({0: {"step": torch.tensor(3.0)}, 1: {"step": 5}}, 5),
        ({0: {"step": float("nan")}}, None), ({0: {"step": 1.5}}, None), ({0: {"step": -1}}, None),
        ({0: {}}, None), ({0: 3}, None), ([], None),
    ],
)  # fmt: skip
def test_steps_are_those_an_optimizer_counted(state, steps):
    assert counted_steps({"optimizer": {"state": state}}) == steps


# ---------------------------------------------------------------- random states
def states():
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }


def test_a_random_state_is_packed_as_a_save_does():
    from weightslab.engine.training.rng import capture_random

    omitted = []
    mine, real = pack_states(states(), omitted), capture_random()
    assert torch.equal(mine.pop("bytes"), real.pop("bytes"))
    assert {k: mine[k] for k in states()} == {k: real[k] for k in states()}
    assert omitted == []


@pytest.mark.parametrize(
    "change",
    [
        {"python": None},
        {"python": (3, (1, 2), None)},
        {"python": "text"},
        {"numpy": ("MT19937", np.zeros(624, np.uint32), 10**6, 0, 0.0)},
        {"numpy": ("MT19937", np.zeros(3, np.uint32), 1, 0, 0.0)},
        {"numpy": ("PCG64", np.zeros(624, np.uint32), 1, 0, 0.0)},
        {"torch": torch.zeros(3, dtype=torch.uint8)},
        {"torch": torch.zeros(5056)},
        {"torch": object()},
        {"cuda": [3.5]},
    ],
)
def test_a_random_state_that_is_not_in_order_is_left_out_and_told(change):
    omitted = []
    assert pack_states(states() | change, omitted) is None
    assert omitted[0].startswith("random state: ")
