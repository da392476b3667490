"""The catalog over an index: wherever its file lies, and whatever happened to it, the answers hold."""

import logging
import os
import sqlite3
import time

import pytest
from support.roots import begin, hash_of, save, ticking_clock

from weightslab.engine.errors import ReadOnlyStoreError
from weightslab.engine.repository import indexed
from weightslab.engine.repository.catalog import ScanCatalog
from weightslab.engine.repository.index_file import find_index_path
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.root import CheckpointRoot

CLOCK = ticking_clock()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "cache"))
    monkeypatch.setattr(indexed, "_FEW", -1)  # small roots stand for large ones here
    return tmp_path / "cache"


def open_root(tmp_path, **more):
    return CheckpointRoot(tmp_path / "root", clock=CLOCK, **more)


@pytest.fixture
def root(tmp_path):
    """A root with two experiments; the second one has the newest checkpoint."""
    root = open_root(tmp_path)
    for number in (1, 2):
        begin(root, number)
        for step in (10, 20):
            save(root, hash_of(number), step, f"{number}/{step} ", size_bytes=2048)
    return root


def newest(root):
    name = root.latest().name
    return name.exp_hash, name.step


def test_index_lies_in_the_folder_that_the_variable_names(root, cache):
    assert newest(root) == (hash_of(2), 20)
    path = find_index_path(root.path)
    assert path.parent == cache
    assert path.read_bytes()[:15] == b"SQLite format 3"
    assert sorted(p.name for p in root.path.iterdir()) == ["checkpoints", "data", "logs"]


def test_index_lies_in_the_cache_folder_of_the_user(root, tmp_path, monkeypatch):
    monkeypatch.delenv("WEIGHTSLAB_CATALOG")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tmp_path in find_index_path(root.path).parents
    assert find_index_path(root.path).parent.name == "catalogs"


def test_switched_off_nothing_is_kept(root, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", "off")
    before = sorted(cache.iterdir()) if cache.exists() else []
    assert newest(open_root(tmp_path)) == (hash_of(2), 20)
    assert (sorted(cache.iterdir()) if cache.exists() else []) == before


def test_cache_folder_that_cannot_be_made_costs_nothing_but_time(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "file" / "cache"))
    assert newest(open_root(tmp_path)) == (hash_of(2), 20)


def test_index_that_is_a_folder_is_left_alone(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "other"))
    find_index_path(root.path).mkdir()
    assert newest(open_root(tmp_path)) == (hash_of(2), 20)
    assert find_index_path(root.path).is_dir()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database", b"SQLite format 3\0" + bytes(4096)],
    ids=["empty", "text", "head"],
)
def test_file_that_is_no_index_is_made_anew(root, tmp_path, monkeypatch, content):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "other"))
    find_index_path(root.path).write_bytes(content)
    assert newest(open_root(tmp_path)) == (hash_of(2), 20)
    assert rows_in(root) == 4


def test_database_of_another_program_is_made_anew(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "other"))
    with sqlite3.connect(find_index_path(root.path)) as connection:
        connection.execute("CREATE TABLE checkpoints (name TEXT)")
    connection.close()
    assert newest(open_root(tmp_path)) == (hash_of(2), 20)
    assert rows_in(root) == 4


def rows_in(root):
    connection = sqlite3.connect(find_index_path(root.path))
    found = connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0]
    connection.close()
    return found


def change_index(root, statement):
    connection = sqlite3.connect(find_index_path(root.path))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("column", ["body = '[]'", "moment = moment + 1", "sequence = 9"])
def test_row_that_was_altered_is_not_believed(root, tmp_path, column, caplog):
    newest(root)
    change_index(root, f"UPDATE checkpoints SET {column}")
    with caplog.at_level(logging.WARNING):
        assert newest(open_root(tmp_path)) == (hash_of(2), 20)
    assert "failed and is not used: a row does not have its checksum" in caplog.text


def test_index_that_lost_its_tables_is_replaced_by_memory(root, tmp_path, caplog):
    assert newest(root) == (hash_of(2), 20)
    change_index(root, "DROP TABLE tensors")
    save(root, hash_of(1), 30, "more ", size_bytes=2048)
    assert newest(root) == (hash_of(1), 30)
    assert "failed and is not used" in caplog.text or caplog.text == ""


