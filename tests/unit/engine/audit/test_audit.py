"""Audits: verdicts, proofs and reports; the same from the index as from the files."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from support.lines import FRESH, Lines, link_to

from weightslab.engine.errors import ExperimentNotFoundError, IdentityError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.root import CheckpointRoot


def story():
    """A has 1 to 3; B discards 3; C, from before B, has nothing of it; D restores 3."""
    root = Lines()
    a, b = root.experiment(0, [1, 2, 3]), root.experiment(1, [1, 2])
    first = root.save(a, 10)
    second = root.save(b, 20, first)
    fresh = root.save(b, 1)
    c = root.experiment(2, [1])
    third = root.save(c, 2, fresh)
    d = root.experiment(3, [1, 3])
    root.save(d, 3, third)
    return root, (a, b, c, d), second


def test_what_was_active_anywhere_before_is_possible():
    root, (a, b, c, d), _ = story()
    report = root.audit([3])

    assert {c.reference: c.verdict for c in report} == {
        f"{a}@10": "possible",
        f"{b}@20": "possible",
        f"{b}@1": "clean",
        f"{c}@2": "clean",
        f"{d}@3": "possible",
    }
    assert report.newest_clean.reference == f"{c}@2"
    assert report.counts == {"seen": 0, "possible": 3, "unknown": 0, "clean": 2}
    assert {c.reference for c in report.tainted} == {f"{a}@10", f"{b}@20", f"{d}@3"}


def test_the_proof_is_the_way_back_to_where_the_sample_came_in():
    root, (a, b, _, _), second = story()
    (found,) = (c for c in root.audit([3]) if c.name == second.name)

    told = [(s.checkpoint, s.exp_hash, s.how, s.active) for s in found.proof]
    assert told == [(f"{b}@20", b, "own", ()), (f"{a}@10", a, "own", (3,))]


def test_an_experiment_that_saved_nothing_taints():
    root = Lines()
    a, b = root.experiment(0, [1]), root.experiment(1, [1, 9])
    first = root.save(a, 1)
    root.save(a, 2, link_to(first, via=(b,)))

    first, second = root.audit([9])
    assert (first.verdict, second.verdict) == ("clean", "possible")
    assert [(s.exp_hash, s.how) for s in second.proof][-1] == (b, "via")


@pytest.mark.parametrize("loss", ["lose_experiment", "damage_samples", "no samples", "no record"])
def test_what_is_not_known_is_never_clean(loss):
    root = Lines()
    a = root.experiment(0, None if loss == "no samples" else [1])
    b = root.experiment(1, [2])
    root.save(b, 2, root.save(a, 1))
    if loss == "no record":
        root.store.delete(f"checkpoints/{a}/experiment.json")
    elif loss != "no samples":
        getattr(root, loss)(a)
    root.catalog.refresh()
    report = root.audit([9])

    assert {c.verdict for c in report} == {"unknown"}
    assert report.newest_clean is None
    assert a in next(c.unknown for c in report if c.name.exp_hash == b)


def test_a_lost_samples_file_is_read_from_another_experiment_with_the_same_set():
    root = Lines()
    a, b = root.experiment(0, [1]), root.experiment(1, [1])
    root.save(a, 1)
    root.damage_samples(a)

    assert [c.verdict for c in root.audit([9])] == ["clean"]
    root.damage_samples(b)
    assert [c.verdict for c in root.audit([9])] == ["unknown"]


def test_when_it_is_unknown_whether_something_was_in_between_it_is_not_clean():
    root = Lines()
    a = root.experiment(0, [1])
    first = root.save(a, 1)
    root.save(a, 2, link_to(first, exact=None))

    assert [c.verdict for c in root.audit([9])] == ["clean", "unknown"]
    assert [c.verdict for c in root.audit([1])] == ["possible", "possible"]


def test_a_damaged_checkpoint_is_listed_and_not_clean():
    root = Lines()
    a = root.experiment(0, [1])
    first = root.save(a, 1)
    root.save(a, 2)
    root.damage(first)

    assert [c.verdict for c in root.audit([9])] == ["unknown", "clean"]
    assert [c.verdict for c in root.audit([1])] == ["possible", "possible"]


def test_one_experiment_alone_with_its_ancestry():
    root, (_a, _b, c, d), _ = story()

    report = root.audit([3], d)
    assert [found.reference for found in report] == [f"{d}@3"]
    assert root.audit([3], c[:6]).newest_clean.reference == f"{c}@2"
    with pytest.raises(ExperimentNotFoundError):
        root.audit([3], "zz")


def test_a_uid_that_is_nowhere_is_told_because_it_may_be_a_slip():
    root, _, _ = story()

    report = root.audit([3, 99, "99x"])
    assert report.never_active == (99, "99x")
    assert "active in no experiment here: 99, '99x'" in str(report)


@pytest.mark.parametrize(
    ("uids", "error"),
    [([], ValueError), ("17", IdentityError), (None, IdentityError), ([None], IdentityError)],
)
def test_what_is_no_collection_of_uids_is_an_error(uids, error):
    with pytest.raises(error):
        Lines().audit(uids)


def test_numbers_and_decimal_text_are_one_sample():
    root = Lines()
    root.save(root.experiment(0, ["17", "x"]), 1)

    for uids in ([17], ["17"], np.array([17]), SampleSet.from_uids(["x"])):
        assert [c.verdict for c in root.audit(uids)] == ["possible"]


def test_the_report_is_plain_json_from_which_each_verdict_can_be_followed():
    root, (a, b, _, _), _ = story()
    told = json.loads(json.dumps(root.audit([3]).to_dict()))

    assert (told["schema"], told["schema_version"]) == ("weightslab.audit", 1)
    by_name = {each["checkpoint"]: each for each in told["lineage"]}
    at, way = f"{b}@20", []
    while at is not None:
        way.append(at)
        at = by_name[at]["parent"]
    assert way == [f"{b}@20", f"{a}@10"]
    assert told["experiments"][a] == [3]
    assert by_name[way[-1]]["trained_by"] == [a]
    assert (told["uids"], told["newest_clean"]) == ([3], root.audit([3]).newest_clean.reference)


def test_the_text_of_a_report_fits_a_screen():
    root, (a, b, c, d), _ = story()

    assert str(root.audit([3])).split("\n") == [
        "3: 3 possible, 2 clean",
        f"newest clean: {c}@2",
        f"  {a} step 10: possible 3, by {a}@10",
        f"  {b} step 20: possible 3, by {a}@10",
        f"  {b} step 1: clean",
        f"  {c} step 2: clean",
        f"  {d} step 3: possible 3, by {d}@3",
    ]
    assert root.audit([3])._repr_html_().startswith("<pre>3: 3 possible")
    assert str(Lines().audit([1])).startswith("1: no checkpoints\nnewest clean: none")


def test_the_history_of_a_sample_names_who_discarded_and_restored_it():
    root = Lines()
    a, b, c = root.experiment(0, [1, 3]), root.experiment(1, [1]), root.experiment(2, [3])
    d = root.experiment(3)
    root.save(c, 3, root.save(b, 2, root.save(a, 1)))
    e = root.experiment(4, [1], changed_from={"exp_hash": a, "changes": []})
    told = root.sample_history(3)

    assert [(x.kind, x.exp_hash, x.previous, x.step, x.basis) for x in told.events] == [
        ("begun_with", a, None, None, "checkpoints"),
        ("discarded", b, a, 1, "checkpoints"),
        ("restored", c, b, 2, "checkpoints"),
        ("discarded", e, a, None, "stated"),
    ]
    assert (told.active_in, told.inactive_in) == ((a, c), (b, e))
    assert list(told.unknown_in) == [d]
    assert json.loads(json.dumps(told.to_dict()))["uid"] == 3
    assert f"  restored by {c}, after {b}@2" in str(told)
    assert [x.kind for x in root.sample_history(99).events] == []


def test_training_that_came_back_restored_what_it_had_begun_with():
    root = Lines()
    a, b = root.experiment(0, [1, 3]), root.experiment(1, [1])
    root.save(a, 3, root.save(b, 2, root.save(a, 1)))

    told = [(x.kind, x.exp_hash, x.previous) for x in root.sample_history(3).events]
    assert told == [("begun_with", a, None), ("discarded", b, a), ("restored", a, b)]


# ---------------------------------------------------------------- from the index
@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A root of deltas over one base of 5,000 samples, with manifests and an index."""
    path = tmp_path_factory.mktemp("large")
    opened = CheckpointRoot(path)
    root = Lines(opened.store)
    samples = SampleSet.from_uids([*range(5000), "a", "b"])
    before, hashes = FRESH, []
    for n in range(14):
        if n:
            samples.discard([n, n + 100])
        if n == 10:
            samples.restore([3])
            samples.add([9000])
        hashes.append(root.experiment(n, samples))
        for step in range(3):
            before = root.save(hashes[-1], step, before)
    for folder in path.glob("checkpoints/*/model"):
        os.utime(folder, (0, 0))
    return path, root, hashes


