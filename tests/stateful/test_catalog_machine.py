"""The catalog against a scan: whatever happens to a root, both say the same.

Two catalogs live through it all, one opened anew now and then. What is done to the inside of an
experiment behind their back is told to them by `refresh` before they are asked about the whole root;
everything else they have to notice. Where files count as settled at once, every change waits for
the next tick of the file system's clock, and only what is asked about the whole root is compared:
other questions would make the catalogs look where they would not have looked.
"""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.roots import begin, content_of, draft_of, fast_folder, hash_of, ticking_clock

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import indexed, layout, stamps
from weightslab.engine.repository.catalog import ScanCatalog, read_manifest
from weightslab.engine.repository.index_file import find_index_path
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint

EXPERIMENTS = st.integers(0, 2)
STEPS = st.sampled_from([7, 8, 1_000_000])
TEXTS = st.sampled_from(["a", "bc", "def"])
WHO = st.integers(0, 1)
PICKS = st.integers(0, 10_000)
SIZE = 2048  # tensors below 1 KiB are in no catalog


class CatalogMachine(RuleBasedStateMachine):
    is_settled_at_once = False

    def __init__(self):
        super().__init__()
        self.place = fast_folder()
        self.folder = self.place.__enter__()
        self.clock = ticking_clock()
        self.num_changes = 0
        self.undamaged = {}
        self.digests = {"xxh3-128:" + "0" * 32}

    def teardown(self):
        self.place.__exit__(None, None, None)

    @initialize()
    def make(self):
        self.path = self.folder / "root"
        self.roots = [self.open(), self.open()]

    def open(self):
        return CheckpointRoot(self.path, clock=self.clock)

    def oracle(self):
        return ScanCatalog(self.roots[0].store)

    def pick(self, pick):
        """Return some experiment that is there, and some manifest in it."""
        scan = self.oracle()
        hashes = scan.exp_hashes()
        if not hashes:
            return None, None
        names = [e.name for e in scan.checkpoints(hashes[pick % len(hashes)])]
        return hashes[pick % len(hashes)], names[pick % len(names)] if names else None

    def tell(self):
        for root in self.roots:
            root.refresh()

    # ------------------------------------------------------------ what is noticed
    @rule(who=WHO, number=EXPERIMENTS, step=STEPS, text=TEXTS)
    def save(self, who, number, step, text):
        try:
            begin(self.roots[who], number, force=True)
        except CheckpointError:
            return
        draft = draft_of(hash_of(number), step, content_of(text, SIZE))
        manifest = write_checkpoint(self.roots[who], draft)
        self.digests |= {tensor.digest for tensor in manifest.tensors.values()}
        entries = self.oracle().checkpoints(hash_of(number))
        assert max(e.sequence for e in entries) >= manifest.sequence

    @rule(who=WHO, pick=PICKS, whole=st.booleans())
    def delete(self, who, pick, whole):
        exp_hash, name = self.pick(pick)
        if exp_hash is None or (name is None and not whole):
            return
        more = {} if whole else {"step": name.step, "revision": name.revision}
        self.roots[who].delete(exp_hash, **more)

    @rule(who=WHO)
    def open_anew(self, who):
        self.roots[who] = self.open()

    @rule(pick=PICKS)
    def move_an_experiment_out(self, pick):
        exp_hash, _ = self.pick(pick)
        if exp_hash is not None:
            kept = self.folder / "kept"
            kept.mkdir(exist_ok=True)
            shutil.rmtree(kept / exp_hash, ignore_errors=True)
            (self.path / layout.experiment_folder(exp_hash)).rename(kept / exp_hash)

    @rule(copied=st.booleans())
    def put_kept_experiments_back(self, copied):
        kept = self.folder / "kept"
        for folder in kept.iterdir() if kept.is_dir() else ():
            target = self.path / layout.experiment_folder(folder.name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target) if copied else folder.rename(target)

    @rule(pick=PICKS, data=st.binary(min_size=1, max_size=40))
    def damage_a_record(self, pick, data):
        exp_hash, _ = self.pick(pick)
        if exp_hash is not None:
            self.write(self.path / layout.experiment_key(exp_hash), data)

    @rule()
    def drop_the_index(self):
        path = find_index_path(self.path)
        for file in path.parent.glob(path.name + "*"):
            file.unlink()
        self.roots = [self.open(), self.open()]

    @rule(data=st.binary(max_size=200), at=st.integers(0, 100_000), whole=st.booleans())
    def damage_the_index(self, data, at, whole):
        path = find_index_path(self.path)
        self.roots = []  # as it is after a power cut: nobody has it open
        content = path.read_bytes() if path.exists() else b""
        at = 0 if whole else at % (len(content) + 1)
        path.write_bytes(data if whole else content[:at] + b"\xff" * 8192 + content[at + 8192 :])
        self.roots = [self.open(), self.open()]

    @rule()
    def mend_manifests(self):
        for path, (inode, content) in self.undamaged.items():
            if path.exists() and path.stat().st_ino == inode:
                self.write(path, content)
        self.undamaged.clear()

    # ------------------------------------------------------------ what is told
    @rule(pick=PICKS, data=st.binary(min_size=1, max_size=40))
    def damage_a_manifest(self, pick, data):
        _, name = self.pick(pick)
        if name is not None:
            path = self.path / name.manifest_key
            self.undamaged.setdefault(path, (path.stat().st_ino, path.read_bytes()))
            self.write(path, data)
            self.tell()

    @rule(pick=PICKS)
    def drop_a_manifest(self, pick):
        _, name = self.pick(pick)
        if name is not None:
            (self.path / name.manifest_key).unlink()

    @rule(pick=PICKS)
    def copy_a_checkpoint_back(self, pick):
        """Files of a checkpoint that was there before come back into an experiment that is there."""
        exp_hash, _ = self.pick(pick)
        kept = self.folder / "kept" / str(exp_hash) / "model"
        if exp_hash is not None and kept.is_dir():
            target = self.path / layout.model_folder(exp_hash)
            shutil.copytree(kept, target, dirs_exist_ok=True)
            self.tell()

    def write(self, path, data):
        path.write_bytes(data)
        self.num_changes += 1  # as it is when damage comes later than the tick of the clock
        os.utime(path, ns=(10**18 + self.num_changes,) * 2)

    # ------------------------------------------------------------ what always holds
    def check_invariants(self, *args, **more):
        if self.is_settled_at_once:
            wait_for_tick(self.folder / "probe")
        super().check_invariants(*args, **more)

    @invariant()
    def both_say_what_a_scan_says(self):
        scan = self.oracle()
        for root in self.roots:
            catalog = root.catalog
            assert isinstance(catalog, indexed.IndexedCatalog)
            assert catalog.latest() == scan.latest()
            if self.is_settled_at_once:
                continue
            assert catalog.exp_hashes() == scan.exp_hashes()
            assert catalog.experiments() == scan.experiments()
            for exp_hash in scan.exp_hashes():
                assert catalog.checkpoints(exp_hash) == scan.checkpoints(exp_hash)
                assert catalog.latest(exp_hash) == scan.latest(exp_hash)
                assert catalog.experiment(exp_hash) == scan.experiment(exp_hash)

    @invariant()
    def both_find_every_content_that_a_scan_finds(self):
        scan = self.oracle().locate(self.digests)
        for root in self.roots:
            found = root.catalog.locate(self.digests)
            assert {d: contents(p) for d, p in found.items()} == {
                d: contents(p) for d, p in scan.items()
            }
            for places in found.values():
                for place in places:
                    manifest = read_manifest(root.store, place.name)
                    assert place.file in manifest.files
                    assert place.tensor in manifest.tensors.values()


