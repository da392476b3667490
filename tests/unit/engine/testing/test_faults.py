"""`FaultyStore` and `RecordingStore`: the tools of crash tests do what they say."""

from __future__ import annotations

import pytest

from weightslab.engine.errors import StorageFullError
from weightslab.engine.storage import MemoryStore
from weightslab.engine.testing import FaultyStore, Operation, RecordingStore, SimulatedCrash


def save(store):
    """Six writing calls: hold, put, link, sync, delete, release."""
    with store.hold("pending"):
        store.put("a/file", [b"on", b"e"], if_absent=True)
        store.link("a/file", "a/again")
        store.sync("a")
        store.delete("a/file")


def test_without_a_fault_it_counts():
    store = FaultyStore(MemoryStore())
    save(store)
    assert store.calls == 6
    assert store.list("a") == ["again"]


@pytest.mark.parametrize(
    ("fail_at", "left"),
    [
        (1, []),
        (2, ["pending"]),
        (3, ["a/", "pending"]),
        (6, ["a/", "pending"]),
    ],
)
def test_crash_stops_before_the_call_and_nothing_is_tidied_up(fail_at, left):
    inside = MemoryStore()
    with pytest.raises(SimulatedCrash):
        save(FaultyStore(inside, fail_at=fail_at))
    assert inside.list("") == left


def test_crash_after_the_call_leaves_its_effect():
    inside = MemoryStore()
    with pytest.raises(SimulatedCrash):
        save(FaultyStore(inside, fail_at=2, after=True))
    assert bytes(inside.map("a/file")) == b"one"
    assert inside.list("") == ["a/", "pending"]


def test_dead_store_stays_dead():
    store = FaultyStore(MemoryStore(), fail_at=1)
    for _ in range(3):
        with pytest.raises(SimulatedCrash):
            store.put("k", [b"x"])
    assert store.list("") == []


@pytest.mark.parametrize(("lasting", "left"), [(False, ["second"]), (True, [])])
def test_error_passes_or_lasts(lasting, left):
    store = FaultyStore(
        MemoryStore(), fail_at=1, error=lambda: StorageFullError("full"), lasting=lasting
    )
    with pytest.raises(StorageFullError):
        store.put("first", [b"x"])
    try:
        store.put("second", [b"x"])
    except StorageFullError:
        assert lasting
    assert store.list("") == left


def test_error_lets_the_hold_be_released():
    inside = MemoryStore()
    with pytest.raises(StorageFullError):
        save(FaultyStore(inside, fail_at=2, error=lambda: StorageFullError("full")))
    assert inside.list("") == []


def test_recording_keeps_order_keys_and_bytes():
    store = RecordingStore(MemoryStore())
    save(store)
    assert store.steps == [
        ("hold", "pending"),
        ("put", "a/file"),
        ("link", "a/again"),
        ("sync", "a"),
        ("delete", "a/file"),
        ("release", "pending"),
    ]
    assert store.log[1] == Operation(op="put", key="a/file", data=b"one")
    assert store.log[2] == Operation(op="link", key="a/again", source="a/file")


def test_recording_leaves_out_what_changed_nothing():
    store = RecordingStore(MemoryStore())
    store.put("k", [b"x"])
    store.log.clear()
    assert store.put("k", [b"y"], if_absent=True) is False
    assert store.delete("nowhere") is False
    hold = store.hold("held")
    assert store.hold("held") is None
    hold.release()
    hold.release()
    assert store.steps == [("hold", "held"), ("release", "held")]
