"""`root.gc`: what it leaves on disk, what it looks at again, what it tells."""

import json
from datetime import timedelta

import pytest
from support.collected import line, parent_of, root_at, save, steps_of
from support.roots import ORIGIN, begin, fast_folder, read, small_root

from weightslab.engine.collecting.collector import Collector
from weightslab.engine.errors import ReadOnlyStoreError
from weightslab.engine.jsonform import seal
from weightslab.engine.repository.claim import reading
from weightslab.engine.repository.commit import delete_checkpoint
from weightslab.engine.repository.notes import add_note
from weightslab.engine.retention.policies import (
    BestN,
    ByteBudget,
    CustomSteps,
    LatestN,
    PreserveAll,
)
from weightslab.engine.retention.rules import Retention
from weightslab.engine.screen import MAX_COLUMNS, MAX_LINES


@pytest.fixture
def folder():
    with fast_folder() as found:
        yield found


@pytest.fixture
def made(folder):
    root, exp_hash = root_at(folder / "root")
    return root, exp_hash, line(root, exp_hash, [100, 200, 300, 400])


def files_of(root):
    return {
        p.relative_to(root.path).as_posix(): p.read_bytes()
        for p in root.path.rglob("*")
        if p.is_file()
    }


def steps(names):
    return sorted(name.step for name in names)


