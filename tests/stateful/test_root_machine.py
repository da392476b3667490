"""The root against a dict: whatever is done to it, it holds what was acknowledged, and says so.

`WEIGHTSLAB_TEST_PROFILE=long` runs many more and longer examples.
"""

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.mortal import MortalStore
from support.roots import (
    begin,
    content_of,
    fast_folder,
    hash_of,
    listing,
    read,
    save,
    small_root,
    strangers,
    ticking_clock,
    tidy_all,
)

from weightslab.engine.errors import FormatError, IntegrityError
from weightslab.engine.repository import layout
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.testing.faults import SimulatedCrash

EXPERIMENTS = st.integers(0, 1)
STEPS = st.sampled_from([7, 1_000_000])  # few, so that one thing often meets another
TEXTS = st.sampled_from(["a", "bc", "def"])
PICKS = st.integers(0, 10_000)


def kills(num_calls):
    """Return where a process dies: before or after one of so many writing calls."""
    return st.tuples(st.integers(1, num_calls), st.booleans())


@dataclass
class Saved:
    """A checkpoint as the model knows it; `damage` is None, `manifest` or `file`."""

    text: str
    sequence: int
    damage: str | None = None


class RootMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.place = fast_folder()
        self.folder = self.place.__enter__()
        self.clock = ticking_clock()
        self.moves = 0
        self.saved = {}  # experiment number -> {(step, revision): Saved}
        self.broken_records = set()

    def teardown(self):
        self.place.__exit__(None, None, None)

    @initialize()
    def make(self):
        self.root = small_root(self.folder / "root", clock=self.clock)

    # ------------------------------------------------------------ the model
    def name(self, number, key):
        return CheckpointName(exp_hash=hash_of(number), step=key[0], revision=key[1])

    def newest(self, number, step):
        return max((r for s, r in self.saved[number] if s == step), default=0)

    def next_sequence(self, number):
        # a number is left free for each manifest that cannot be read
        hidden = [s for s in self.saved[number].values() if s.damage == "manifest"]
        known = (s.sequence for s in self.saved[number].values() if s.damage != "manifest")
        return 1 + len(hidden) + max(known, default=0)

    def pick(self, pick, *, only=lambda saved: True):
        found = [
            (number, key)
            for number, checkpoints in sorted(self.saved.items())
            for key, saved in sorted(checkpoints.items())
            if only(saved)
        ]
        return found[pick % len(found)] if found else None

    def has_checkpoints(self):
        return any(self.saved.values())

    def is_usable(self, number):
        return number in self.saved and number not in self.broken_records

    def forget(self, number):
        del self.saved[number]
        self.broken_records.discard(number)

    def outcome(self, number, step, text):
        """Return the key that a save gets, and what is new; None if nothing is written."""
        revision = self.newest(number, step)
        last = self.saved[number].get((step, revision))
        if last is not None and last.text == text and last.damage is None:
            return (step, revision), None
        return (step, revision + 1), Saved(text, self.next_sequence(number))

    # ------------------------------------------------------------ ordinary use
    @rule(number=EXPERIMENTS)
    def open_experiment(self, number):
        if number in self.broken_records:
            with pytest.raises(IntegrityError):
                begin(self.root, number)
            return
        exp_hash, is_new = begin(self.root, number)
        assert exp_hash == hash_of(number)
        assert is_new == (number not in self.saved)
        self.saved.setdefault(number, {})

    @rule(number=EXPERIMENTS)
    def mend_experiment(self, number):
        _, is_new = begin(self.root, number, force=True)
        assert is_new == (number not in self.saved)
        self.saved.setdefault(number, {})
        self.broken_records.discard(number)

    @rule(number=EXPERIMENTS, step=STEPS, text=TEXTS)
    def save(self, number, step, text):
        if not self.is_usable(number):
            self.mend_experiment(number)
        key, new = self.outcome(number, step, text)
        manifest = save(self.root, hash_of(number), step, text)
        assert (manifest.name.step, manifest.name.revision) == key
        if new is not None:
            assert manifest.sequence == new.sequence
            self.saved[number][key] = new

    @precondition(has_checkpoints)
    @rule(pick=PICKS)
    def save_the_same_again(self, pick):
        number, (step, _) = self.pick(pick)
        newest = (step, self.newest(number, step))
        before = self.saved[number][newest]
        manifest = save(self.root, hash_of(number), step, before.text)
        if before.damage is None:
            assert manifest.sequence == before.sequence
        else:
            assert manifest.name.revision == newest[1] + 1
            new = Saved(before.text, manifest.sequence)
            self.saved[number][(step, manifest.name.revision)] = new

    @precondition(has_checkpoints)
    @rule(pick=PICKS, whole_step=st.booleans())
    def delete_a_checkpoint(self, pick, whole_step):
        number, (step, revision) = self.pick(pick)
        self.root.delete(hash_of(number), step=step, revision=None if whole_step else revision)
        for key in list(self.saved[number]):
            if key == (step, revision) or (whole_step and key[0] == step):
                del self.saved[number][key]

    @precondition(lambda self: self.saved)
    @rule(pick=PICKS)
    def delete_an_experiment(self, pick):
        number = sorted(self.saved)[pick % len(self.saved)]
        self.root.delete(hash_of(number))
        self.forget(number)
        assert not (self.root.path / layout.experiment_folder(hash_of(number))).exists()

    @rule()
    def clean_up(self):
        for exp_hash in map(hash_of, self.saved):
            folder = self.root.path / layout.experiment_folder(exp_hash)
            tidy_all(self.root)
            assert [key for key in strangers(self.root) if folder.name in key] == []

    # ------------------------------------------------------------ new places
    @rule()
    def reopen(self):
        self.root = small_root(self.root.path, clock=self.clock)

    @rule(keep_old=st.booleans())
    def go_on_in_a_copy(self, keep_old):
        self.moves += 1
        old, new = self.root.path, self.folder / f"copy-{self.moves}"
        shutil.copytree(old, new)
        if not keep_old:
            shutil.rmtree(old)
        self.root = small_root(new, clock=self.clock)

    # ------------------------------------------------------------ mishaps
    @precondition(lambda self: self.saved)
    @rule(pick=PICKS)
    def remove_a_folder_by_hand(self, pick):
        number = sorted(self.saved)[pick % len(self.saved)]
        shutil.rmtree(self.root.path / layout.experiment_folder(hash_of(number)))
        self.forget(number)

    @precondition(has_checkpoints)
    @rule(pick=PICKS, where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def flip_a_bit_of_a_checkpoint(self, pick, where, bit):
        found = self.pick(pick, only=lambda saved: saved.damage is None)
        if found is None:
            return
        name = self.name(*found)
        parts = ("model", "training")
        keys = [name.manifest_key, *(name.file_key(name.file_name(part)) for part in parts)]
        self.flip(keys[pick % 3], where, bit)
        saved = self.saved[found[0]][found[1]]
        saved.damage = "manifest" if pick % 3 == 0 else "file"

    @precondition(lambda self: self.saved)
    @rule(pick=PICKS, where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def flip_a_bit_of_a_record(self, pick, where, bit):
        number = sorted(self.saved)[pick % len(self.saved)]
        if number not in self.broken_records:
            self.flip(layout.experiment_key(hash_of(number)), where, bit)
            self.broken_records.add(number)

    def flip(self, key, where, bit):
        path = self.root.path / key
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= 1 << bit
        path.write_bytes(content)
        self.root.refresh()  # decay on a disk does not change times, so a listing may not see it

    # ------------------------------------------------------------ kills
    @rule(number=EXPERIMENTS, kill=kills(5))
    def killed_while_opening(self, number, kill):
        if number in self.broken_records:
            return
        died = self.die(lambda root: begin(root, number), kill)
        if not died or hash_of(number) in self.root.list_hashes():
            self.saved.setdefault(number, {})

    @rule(number=EXPERIMENTS, step=STEPS, text=TEXTS, kill=kills(7))
    def killed_while_saving(self, number, step, text, kill):
        if not self.is_usable(number):
            self.mend_experiment(number)
        key, new = self.outcome(number, step, text)
        died = self.die(lambda root: save(root, hash_of(number), step, text), kill)
        if new is not None and (not died or self.is_listed(number, key)):
            self.saved[number][key] = new

    @precondition(has_checkpoints)
    @rule(pick=PICKS, kill=kills(8))
    def killed_while_deleting_a_step(self, pick, kill):
        number, (step, _) = self.pick(pick)
        died = self.die(lambda root: root.delete(hash_of(number), step=step), kill)
        self.drop_what_went(number, [key for key in self.saved[number] if key[0] == step], died)

    @precondition(lambda self: self.saved)
    @rule(pick=PICKS, kill=kills(20))
    def killed_while_deleting_an_experiment(self, pick, kill):
        number = sorted(self.saved)[pick % len(self.saved)]
        died = self.die(lambda root: root.delete(hash_of(number)), kill)
        self.drop_what_went(number, list(self.saved[number]), died)
        if hash_of(number) not in self.root.list_hashes():
            assert self.saved[number] == {}
            self.forget(number)

    def die(self, work, kill):
        """Do `work` in a process that dies at a writing call; go on in a new one."""
        fail_at, after = kill
        mortal = small_root(
            self.root.path,
            lambda local: MortalStore(local, fail_at=fail_at, after=after),
            clock=self.clock,
        )
        died = False
        try:
            work(mortal)
        except SimulatedCrash:
            died = True
        mortal.store.bury()
        self.reopen()
        return died

    def is_listed(self, number, key):
        return (hash_of(number), *key) in {found[:3] for found in listing(self.root)}

    def drop_what_went(self, number, candidates, died):
        for key in candidates:
            if not self.is_listed(number, key):
                del self.saved[number][key]
            else:
                assert died

    # ------------------------------------------------------------ what always holds
    @invariant()
    def listing_equals_the_model(self):
        assert listing(self.root) == sorted(
            (hash_of(number), step, revision, saved.damage == "manifest")
            for number, checkpoints in self.saved.items()
            for (step, revision), saved in checkpoints.items()
        )
        entries = {entry.exp_hash: entry.damaged for entry in self.root.experiments()}
        assert set(entries) == {hash_of(number) for number in self.saved}
        broken = {exp_hash for exp_hash, damaged in entries.items() if damaged is not None}
        assert broken == {hash_of(number) for number in self.broken_records}

    @invariant()
    def good_checkpoints_read_back_and_damaged_ones_never(self):
        for number, checkpoints in self.saved.items():
            for key, saved in checkpoints.items():
                name = self.name(number, key)
                if saved.damage is None:
                    assert read(self.root, name) == content_of(saved.text)
                else:
                    with pytest.raises((IntegrityError, FormatError)):
                        read(self.root, name)

    @invariant()
    def verify_finds_exactly_what_is_damaged(self):
        expected = {layout.experiment_key(hash_of(number)) for number in self.broken_records}
        for number, checkpoints in self.saved.items():
            damaged = [key for key, saved in checkpoints.items() if saved.damage is not None]
            expected |= {self.name(number, key).stem for key in damaged}
        found = {finding.key for finding in self.root.verify()}
        assert {_stem(key) for key in found} == expected

    @invariant()
    def order_and_latest_are_those_of_the_commits(self):
        for number, checkpoints in self.saved.items():
            readable = [(s.sequence, k) for k, s in checkpoints.items() if s.damage != "manifest"]
            readable.sort()
            entries = [
                entry for entry in self.root.checkpoints(hash_of(number)) if entry.damaged is None
            ]
            assert [(e.sequence, (e.name.step, e.name.revision)) for e in entries] == readable
            assert all(a < b for (a, _), (b, _) in itertools.pairwise(readable))
            latest = self.root.latest(hash_of(number))
            found = None if latest is None else (latest.name.step, latest.name.revision)
            assert found == (readable[-1][1] if readable else None)


def _stem(key):
    """Return the checkpoint that a finding is about; other keys stay as they are."""
    parsed = layout.parse_checkpoint_file(Path(key).name)
    return key if parsed is None else parsed[0].stem


PROFILES = {
    "fast": {"max_examples": 100, "stateful_step_count": 25},
    "long": {"max_examples": 3000, "stateful_step_count": 60},
}


@pytest.mark.slow
def test_root_behaves_like_a_dict_through_kills_copies_and_damage():
    profile = PROFILES[os.environ.get("WEIGHTSLAB_TEST_PROFILE", "fast")]
    run_state_machine_as_test(
        RootMachine,
        settings=settings(
            deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, **profile
        ),
    )
