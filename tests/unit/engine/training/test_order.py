"""The order of an epoch: golden vectors of the design page, ties, and that it looks like no order."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest
from support.data_order import spot
from support.documents import REPOSITORY

from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.training.order import ActiveRows, Order, epoch_key, spot_of

PAGE = (REPOSITORY / "docs" / "design" / "data_order.md").read_text("utf-8")
KEYS = re.findall(r"^\| (\d+), (\d+) \| `([0-9a-f]{16})` \|$", PAGE, re.MULTILINE)
SPOTS = re.findall(r"^\| `(.+)` \| `([0-9a-f]{16})` \|$", PAGE, re.MULTILINE)
ORDERS = re.findall(r"^\| `(.+)` \| (\d+), (\d+) \| `(\[.+\])` \|$", PAGE, re.MULTILINE)
# lane 0 of the mix is the same for each pair: found by choosing the first word and solving for the second
TWINS = ('00000050]f=_]j6"', "00000400~^*gjUy%", "00001765x=*,Nj-u", "aaaaaaaabbbbbbbb")


def ordered(uids, key):
    active = ActiveRows.of(SampleSet.from_uids(uids))
    return [active.uid(row) for row in active.sorted_by(key).tolist()]


def order_of(uids, key):
    active = ActiveRows.of(SampleSet.from_uids(uids))
    return Order(active, key, active.sorted_by(key), np.arange(len(active)))


def test_the_page_has_vectors():
    assert (len(KEYS), len(SPOTS), len(ORDERS)) == (4, 6, 5)


@pytest.mark.parametrize(("seed", "epoch", "key"), KEYS)
def test_keys_of_epochs_are_those_of_the_page(seed, epoch, key):
    assert f"{epoch_key(int(seed), int(epoch)):016x}" == key


@pytest.mark.parametrize(("uid", "key"), SPOTS)
def test_keys_of_samples_are_those_of_the_page(uid, key):
    assert f"{spot_of(ast.literal_eval(uid), epoch_key(0, 0))[0]:016x}" == key


@pytest.mark.parametrize(("uids", "seed", "epoch", "order"), ORDERS)
def test_orders_are_those_of_the_page(uids, seed, epoch, order):
    given = range(10) if uids == "range(10)" else ast.literal_eval(uids)
    assert ordered(given, epoch_key(int(seed), int(epoch))) == ast.literal_eval(order)


def test_the_order_does_not_depend_on_how_the_set_came_to_be():
    uids = ["b", 3, "-7", *TWINS, "a", 12, "é"]
    grown = SampleSet.from_uids(uids[5:])
    grown.add(uids[:5])
    grown.discard(["a"])
    grown.restore(["a"])
    active = ActiveRows.of(grown)
    rows = active.sorted_by(epoch_key(5, 2))

    assert [active.uid(row) for row in rows.tolist()] == ordered(uids, epoch_key(5, 2))


@pytest.mark.parametrize("epoch", range(3))
def test_texts_of_one_key_are_in_the_order_of_their_bytes(epoch):
    uids = [f"x{n}" for n in range(50)]
    found = ordered([*uids, *reversed(TWINS)], epoch_key(1, epoch))

    at = found.index(TWINS[0])
    assert found[at : at + 4] == list(TWINS)


def test_a_place_between_texts_of_one_key_is_exact():
    key = epoch_key(1, 0)
    order = order_of([f"x{n}" for n in range(50)] + list(TWINS), key)
    uids = [order.active.uid(row) for row in order.rows.tolist()]

    assert [order.offset_after(uid) for uid in uids] == list(range(1, 55))


def test_a_place_is_found_by_a_sample_that_is_gone():
    key = epoch_key(3, 1)
    whole, without = order_of(range(100), key), order_of(range(1, 100), key)

    assert whole.offset_after(0) == without.offset_after(0) + 1


def test_without_shuffling_integers_ascend_and_texts_follow():
    assert ordered(["b", 10, "9", "a", -1], None) == [-1, "9", 10, "a", "b"]


def test_a_set_of_20000_has_the_order_of_the_definition():
    key = epoch_key(9, 4)
    expected = sorted(range(20_000), key=lambda uid: spot(uid, 9, 4))
    assert ordered(range(20_000), key) == expected


def test_positions_are_spread_evenly_over_epochs_and_seeds():
    """Where one sample of 64 stands in 4096 orders: chi-squared of 64 classes, p > 1e-6."""
    active = ActiveRows.of(SampleSet.from_uids(range(64)))
    keys = [epoch_key(seed, epoch) for seed in range(64) for epoch in range(64)]
    at = np.array([active.sorted_by(key).tolist().index(17) for key in keys])

    expected = len(keys) / 64
    assert ((np.bincount(at, minlength=64) - expected) ** 2 / expected).sum() < 130


def test_orders_of_neighbouring_epochs_have_nothing_in_common():
    active = ActiveRows.of(SampleSet.from_uids(range(10_000)))
    ranks = [np.argsort(active.sorted_by(epoch_key(0, epoch))) for epoch in range(4)]
    correlations = np.corrcoef(np.array([*ranks, np.arange(10_000)]))

    assert np.abs(correlations - np.eye(5)).max() < 0.05  # five standard deviations
