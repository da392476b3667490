"""The part of the contract of a store that is about several hands: holds and races."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from weightslab.engine.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.storage.store import HoldMode, Store

__all__ = ["HoldContract"]

_THREADS: Final = 8

Result = TypeVar("Result")


class HoldContract:
    """What every store promises to several threads and processes; part of `StoreContract`."""

    def reader_of(self, store: Store) -> Store:
        """Return a store over the same bytes that refuses to write."""
        raise NotImplementedError

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

    # ------------------------------------------------------------ reading
    def test_readers_share_a_file_and_keep_out_who_wants_it_alone(self, store: Store) -> None:
        store.put("a/key", [b"x"])
        first, second = (self.held(store, "a/key", mode="read") for _ in range(2))
        assert store.hold("a/key", mode="alone") is None
        first.release()
        first.release()
        assert store.hold("a/key", mode="alone") is None
        second.release()
        with self.held(store, "a/key", mode="alone"):
            pass
        assert store.list("a") == ["key"]
        assert bytes(store.map("a/key")) == b"x"

    def test_who_has_a_file_alone_keeps_everybody_out(self, store: Store) -> None:
        store.put("key", [b"x"])
        with self.held(store, "key", mode="alone") as alone:
            assert alone.key == "key"
            assert store.hold("key", mode="read") is None
            assert store.hold("key", mode="alone") is None
        with self.held(store, "key", mode="read"):
            assert bytes(store.map("key")) == b"x"

    def test_file_is_locked_for_reading_where_nothing_may_be_written(self, store: Store) -> None:
        store.put("key", [b"x"])
        reader = self.reader_of(store)
        with self.held(reader, "key", mode="read"):
            assert reader.list("") == ["key"]

    @pytest.mark.parametrize("mode", ["read", "alone"])
    def test_absent_file_cannot_be_locked(self, store: Store, mode: HoldMode) -> None:
        with pytest.raises(ObjectNotFoundError, match="a/key"):
            store.hold("a/key", mode=mode)
        store.put("other", [b"x"])
        assert store.list("") == ["other"]

    def test_file_in_place_of_a_deleted_one_is_not_locked(self, store: Store) -> None:
        store.put("key", [b"old"])
        with self.held(store, "key", mode="read"):
            store.delete("key")
            store.put("key", [b"new"])
            with self.held(store, "key", mode="alone"):
                assert bytes(store.map("key")) == b"new"

    def test_name_that_is_held_is_no_name_that_is_read(self, store: Store) -> None:
        store.put("a/name.json", [b"x"])
        with self.held(store, "a/name.json", mode="read"), self.held(store, "a/name.pending"):
            assert store.list("a") == ["name.json", "name.pending"]

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
    def held(store: Store, key: str, *, mode: HoldMode = "create") -> Any:
        """Return a hold on `key`; nobody may have it."""
        hold = store.hold(key, mode=mode)
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