def contents(places):
    return {(place.file.digest, place.file.size_bytes) for place in places}


def wait_for_tick(probe):
    """Return when a change of a file gets another time than one before the call."""
    probe.touch()
    before = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns == before:
        probe.touch()


PROFILES = {
    "fast": {"max_examples": 20, "stateful_step_count": 20},
    "long": {"max_examples": 3000, "stateful_step_count": 50},
}


class SettledMachine(CatalogMachine):
    is_settled_at_once = True


def run(machine):
    profile = PROFILES[os.environ.get("WEIGHTSLAB_TEST_PROFILE", "fast")]
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, **profile
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("max_read", [-1, 64], ids=["index", "memory first"])
def test_catalog_says_what_a_scan_says_through_copies_damage_and_lost_indexes(
    monkeypatch, max_read
):
    monkeypatch.setattr(indexed, "_MAX_READ", max_read)
    run(CatalogMachine)


@pytest.mark.slow
def test_journal_and_stamps_alone_tell_of_every_change(monkeypatch):
    monkeypatch.setattr(indexed, "_MAX_RECENT", 0)
    monkeypatch.setattr(indexed, "_FEW", -1)
    monkeypatch.setattr(stamps, "_COPY_GRACE_NS", 0)
    monkeypatch.setattr(stamps, "_FINE_GRACE_NS", 0)
    run(SettledMachine)