def weights_of(root, manifest):
    return root.path / manifest.name.file_key(manifest.weights_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class Meanwhile:
    """A store in which something happens once, as soon as a checkpoint is claimed."""

    def __init__(self, store, name, action):
        self._store = store
        self._key = name.pending_key
        self._action = action

    def __getattr__(self, name):
        return getattr(self._store, name)

    def hold(self, key, **more):
        if key == self._key and self._action is not None:
            action, self._action = self._action, None
            action()
        return self._store.hold(key, **more)


# ---------------------------------------------------------------- what it does
def test_dry_run_changes_nothing_and_tells_what_the_real_run_does(made):
    root, exp_hash, _ = made
    before = files_of(root)
    wanted = Retention(keep=LatestN(2), training=LatestN(1))
    told = root.gc(wanted, dry_run=True)
    assert files_of(root) == before
    done = root.gc(wanted)
    assert (told.decisions, told.freed_bytes) == (done.decisions, done.freed_bytes)
    assert steps_of(root, exp_hash) == [(300, 2, False), (400, 1, True)]


def test_what_is_dropped_can_be_had_back_whole(made):
    root, exp_hash, manifests = made
    content = read(root, manifests[0].name)
    root.gc(LatestN(1))
    root.restore(f"{exp_hash}_step_000100")
    assert read(root, manifests[0].name) == content


def test_a_second_collection_does_nothing(made):
    root, _, _ = made
    wanted = Retention(keep=LatestN(3), training=LatestN(2), budget=ByteBudget(300))
    assert root.gc(wanted).dropped
    again = root.gc(wanted)
    assert (again.dropped, again.thinned, again.freed_bytes) == ((), (), 0)


def test_freed_and_kept_bytes_are_those_on_disk(made):
    root, _, _ = made
    sizes = lambda: sum(p.stat().st_size for p in root.path.rglob("*.safetensors"))  # noqa: E731
    before = sizes()
    report = root.gc(Retention(keep=LatestN(2), training=LatestN(1), trash_lifetime=timedelta(0)))
    assert (before - sizes(), sizes()) == (report.freed_bytes, report.kept_bytes)


def test_links_to_shared_bytes_free_nothing_until_the_last_goes(folder):
    root, exp_hash = root_at(folder / "root")
    line(root, exp_hash, [1, 2, 3], text="frozen", size_bytes=1_200_000)
    report = root.gc(Retention(keep=LatestN(1), trash_lifetime=timedelta(0)))
    assert steps(report.dropped) == [1, 2]
    assert report.freed_bytes < 1_000
    assert root.verify() == []


def test_a_read_only_root_can_be_asked_and_not_changed(made):
    root, _, _ = made
    other = small_root(root.path, read_only=True)
    assert steps(other.gc(LatestN(1), dry_run=True).dropped) == [100, 200, 300]
    with pytest.raises(ReadOnlyStoreError, match="drop checkpoints"):
        other.gc(LatestN(1))


def test_without_a_policy_everything_is_kept_or_that_of_the_manager_counts(made):
    root, _, _ = made
    assert root.gc().dropped == ()
    root.retention = Retention.of(LatestN(3))
    assert steps(root.gc(dry_run=True).dropped) == [100]


def test_scope_root_looks_at_all_experiments_together(made):
    root, first, _ = made
    second = begin(root, 1)[0]
    line(root, second, [1, 2, 3])
    report = root.gc(LatestN(2, scope="root"))
    assert steps_of(root, first) == [(400, 1, True)]
    assert steps_of(root, second) == [(2, 1, True), (3, 1, True)]
    assert len(report.dropped) == 4


def test_the_journal_tells_what_went(made):
    root, exp_hash, _ = made
    root.gc(LatestN(3))
    (told,) = [r for r in root.journal.read() if r["event"] == "checkpoints_collected"]
    assert (told["exp_hash"], told["dropped"]) == (exp_hash, [f"{exp_hash}_step_000100"])


# ---------------------------------------------------------------- damage
def test_a_newest_one_with_a_flipped_bit_keeps_the_one_before_it(made):
    root, _, manifests = made
    flip(weights_of(root, manifests[3]))
    report = root.gc(LatestN(1))
    assert (steps(report.dropped), steps(report.kept)) == ([100, 200], [300])
    assert "step_000400 is left where it is, damaged: " in str(report)
    assert weights_of(root, manifests[3]).exists()


def test_a_best_one_with_a_flipped_bit_keeps_the_second_best(folder):
    root, exp_hash = root_at(folder / "root")
    manifests = [save(root, exp_hash, n, metrics={"loss": float(n)}) for n in (1, 2, 3, 4)]
    flip(weights_of(root, manifests[0]))
    assert steps(root.gc(BestN("loss")).kept) == [2, 4]


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_missing_and_cut_files_are_damage_that_is_left_alone(made, harm):
    root, _, manifests = made
    harm(weights_of(root, manifests[0]))
    harm(weights_of(root, manifests[3]))
    report = root.gc(LatestN(1))
    assert (steps(report.dropped), steps(report.kept)) == ([200], [300])


def test_a_damaged_answer_keeps_the_older_revision_of_its_step(made):
    root, exp_hash, _ = made
    newer = save(root, exp_hash, 100, text="again")
    line(root, exp_hash, [500])
    flip(weights_of(root, newer))
    root.gc(CustomSteps([100]))
    assert steps_of(root, exp_hash)[0] == (100, 1, True)


def test_an_experiment_whose_record_is_lost_is_left_alone(made):
    root, exp_hash, _ = made
    (root.path / f"checkpoints/{exp_hash}/experiment.json").unlink()
    report = root.gc(LatestN(1))
    assert report.dropped == ()
    assert report.problems[0].startswith(f"nothing of experiment {exp_hash} is changed: ")


def test_an_experiment_with_notes_that_cannot_be_read_is_left_alone(made):
    root, exp_hash, _ = made
    root.pin(exp_hash, step=100)
    (note,) = (root.path / f"checkpoints/{exp_hash}/notes").iterdir()
    note.write_bytes(note.read_bytes()[:-5])
    report = root.gc(LatestN(1))
    assert report.dropped == ()
    assert "what is pinned is not known" in report.decisions[0].reason


def test_what_a_newer_version_wrote_keeps_its_experiment_and_its_parent(made):
    root, exp_hash, manifests = made
    other = begin(root, 1)[0]
    line(root, other, [1, 2])
    child = save(root, other, 3, parent=manifests[0])
    path = root.path / child.name.manifest_key
    document = json.loads(path.read_bytes()) | {"schema_version": 99}
    del document["digest"]
    path.write_bytes(seal(document))
    report = root.gc(LatestN(1))
    assert [(n.exp_hash, n.step) for n in report.dropped] == [(exp_hash, 300), (exp_hash, 200)]


# ---------------------------------------------------------------- what others do meanwhile
def pin_by_hand(root, exp_hash):
    add_note(root.store, exp_hash, kind="pin", step=100, now=ORIGIN)  # the journal does not tell


@pytest.mark.parametrize("pin", [lambda root, h: root.pin(h, step=100), pin_by_hand])
def test_a_pin_set_meanwhile_keeps_its_checkpoint(made, pin):
    root, exp_hash, manifests = made
    local, other = root.store, small_root(root.path)
    root.store = Meanwhile(local, manifests[0].name, lambda: pin(other, exp_hash))
    report = root.gc(LatestN(1))
    assert steps(report.dropped) == [200, 300]
    assert any("pinned" in problem for problem in report.problems)


def test_a_child_saved_meanwhile_keeps_its_branch_point(made):
    root, _, manifests = made
    local, other = root.store, small_root(root.path)
    second = begin(other, 1)[0]
    action = lambda: save(other, second, 1, parent=manifests[0])  # noqa: E731
    root.store = Meanwhile(local, manifests[0].name, action)
    report = root.gc(LatestN(1))
    assert steps(report.dropped) == [200, 300]
    (problem,) = report.problems
    assert problem.endswith(f"stays for now: the root changed meanwhile: branch point of {second}")


def test_a_child_saved_after_its_parent_went_brings_it_back(made):
    root, exp_hash, manifests = made
    local, other = root.store, small_root(root.path)
    second = begin(other, 1)[0]
    action = lambda: save(other, second, 1, parent=manifests[2])  # noqa: E731
    thinned = manifests[0]
    line(root, exp_hash, [500])
    root.pin(exp_hash, step=400)
    root.store = Meanwhile(local, thinned.name, action)  # 300 goes before 100 is looked at
    wanted = Retention(keep=LatestN(1) | CustomSteps([100]), training=LatestN(1))
    report = root.gc(wanted)
    assert (300, 1, True) in steps_of(root, exp_hash)
    assert any("came back from the trash" in problem for problem in report.problems)
    assert steps(report.dropped) == [200]


def delete_by_hand(root, exp_hash):
    delete_checkpoint(root.store, root.get_checkpoint(exp_hash, 400).name)


@pytest.mark.parametrize("delete", [lambda root, h: root.delete(h, step=400), delete_by_hand])
def test_the_newest_deleted_meanwhile_keeps_the_one_before_it(made, delete):
    root, exp_hash, manifests = made
    local, other = root.store, small_root(root.path)
    root.store = Meanwhile(local, manifests[2].name, lambda: delete(other, exp_hash))
    report = root.gc(LatestN(1))
    assert steps_of(root, exp_hash) == [(300, 1, True)]
    (problem,) = report.problems
    assert "stays for now: the root changed meanwhile: the newest of" in problem


def test_what_is_being_read_is_passed_over_until_the_next_time(made):
    root, _, manifests = made
    with reading(root.store, manifests[1].name):
        report = root.gc(LatestN(1))
    assert steps(report.dropped) == [100, 300]
    assert any("200 stays for now" in problem for problem in report.problems)
    assert steps(root.gc(LatestN(1)).dropped) == [200]


def test_what_is_passed_over_keeps_its_branch_point(made):
    root, _, manifests = made
    other = begin(root, 1)[0]
    (child, _) = line(root, other, [1, 2], parent=manifests[0])
    with reading(root.store, child.name):
        report = root.gc(LatestN(1))
    assert steps(report.dropped) == [200, 300]


def test_a_collection_of_one_experiment_minds_the_children_in_others(made):
    root, exp_hash, manifests = made
    other = begin(root, 1)[0]
    line(root, other, [1, 2, 3], parent=manifests[1])
    collector = Collector(root, Retention.of(LatestN(1)), focus=exp_hash)
    assert steps(collector.collect().dropped) == [100, 300]
    assert len(steps_of(root, other)) == 3


# ---------------------------------------------------------------- the trash
def test_what_was_in_the_trash_for_its_time_is_deleted_for_good(made):
    root, _, _ = made
    root.gc(LatestN(3))
    root.clock = lambda: ORIGIN + timedelta(days=6)
    assert root.gc(LatestN(3)).emptied == ()
    root.clock = lambda: ORIGIN + timedelta(days=8)
    told, done = (root.gc(LatestN(3), dry_run=dry_run) for dry_run in (True, False))
    assert len(told.emptied) == len(done.emptied) == 1
    assert root.trash.list() == []


def test_a_shorter_time_is_not_for_what_people_put_there(made):
    root, exp_hash, _ = made
    root.trash.put(exp_hash, 100)
    report = root.gc(Retention(keep=LatestN(2), trash_lifetime=timedelta(0)))
    assert steps(report.dropped) == [200]
    assert [entry.name.step for entry in root.trash.list()] == [100]


def test_without_a_time_in_the_trash_thinned_bytes_are_free_at_once(made):
    root, _, _ = made
    report = root.gc(Retention(training=LatestN(1), trash_lifetime=timedelta(0)))
    assert steps(report.thinned) == [100, 200, 300]
    assert root.trash.list() == []
    assert "deleted at once" in str(report)


# ---------------------------------------------------------------- the report
def test_the_report_fits_on_a_screen_and_counts_what_it_leaves_out(folder):
    root, exp_hash = root_at(folder / "root")
    line(root, exp_hash, range(60), metrics={"x" * 200: 1.0})
    report = root.gc(BestN("x" * 200, 50) | LatestN(50), dry_run=True)
    lines = str(report).split("\n")
    assert len(lines) == MAX_LINES
    assert max(map(len, lines)) <= MAX_COLUMNS
    assert "more checkpoints" in str(report)


def test_the_report_is_plain_json(made):
    root, exp_hash, _ = made
    told = json.loads(json.dumps(root.gc(LatestN(3), dry_run=True).to_dict()))
    assert told["decisions"][0] == {
        "action": "drop",
        "exp_hash": exp_hash,
        "freed_bytes": told["freed_bytes"],
        "reason": "no policy keeps it",
        "revision": 1,
        "step": 100,
    }
    assert told["trash_lifetime_seconds"] == 7 * 86_400


def test_earlier_problems_of_the_manager_are_told_once(made):
    root, _, _ = made
    root.retention_problems.append("the retention failed after a save: OSError: no")
    assert root.gc(PreserveAll()).problems == ("the retention failed after a save: OSError: no",)
    assert root.gc(PreserveAll()).problems == ()


def test_parents_in_via_keep_their_experiments(made):
    root, exp_hash, manifests = made
    second, third = begin(root, 1)[0], begin(root, 2)[0]
    line(root, second, [1, 2])
    save(root, third, 1, parent=manifests[3], via=[second])
    assert parent_of(manifests[3], [second]).exact is False
    report = root.gc(LatestN(1))
    assert {n.exp_hash for n in report.dropped} == {exp_hash}