def verdicts(root, uids):
    return {c.reference: (c.verdict, c.possible) for c in root.audit(uids)}


@pytest.mark.slow
def test_the_index_answers_as_the_files_do(large):
    path, root, hashes = large
    opened = CheckpointRoot(path, read_only=True)

    for uids in ([3], [1, 9000, "a"], [109, 77777]):
        expected = verdicts(root, uids)
        assert verdicts(opened, uids) == expected
        assert verdicts(CheckpointRoot(path, read_only=True), uids) == expected
    assert opened.lineage().to_dict() == root.lineage().to_dict()
    assert opened.history(hashes[-1]).to_dict() == root.history(hashes[-1]).to_dict()


@pytest.mark.slow
def test_sets_that_are_remembered_are_not_read_again(large, monkeypatch):
    path, _, hashes = large
    CheckpointRoot(path, read_only=True).audit([3])
    from weightslab.engine.audit import membership

    read = []
    real = membership.read_samples
    monkeypatch.setattr(
        membership, "read_samples", lambda *args: read.append(args[1].exp_hash) or real(*args)
    )
    again = CheckpointRoot(path, read_only=True)
    report = again.audit([3])

    assert len(read) <= 2
    assert report.counts["possible"] == 42
    victim = path / "checkpoints" / hashes[12] / "data" / f"{hashes[12]}_samples.h5"
    content = victim.read_bytes()
    victim.write_bytes(content[:-1])
    try:
        assert CheckpointRoot(path, read_only=True).audit([77777]).counts["unknown"] == 6
    finally:
        victim.write_bytes(content)


def test_lineage_follows_what_is_saved_and_deleted_later(tmp_path):
    opened = CheckpointRoot(tmp_path)
    root = Lines(opened.store)
    a, b = root.experiment(0), root.experiment(1)
    first = root.save(a, 1)
    assert opened.lineage().edges == ()
    crossing = root.save(b, 2, first)
    opened.refresh()
    assert [e.child for e in opened.lineage().edges] == [b]
    root.lose(crossing)
    opened.refresh()
    assert opened.lineage().edges == ()
