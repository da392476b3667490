"""Many processes in one root at once: nothing is lost, nothing half is seen."""

import collections
import contextlib

import pytest
from support.forking import ForkServer
from support.roots import (
    begin,
    components_of,
    content_of,
    fast_folder,
    hash_of,
    listing,
    open_samples,
    read,
    save,
    small_root,
    strangers,
)

from weightslab.engine.errors import StorageError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.jsonform import decode
from weightslab.engine.repository.layout import CheckpointName, samples_base_key

CROWD = 8
HASH = hash_of(0)


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.hands") as opened:
        yield opened


@pytest.fixture
def folder():
    with fast_folder() as made:
        yield made


@pytest.fixture
def path(folder):
    begin(small_root(folder / "root"), 0)
    return str(folder / "root")


def read_name(root, step, revision):
    return read(root, CheckpointName(exp_hash=HASH, step=step, revision=revision))


def check_whole(root):
    assert root.verify() == []
    assert strangers(root) == []


def test_eight_savers_of_different_steps_lose_nothing(server, path):
    jobs = [("save_some", path, 0, list(range(n, 80, CROWD)), "abcdefgh"[n]) for n in range(CROWD)]
    results = server.run(*jobs)
    root = small_root(path)
    assert listing(root) == [(HASH, step, 1, False) for step in range(80)]
    for step in range(80):
        assert read_name(root, step, 1) == content_of("abcdefgh"[step % CROWD])
    for result in results:
        sequences = [sequence for _, _, sequence in result]
        assert sequences == sorted(set(sequences))
    check_whole(root)


def test_eight_hands_on_the_same_step_leave_eight_revisions(server, path):
    server.run(*[("save_some", path, 0, [5, 6, 7], text) for text in "abcdefgh"])
    root = small_root(path)
    for step in (5, 6, 7):
        revisions = [found[2] for found in listing(root) if found[1] == step]
        texts = [read_name(root, step, revision)["model"][:1] for revision in revisions]
        assert sorted(texts) == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"]
    check_whole(root)


def test_eight_hands_with_the_same_content_are_all_acknowledged_with_it(server, path):
    results = server.run(*[("save_some", path, 0, [5], "same", 100_000)] * CROWD)
    root = small_root(path)
    for ((step, revision, _),) in results:
        assert read_name(root, step, revision) == content_of("same", 100_000)
    check_whole(root)


@pytest.mark.slow
def test_of_eight_who_open_one_experiment_exactly_one_creates_it(server, folder):
    path = str(folder / "root")
    for number in range(6):
        created = server.run(*[("open_it", path, number, 50)] * CROWD)
        assert sorted(created) == [False] * 7 + [True]
    root = small_root(path)
    samples = SampleSet.from_uids(range(50))
    expected = {components_of(number, samples).exp_hash for number in range(6)}
    assert set(root.list_hashes()) == expected
    check_whole(root)


@pytest.mark.parametrize("stored", [True, False], ids=["base stored", "base new"])
def test_two_who_open_experiments_of_one_base_at_once_store_deltas_that_are_whole(
    server, folder, stored
):
    path = str(folder / "root")
    root, samples = small_root(path), SampleSet.from_uids(range(5000))
    start = open_samples(root, samples)[0] if stored else 5000
    alike = [[n, n + 100] for n in range(6)]  # both open these, at once, too
    apart = ([[200]], [[300]])
    results = server.run(*[("open_changed", path, start, [*alike, *own]) for own in apart])
    for number, (one, other) in enumerate(zip(*results, strict=True)):
        same = number < len(alike)
        assert (one[0] == other[0], one[1] + other[1]) == (same, 1 if same else 2)
    bases = set()
    for own, found in zip(apart, results, strict=True):
        left = set(range(5000))
        for uids, (exp_hash, _, digest) in zip([*alike, *own], found, strict=True):
            left -= set(uids)
            assert digest == SampleSet.from_uids(left).digest
            assert root.samples(exp_hash).digest == digest
            bases.add(samples_base_key(exp_hash))
    assert root.verify() == []
    assert set(strangers(root)) == bases | {f"{base}.json" for base in bases}