def test_index_locked_by_another_is_not_waited_for_forever(root, tmp_path, monkeypatch):
    from weightslab.engine.repository import index

    newest(root)
    monkeypatch.setattr(index, "_BUSY_SECONDS", 0.01)
    connection = sqlite3.connect(find_index_path(root.path), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    other = open_root(tmp_path)
    save(other, hash_of(1), 30, "more ", size_bytes=2048)
    assert newest(other) == (hash_of(1), 30)
    connection.execute("ROLLBACK")
    connection.close()


def test_index_removed_while_it_is_open_changes_no_answer(root, tmp_path):
    newest(root)
    for file in find_index_path(root.path).parent.iterdir():
        file.unlink()
    save(root, hash_of(1), 30, "more ", size_bytes=2048)
    assert newest(root) == (hash_of(1), 30)
    assert newest(open_root(tmp_path)) == (hash_of(1), 30)


def test_read_only_root_may_use_an_index_and_writes_nothing_inside(root, tmp_path, cache):
    before = sorted(p for p in root.path.rglob("*"))
    reader = open_root(tmp_path, read_only=True)
    assert newest(reader) == (hash_of(2), 20)
    with pytest.raises(ReadOnlyStoreError):
        reader.delete(hash_of(2))
    assert sorted(p for p in root.path.rglob("*")) == before
    assert find_index_path(root.path).exists()


def test_read_only_root_that_appears_later_is_seen(tmp_path):
    early = open_root(tmp_path, read_only=True, must_exist=False)
    assert early.latest() is None
    writer = open_root(tmp_path)
    begin(writer, 1)
    save(writer, hash_of(1), 10, "a")
    assert newest(early) == (hash_of(1), 10)


def test_moved_root_gets_another_index(root, tmp_path):
    old = find_index_path(root.path)
    root.path.rename(tmp_path / "moved")
    assert find_index_path(tmp_path / "moved") != old
    assert newest(CheckpointRoot(tmp_path / "moved")) == (hash_of(2), 20)


def test_index_that_nobody_used_for_90_days_is_swept(root, cache):
    newest(root)
    path = find_index_path(root.path)
    forgotten, used = cache / ("a" * 24 + ".v1.sqlite"), cache / ("b" * 24 + ".v1.sqlite")
    for file in (forgotten, used):
        file.write_bytes(b"")
    days = time.time() - 91 * 24 * 3600
    os.utime(forgotten, (days, days))
    path.unlink()
    find_index_path(root.path)
    assert [forgotten.exists(), used.exists()] == [False, True]


def test_few_questions_about_one_experiment_open_no_index(root, tmp_path, cache):
    for file in cache.iterdir():
        file.unlink()
    reader = open_root(tmp_path)
    assert [e.name.step for e in reader.checkpoints(hash_of(1))] == [10, 20]
    assert reader.latest(hash_of(2)).name.step == 20
    assert list(cache.iterdir()) == []


def test_commit_whose_process_died_before_its_last_line_is_seen_by_others(root, tmp_path):
    """The journal says that it began; the folder is looked at until it says how it ended."""
    other = open_root(tmp_path)
    other.catalog._recent = type(other.catalog._recent)(maxlen=0)
    newest(other)
    root.journal.append({"event": "checkpoint_begun", "exp_hash": hash_of(1), "step": 30})
    assert newest(other) == (hash_of(2), 20)
    journal = root.journal
    root.journal = type(journal)(tmp_path / "nowhere" / "events.jsonl")
    save(root, hash_of(1), 30, "more ", size_bytes=2048)
    assert newest(other) == (hash_of(1), 30)


def test_manifest_that_another_valid_one_replaced_in_place_is_seen_after_refresh(root, tmp_path):
    newest(root)
    name = CheckpointName(exp_hash=hash_of(1), step=10)
    old = root.manifest(root.get_checkpoint(hash_of(1), 10))
    from dataclasses import replace
    from datetime import timedelta

    changed = replace(old, created_at=old.created_at + timedelta(days=9), digest="")
    (root.path / name.manifest_key).write_bytes(changed.to_bytes())
    os.utime(root.path / name.manifest_key, (1, 1))
    root.refresh()
    assert newest(root) == (hash_of(1), 10)


def test_hostile_numbers_fit_into_the_index(root):
    name = CheckpointName(exp_hash=hash_of(1), step=999_999_999_999_999_999)
    old = root.manifest(root.get_checkpoint(hash_of(1), 10))
    huge = Manifest(
        name=name,
        experiment_digest=old.experiment_digest,
        sequence=10**40,
        created_at=old.created_at,
        parent=old.parent,
        metrics={"m": 10**400},
    )
    (root.path / name.manifest_key).write_bytes(huge.to_bytes())
    root.refresh()
    scan = ScanCatalog(root.store)
    assert root.catalog.latest() == scan.latest()
    assert root.catalog.latest(hash_of(1)) == scan.latest(hash_of(1))
    assert root.catalog.latest(hash_of(1)).sequence == 10**40


def test_child_of_a_fork_opens_an_index_of_its_own(root):
    newest(root)
    child = os.fork()
    if not child:
        ok = newest(root) == (hash_of(2), 20) and root.catalog._index is not None
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert newest(root) == (hash_of(2), 20)


def test_places_lead_to_the_bytes(root):
    manifest = root.manifest(root.get_checkpoint(hash_of(1), 20))
    digests = {t.digest for t in manifest.tensors.values()}
    found = root.catalog.locate(digests | {"xxh3-128:" + "0" * 32})
    assert found.keys() == digests
    for digest, (place,) in found.items():
        assert place.tensor.digest == digest
        assert place.name == manifest.name
        assert place.tensor.file == place.file.name


def test_tensors_of_a_deleted_checkpoint_leave_the_index(root):
    newest(root)
    for number in (1, 2):
        root.delete(hash_of(number))
    assert root.latest() is None
    connection = sqlite3.connect(find_index_path(root.path))
    tables = ("checkpoints", "files", "uses", "tensors", "folders")
    counts = [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]
    connection.close()
    assert counts == [0, 0, 0, 0, 0]


def test_young_manifest_is_compared_and_not_parsed_again(root, monkeypatch):
    from weightslab.engine.repository import stamps

    monkeypatch.setattr(stamps, "_FINE_GRACE_NS", 10**15)  # everything stays young
    assert newest(root) == (hash_of(2), 20)
    entries = root.checkpoints(hash_of(2))
    monkeypatch.setattr(indexed, "examine", None)
    assert root.checkpoints(hash_of(2)) == entries


def test_newest_of_a_few_experiments_is_told_without_opening_an_index(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(indexed, "_FEW", 4)
    root = open_root(tmp_path)
    for number in (1, 2):
        begin(root, number)
        save(root, hash_of(number), 10 * number, "text")
    for path in cache.glob("*"):
        path.unlink()
    found = CheckpointRoot(tmp_path / "root", read_only=True).latest()
    assert (found.name.exp_hash, found.name.step) == (hash_of(2), 20)
    assert list(cache.glob("*")) == []
