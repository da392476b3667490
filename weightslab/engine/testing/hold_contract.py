"""The part of the contract of a store that is about several hands: holds and races."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.storage.store import Store

__all__ = ["HoldContract"]

_THREADS: Final = 8

Result = TypeVar("Result")


class HoldContract:
    """What every store promises to several threads and processes; part of `StoreContract`."""

    # ------------------------------------------------------------ hold
    def test_hold_keeps_others_out_until_it_is_released(self, store: Store) -> None:
        first = store.hold("a/name.pending")
        assert first is not None
        assert first.key == "a/name.pending"
        assert store.hold("a/name.pending") is None
        first.release()
        again = store.hold("a/name.pending")
        assert again is not None
        again.release()

    def test_hold_is_visible_while_it_lasts_and_says_who_has_it(self, store: Store) -> None:
        with self.held(store, "a/name.pending"):
            assert store.list("a") == ["name.pending"]
            holder = json.loads(bytes(store.map("a/name.pending")))
            assert set(holder) >= {"host", "boot", "pid"}
        assert store.list("a") == []

    def test_hold_is_released_when_its_block_fails(self, store: Store) -> None:
        with pytest.raises(KeyError), self.held(store, "key"):
            raise KeyError("in the block")
        assert store.list("") == []

    def test_second_release_does_not_touch_the_next_holder(self, store: Store) -> None:
        first = self.held(store, "key")
        first.release()
        second = self.held(store, "key")
        first.release()
        assert store.hold("key") is None
        second.release()

    def test_holds_of_different_keys_do_not_meet(self, store: Store) -> None:
        with self.held(store, "one"), self.held(store, "two"):
            assert store.list("") == ["one", "two"]

    @pytest.mark.parametrize("field", ["host", "boot"])
    def test_hold_of_another_host_or_boot_is_left_alone(self, store: Store, field: str) -> None:
        with self.held(store, "key"):
            holder = json.loads(bytes(store.map("key")))
        content = json.dumps({**holder, field: "elsewhere"}).encode()
        store.put("key", [content])
        assert store.hold("key") is None
        assert bytes(store.map("key")) == content

    def test_hold_left_by_a_dead_process_is_taken_over(self, store: Store) -> None:
        with self.held(store, "key"):
            content = bytes(store.map("key"))
        store.put("key", [content])
        with self.held(store, "key"):
            assert store.hold("key") is None
        assert store.list("") == []

    def test_file_that_is_no_hold_is_not_taken_over(self, store: Store) -> None:
        store.put("key", [b"somebody's data"])
        assert store.hold("key") is None
        assert bytes(store.map("key")) == b"somebody's data"

    def test_hold_whose_file_was_deleted_frees_the_key(self, store: Store) -> None:
        first = self.held(store, "a/key")
        assert store.delete("a/key") is True
        first.release()
        with self.held(store, "a/key"):
            assert store.hold("a/key") is None

    # ------------------------------------------------------------ threads
    def test_of_many_exclusive_puts_exactly_one_wins(self, store: Store) -> None:
        for turn in range(10):
            key = f"race/{turn}"
            values = [bytes([n]) * 1000 for n in range(_THREADS)]
            wins = self.in_threads(lambda n: store.put(key, [values[n]], if_absent=True))  # noqa: B023
            assert sorted(wins) == [False] * 7 + [True]
            assert bytes(store.map(key)) == values[wins.index(True)]
        assert store.list("race") == [str(turn) for turn in range(10)]

    def test_of_many_threads_exactly_one_holds(self, store: Store) -> None:
        inside: list[int] = []
        crowds: list[int] = []

        def enter(number: int) -> int:
            entered = 0
            for _ in range(20):
                hold = store.hold("race/key")
                if hold is not None:
                    inside.append(number)
                    crowds.append(len(inside))
                    inside.remove(number)
                    hold.release()
                    entered += 1
            return entered

        assert sum(self.in_threads(enter)) >= 1
        assert set(crowds) == {1}
        assert store.list("race") == []

    def test_threads_that_replace_one_key_never_mix_values(self, store: Store) -> None:
        values = [bytes([n]) * 10_000 for n in range(_THREADS)]

        def write_and_read(number: int) -> bool:
            store.put("key", [values[number][:5000], values[number][5000:]])
            return bytes(store.map("key")) in values

        assert self.in_threads(write_and_read) == [True] * _THREADS
        assert store.list("") == ["key"]

    # ------------------------------------------------------------ tools of the contract
    @staticmethod
    def held(store: Store, key: str) -> Any:
        """Return a hold on `key`; nobody may have it."""
        hold = store.hold(key)
        assert hold is not None, f"{key} is held by nobody, and yet it cannot be taken"
        return hold

    @staticmethod
    def in_threads(work: Callable[[int], Result]) -> list[Result]:
        """Run `work(0)` to `work(7)` in threads that start together; return their results."""
        gate = threading.Barrier(_THREADS)

        def start(number: int) -> Result:
            gate.wait(timeout=60)
            return work(number)

        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(start, range(_THREADS)))