def test_deleter_beside_savers_takes_whole_checkpoints_or_none(server, path):
    jobs = [("save_what_may_be_deleted", path, 0, list(range(n, 60, 3))) for n in range(3)]
    *savers, deleted = server.run(*jobs, ("delete_what_is_there", path, 0, 59))
    assert [saver["refused"] for saver in savers] == [0, 0, 0]
    root = small_root(path)
    saved = {step for saver in savers for step, _ in saver["saved"]}
    assert saved == set(range(60))
    left = {found[1] for found in listing(root)}
    assert len(deleted) == len(set(deleted))
    assert (left | set(deleted), left & set(deleted)) == (saved, set())
    check_whole(root)


class DeletedMeanwhile:
    """A store of a writer; the experiment is deleted just before the manifest is written."""

    def __init__(self, local):
        self._local = local

    def __getattr__(self, name):
        return getattr(self._local, name)

    def put(self, key, parts, *, if_absent=False):
        if "_step_" in key and key.endswith(".json"):
            with contextlib.suppress(StorageError):
                small_root(self._local.describe()).delete(HASH)
        return self._local.put(key, parts, if_absent=if_absent)


def test_experiment_deleted_in_the_middle_of_a_save_shows_no_half_checkpoint(path):
    saved = []
    with contextlib.suppress(StorageError):
        saved.append(save(small_root(path, DeletedMeanwhile), HASH, 1, "text").name)
    root = small_root(path)
    assert [entry.name for entry in root.checkpoints()] == saved
    for name in saved:
        assert read(root, name) == content_of("text")


def test_deleter_of_the_experiment_beside_savers_leaves_no_half_checkpoint(server, path):
    for turn in range(4):
        steps = range(100 * turn, 100 * turn + 25)
        jobs = [("save_what_may_be_deleted", path, 0, [s + 30 * n for s in steps]) for n in (0, 1)]
        server.run(*jobs, ("delete_experiments", path, 0, 40))
        root = small_root(path)
        assert [found for found in listing(root) if found[3]] == []
        for _, step, revision, _ in listing(root):
            assert read_name(root, step, revision) == content_of(f"{step}")
        begin(root, 0)
        check_whole(root)
        manifest = save(root, HASH, 999, f"{turn}")
        assert read(root, manifest.name) == content_of(f"{turn}")
        root.delete(HASH, step=999)


def test_reader_beside_four_savers_never_sees_a_half_checkpoint(server, path):
    jobs = [("save_some", path, 0, list(range(n, 80, 4)), "abcd"[n], 20_000) for n in range(4)]
    *_, first, second = server.run(*jobs, *[("read_all", path, 0, 80)] * 2)
    for turns, wrong in (first, second):
        assert wrong == []
        assert turns > 3
    check_whole(small_root(path))


def test_cleaning_beside_savers_removes_nothing_of_the_living(server, path):
    jobs = [("save_some", path, 0, list(range(n, 60, 3)), "abc"[n]) for n in range(3)]
    *_, removed = server.run(*jobs, ("tidy_forever", path, 60))
    # an empty temporary file may go before its writer has locked it; the writer makes another
    assert [key for key in removed if not key.endswith(".tmp")] == []
    root = small_root(path)
    assert collections.Counter(found[3] for found in listing(root)) == {False: 60}
    check_whole(root)


@pytest.mark.slow
def test_eight_managers_in_one_experiment_keep_every_checkpoint_of_each(folder):
    path = str(folder / "root")
    with ForkServer("support.training_hands") as trainers:
        jobs = [("train_beside_others", path, first, 3) for first in range(10, 90, 10)]
        results = trainers.run(*jobs)
    assert sorted(is_new for _, is_new in results) == [False] * 7 + [True]
    assert len({exp_hash for exp_hash, _ in results}) == 1
    root = small_root(path)
    own = {first + n for first in range(10, 90, 10) for n in range(3)}
    assert {found[1] for found in listing(root)} == {0} | own
    shared = [entry for entry in root.checkpoints() if entry.name.step == 0]
    authors = sorted(decode(root.manifest(entry).metadata, path="")["by"] for entry in shared)
    assert authors == list(range(10, 90, 10))
    check_whole(root)
