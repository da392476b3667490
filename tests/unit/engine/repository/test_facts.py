"""Facts about experiments stay true: whatever happened to the files, to the index, or to both."""

import os
import shutil
import sqlite3

import pytest
from support.searches import age, begin, open_root, save

from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.config_file import config_to_bytes
from weightslab.engine.repository.index_file import find_index_path
from weightslab.engine.repository.layout import config_key, notes_folder
from weightslab.engine.root import CheckpointRoot

WHERE = (
    "config.lr > 0 and not tag = gone",
    "tag = paper or name ~ run",
    "metric.loss < 0.5 and missing note",
    "pinned or damaged",
    "checkpoints > 1 and model.parameters >= 10",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """Two experiments with two checkpoints each, at rest and asked about."""
    root = open_root(tmp_path / "root")
    for lr in (0.1, 0.2):
        exp_hash = begin(root, {"lr": lr}, model_class="Net", num_parameters=10)
        for step in (1, 2):
            save(root, exp_hash, step, loss=lr * 3 / step)
    root.notes.tag(lrs(root)[0.1], "paper")
    age(root)
    assert_true(root)
    return root


def lrs(root):
    """Return learning rate -> hash."""
    return {root.config(e.exp_hash)["lr"]: e.exp_hash for e in root.experiments()}


def found(root, where):
    return sorted(e.exp_hash for e in root.experiments(where=where))


def assert_true(root):
    """Every filter finds what one without an index finds, in this process and in a new one."""
    scan = CheckpointRoot(root.path, clock=root.clock, read_only=True)
    scan.catalog = ScanCatalog(scan.store)
    fresh = CheckpointRoot(root.path, clock=root.clock, read_only=True)
    for where in WHERE:
        expected = scan.experiments(where=where), scan.checkpoints(where=where, order="hash, step")
        for asked in (root, fresh):
            told = (
                asked.experiments(where=where),
                asked.checkpoints(where=where, order="hash, step"),
            )
            assert told == expected, where
    rows = scan.experiments().rows()
    assert root.experiments().rows() == rows
    assert fresh.experiments(order="created").rows() == rows


def in_another_root(root, tmp_path):
    """Return a root with one more experiment, which has notes."""
    other = open_root(tmp_path / "other")
    exp_hash = begin(other, {"lr": 0.3}, model_class="Net", num_parameters=30)
    save(other, exp_hash, 1, loss=0.01)
    save(other, exp_hash, 2, loss=0.02)
    other.notes.name(exp_hash, "run 3")
    return other, exp_hash


def test_note_that_is_copied_in_or_removed_by_hand_is_seen(root, tmp_path):
    first, second = lrs(root).values()
    assert found(root, "tag = paper") == [first]
    folder = root.path / notes_folder(first)
    shutil.move(folder, tmp_path / "aside")
    assert found(root, "tag = paper") == []
    shutil.copytree(tmp_path / "aside", folder)
    assert found(root, "tag = paper") == [first]
    assert second not in found(root, "exists tag")
    assert_true(root)


def test_config_that_is_added_exchanged_or_removed_by_hand_is_seen(root):
    exp_hash = lrs(root)[0.1]
    file = root.path / config_key(exp_hash, revision=2)
    file.write_bytes(config_to_bytes({"lr": 7.0, "new": 1}, name=file.name))
    assert found(root, "config.lr = 7 and config.new = 1") == [exp_hash]
    file.unlink()
    assert found(root, "config.lr = 0.1") == [exp_hash]
    own = root.path / config_key(exp_hash)
    content = own.read_bytes()
    own.unlink()
    assert found(root, "config.lr > 0") == [lrs_of_others(root, exp_hash)]
    own.write_bytes(content)
    assert found(root, "config.lr = 0.1") == [exp_hash]
    assert_true(root)


def lrs_of_others(root, exp_hash):
    return next(e.exp_hash for e in root.experiments() if e.exp_hash != exp_hash)


def test_config_that_is_damaged_or_mended_in_place_is_not_offered(root):
    exp_hash = lrs(root)[0.1]
    file = root.path / config_key(exp_hash)
    content = file.read_bytes()
    with file.open("r+b") as opened:  # the folder does not change
        opened.write(b"#!")
    assert root.checkpoints(where="config.lr = 0.1 and step = 1") == []
    assert found(root, "config.lr = 0.1 or config.lr = 0.2") == [lrs_of_others(root, exp_hash)]
    file.write_bytes(content)
    assert found(root, "config.lr = 0.1") == [exp_hash]


def test_folder_that_is_copied_in_or_removed_is_seen(root, tmp_path):
    other, exp_hash = in_another_root(root, tmp_path)
    place = root.path / "checkpoints" / exp_hash
    shutil.copytree(other.path / "checkpoints" / exp_hash, place)
    assert found(root, "name = 'run 3' and config.lr = 0.3 and metric.loss < 0.1") == [exp_hash]
    assert_true(root)
    shutil.rmtree(place)
    assert found(root, "exists name") == []
    assert len(root.checkpoints(where="step > 0")) == 4
    assert_true(root)


def test_record_that_comes_after_its_folder_is_seen(root, tmp_path):
    other, exp_hash = in_another_root(root, tmp_path)
    place = root.path / "checkpoints" / exp_hash
    shutil.copytree(other.path / "checkpoints" / exp_hash, place)
    record = (place / "experiment.json").read_bytes()
    (place / "experiment.json").unlink()
    age(root)
    assert found(root, "damaged") == [exp_hash]
    assert [r["damaged"] for r in root.experiments().rows()][-1] == "experiment.json is missing"
    (place / "experiment.json").write_bytes(record)
    assert found(root, "damaged") == []
    assert found(root, "model.parameters = 30") == [exp_hash]


def test_damaged_files_are_marked_and_hide_no_others(root):
    first, second = lrs(root).values()
    manifest = root.checkpoints(first)[-1].name.manifest_key
    (root.path / manifest).write_bytes(b"{}")
    (root.path / f"checkpoints/{second}/experiment.json").write_bytes(b"{}")
    notes = root.path / notes_folder(first)
    (notes / "20260101T000000000000Z_tag_0.json").write_bytes(b"no note")
    root.refresh()
    assert sorted(found(root, "damaged")) == sorted([first, second])
    assert [e.name.step for e in root.checkpoints(where="damaged")] == [2]
    assert found(root, "pinned") == [first]  # one of its notes may be a pin
    assert found(root, "tag = paper") == [first]
    rows = {row["hash"]: row for row in root.experiments(order="-created").rows()}
    assert rows[first]["damaged"] == "1 damaged checkpoint"
    assert rows[first]["last_step"] == 1
    assert "bytes" in rows[second]["damaged"] or "digest" in rows[second]["damaged"]
    assert_true(root)


def test_folder_that_cannot_be_listed_hides_no_other(root):
    first, second = lrs(root).values()
    model = root.path / "checkpoints" / first / "model"
    shutil.move(model, root.path / "aside")
    model.symlink_to(root.path / "aside", target_is_directory=True)
    root.refresh()
    assert {e.name.exp_hash for e in root.checkpoints(where="step > 0")} == {second}
    assert root.latest().name.exp_hash == second
    rows = {
        row["hash"]: row["damaged"]
        for row in root.experiments(where="step > 0 or not pinned").rows()
    }
    assert rows[second] is None
    assert "cannot be listed" in rows[first]
    model.unlink()
    shutil.move(root.path / "aside", model)
    assert len(root.checkpoints(where="step > 0")) == 4


def test_manifest_that_is_damaged_in_place_is_not_offered(root):
    best = root.best("loss")
    path = root.path / best.name.manifest_key
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(b"X")
    assert root.best("loss").name != best.name
    assert best.name not in [e.name for e in root.checkpoints(where="exists metric.loss")]
    path.write_bytes(content)
    assert root.best("loss") == best


def test_checkpoint_that_is_deleted_by_hand_is_not_offered(root):
    best = root.best("loss")
    (root.path / best.name.manifest_key).unlink()
    assert root.best("loss").name != best.name
    assert root.checkpoints(where="metric.loss < 0.16") == []


@pytest.mark.parametrize("harm", ["deleted", "emptied", "garbage", "altered"])
def test_index_that_is_lost_or_damaged_is_made_again(root, harm):
    path = find_index_path(root.path)
    if harm == "deleted":
        path.unlink()
    elif harm == "emptied":
        path.write_bytes(b"")
    elif harm == "garbage":
        path.write_bytes(b"SQLite format 3\0" + b"?" * 5000)
    else:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE checkpoints SET body = replace(body, 'loss', 'lost')")
    fresh = CheckpointRoot(root.path, clock=root.clock)
    assert len(fresh.checkpoints(where="metric.loss < 0.5")) == 3
    assert_true(fresh)


def test_index_that_another_process_brought_up_to_date_is_used(root):
    other = CheckpointRoot(root.path, clock=root.clock)
    exp_hash = lrs(root)[0.2]
    other.notes.tag(exp_hash, "paper")
    save(other, exp_hash, 3, loss=0.001)
    assert other.checkpoints(where="tag = paper", limit=9, order="step")[-1].name.step == 3
    assert root.best("loss", where="tag = paper").name.step == 3
    assert_true(root)
    assert_true(other)


def test_index_with_older_facts_under_newer_stamps_is_read_again(root):
    """A slow process writes what it read before a change, after another has written what is new."""
    exp_hash = lrs(root)[0.1]
    path = find_index_path(root.path)
    with sqlite3.connect(path) as database:
        (old,) = database.execute(
            "SELECT files FROM sources WHERE kind = 'notes' LIMIT 1"
        ).fetchall()
    root.notes.tag(exp_hash, "second")
    age(root)
    assert found(root, "tag = second") == [exp_hash]
    with sqlite3.connect(path) as database:
        database.execute("UPDATE sources SET stamp = 'older', files = ?", old)
        database.execute("DELETE FROM said")
    assert found(root, "tag = second") == [exp_hash]
    assert_true(root)


def test_read_only_root_is_searched_and_not_written_to(root):
    before = sorted((p.as_posix(), p.lstat().st_mtime_ns) for p in root.path.rglob("*"))
    reader = CheckpointRoot(root.path, read_only=True)
    assert len(reader.checkpoints(where="config.lr = 0.1 and tag = paper")) == 2
    assert reader.best("loss", where="pinned") is None
    assert len(reader.experiments(order="-created", limit=1).rows()) == 1
    assert sorted((p.as_posix(), p.lstat().st_mtime_ns) for p in root.path.rglob("*")) == before


def test_without_a_cache_folder_facts_are_kept_in_memory(root, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", "off")
    fresh = CheckpointRoot(root.path, clock=root.clock)
    assert_true(fresh)


def test_empty_root_has_nothing_and_knows_no_keys(tmp_path):
    root = open_root(tmp_path / "empty")
    assert root.experiments(where="step > 0 or damaged") == []
    assert root.experiments(order="-created", limit=5).rows() == []
    assert root.checkpoints(where="pinned").rows() == []
    assert root.best("loss") is None


def test_save_writes_facts_of_its_own_checkpoint_alone(root):
    root.checkpoints(where="step > 0")
    exp_hash = lrs(root)[0.1]
    index = root.catalog._index
    statements = []
    index._connection.set_trace_callback(statements.append)
    save(root, exp_hash, 9, loss=0.2)
    root.catalog.next_sequence(exp_hash)
    index._connection.set_trace_callback(None)
    assert sum("INTO facts" in s for s in statements) == 1
    assert not [s for s in statements if "INTO said" in s or "INTO config_values" in s]
    assert len(statements) < 40, "\n".join(statements)


def test_revisions_and_removals_leave_no_facts_behind(root):
    exp_hash = lrs(root)[0.1]
    save(root, exp_hash, 1, loss=0.111)
    root.delete(exp_hash, step=2)
    assert [e.name.revision for e in root.checkpoints(where="step = 1 and hash = " + exp_hash)] == [
        1,
        2,
    ]
    root.delete(exp_hash)
    assert len(root.checkpoints(where="exists metric.loss")) == 2
    index = root.catalog._index
    orphans = "SELECT count(*) FROM metrics WHERE checkpoint NOT IN (SELECT checkpoint FROM facts)"
    assert index.run(orphans) == [(0,)]
    for table in ("experiments", "sources", "config_values"):
        assert len({n for (n,) in index.run(f"SELECT experiment FROM {table}")}) == 1


def test_numbers_and_names_that_sqlite_cannot_hold_are_found(root):
    exp_hash = lrs(root)[0.1]
    save(root, exp_hash, 5, **{"huge": 10**400, "low": -(10**30), "\ud800": 1, "nul\0": 2})
    assert [e.name.step for e in root.checkpoints(where="metric.huge = inf")] == [5]
    assert [e.name.step for e in root.checkpoints(where="metric.low < -1e29")] == [5]
    assert len(root.checkpoints(where='metric."\ud800" = 1 and metric."nul\0" = 2')) == 1
    assert root.best("\ud800").name.step == 5
    assert os.fspath(root.path)


def test_record_that_comes_into_an_empty_folder_is_seen(root, tmp_path):
    other, exp_hash = in_another_root(root, tmp_path)
    place = root.path / "checkpoints" / exp_hash
    (place / "model").mkdir(parents=True)
    age(root)
    assert exp_hash not in found(root, "model.parameters > 0 or damaged")
    shutil.copy(other.path / "checkpoints" / exp_hash / "experiment.json", place)
    assert exp_hash in found(root, "model.parameters = 30")


def test_experiment_without_checkpoints_has_no_step_and_a_size_of_nothing(root):
    exp_hash = begin(root, {"lr": 0.9})
    assert exp_hash in found(root, "not step > 0")
    assert exp_hash not in found(root, "step >= 0 or step != 1")
    assert found(root, "size = 0 and checkpoints = 0") == [exp_hash]
    assert root.experiments(order="step")[-1].exp_hash == exp_hash
