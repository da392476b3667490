"""Notes: what was said and not taken back, whoever writes at the same time."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.repo import HASH

from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.notes import add_note, read_notes
from weightslab.engine.repository.verify import verify_experiment
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.memory import MemoryStore

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
FOLDER = f"checkpoints/{HASH}/notes/"
STEP = CheckpointName(exp_hash=HASH, step=3)


def add(store, kind, text="", *, minutes=0, **more):
    return add_note(store, HASH, kind=kind, text=text, now=NOW + timedelta(minutes=minutes), **more)


def texts(notes):
    return [note.text for note in notes]


def test_experiment_without_notes_has_none():
    found = read_notes(MemoryStore(), HASH)
    assert (found.name, found.notes, found.tags, found.pins) == (None, (), (), ())
    assert found.is_certain
    assert not found.is_pinned(STEP)


def test_newest_name_counts_and_can_be_taken_back():
    store = MemoryStore()
    add(store, "name", "first", minutes=1)
    add(store, "name", "second", minutes=2)
    assert read_notes(store, HASH).name == "second"
    add(store, "name", minutes=3, remove=True)
    assert read_notes(store, HASH).name is None


def test_notes_and_tags_stand_beside_each_other_oldest_first():
    store = MemoryStore()
    add(store, "note", "b", minutes=2)
    add(store, "note", "a", minutes=1, step=3)
    add(store, "tag", "good", minutes=3, step=3, revision=2)
    add(store, "note", "b", minutes=4)  # said again: the same thing
    found = read_notes(store, HASH)
    assert texts(found.notes) == ["a", "b"]
    assert [(n.text, n.step, n.revision) for n in found.tags] == [("good", 3, 2)]


def test_note_is_taken_back_by_its_text_and_what_it_is_about():
    store = MemoryStore()
    add(store, "tag", "good", step=3)
    add(store, "tag", "good")
    add(store, "tag", "good", step=3, remove=True)
    assert [n.step for n in read_notes(store, HASH).tags] == [None]


def test_last_call_counts_although_clocks_disagree():
    store = MemoryStore()
    add(store, "pin", minutes=60)
    taken_back = add(store, "pin", minutes=0, remove=True)
    assert taken_back.created_at == NOW + timedelta(minutes=60, microseconds=1)
    assert read_notes(store, HASH).pins == ()


@pytest.mark.parametrize(
    ("pin", "pinned"),
    [
        ({}, [(3, 1), (3, 2), (4, 1)]),
        ({"step": 3}, [(3, 1), (3, 2)]),
        ({"step": 3, "revision": 2}, [(3, 2)]),
    ],
    ids=["experiment", "step", "revision"],
)
def test_pin_covers_what_it_is_about(pin, pinned):
    store = MemoryStore()
    add(store, "pin", **pin)
    found = read_notes(store, HASH)
    names = [(3, 1), (3, 2), (4, 1)]
    assert pinned == [
        (s, r)
        for s, r in names
        if found.is_pinned(CheckpointName(exp_hash=HASH, step=s, revision=r))
    ]


def test_name_of_a_file_is_legal_everywhere_and_says_when_and_what():
    note = add(MemoryStore(), "note", "a/b\\c:\0*?")
    assert re.fullmatch(FOLDER + r"20260101T120000000000Z_note_[0-9a-f]{16}\.json", note.key)


@settings(max_examples=50, deadline=None)
@given(text=st.text(min_size=1, max_size=50) | st.sampled_from(["\ud800", "\x1b[2J\n", "\u202e"]))
@pytest.mark.slow
def test_text_of_any_kind_comes_back_as_it_was(text):
    store = MemoryStore()
    add(store, "note", text)
    (note,) = read_notes(store, HASH).notes
    assert note.text == text
    assert "\n" not in str(note)
    assert "\x1b" not in str(note)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"kind": "colour", "text": "x"}, ValueError),
        ({"kind": "note", "text": ""}, ValueError),
        ({"kind": "note", "text": 3}, TypeError),
        ({"kind": "note", "text": "x" * 100_001}, ValueError),
        ({"kind": "pin", "revision": 1}, ValueError),
        ({"kind": "name", "text": "x", "step": 1}, ValueError),
    ],
)
def test_what_is_no_note_is_refused_and_nothing_is_written(more, error):
    store = MemoryStore()
    with pytest.raises(error):
        add_note(store, HASH, now=NOW, **more)
    assert store.list("") == []


def test_writers_at_the_same_moment_lose_nothing(tmp_path):
    def write(number):
        for text in ("x", "y", "z"):
            add(LocalStore(tmp_path), "note", f"{number}{text}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    found = texts(read_notes(LocalStore(tmp_path), HASH).notes)
    assert sorted(found) == sorted(f"{n}{t}" for n in range(8) for t in "xyz")


def test_same_note_at_the_same_moment_is_one_file():
    store, other = MemoryStore(), MemoryStore()
    first, second = add(store, "note", "x"), add(other, "note", "x")
    assert first.key == second.key


# ---------------------------------------------------------------- damage
def damaged(store):
    note = add(store, "pin", step=9)
    data = bytes(store.map(note.key))
    store.put(note.key, [data.replace(b'"step":9', b'"step":8')])
    return note


def test_damaged_file_hides_no_other_and_counts_as_a_pin_of_everything():
    store = MemoryStore()
    add(store, "note", "kept", minutes=1)
    note = damaged(store)
    found = read_notes(store, HASH)
    assert texts(found.notes) == ["kept"]
    assert not found.is_certain
    assert found.is_pinned(STEP)
    assert note.key.rpartition("/")[2] in found.damaged[0]


def test_verify_names_the_damaged_note():
    store = MemoryStore()
    note = damaged(store)
    findings = [f for f in verify_experiment(store, HASH) if "experiment.json" not in f.key]
    assert [(f.key, f.is_damage, f.exp_hash) for f in findings] == [(note.key, True, HASH)]


def test_file_in_place_of_the_folder_counts_as_a_pin(tmp_path):
    store = LocalStore(tmp_path)
    store.put(FOLDER.removesuffix("/"), [b"x"])
    found = read_notes(store, HASH)
    assert not found.is_certain
    assert [f.key for f in verify_experiment(store, HASH) if f.key.endswith("/")] == [FOLDER]


def test_link_in_place_of_the_folder_is_not_followed(tmp_path):
    store = LocalStore(tmp_path / "root")
    add(LocalStore(tmp_path / "other"), "note", "elsewhere")
    (tmp_path / "root" / "checkpoints" / HASH).mkdir(parents=True)
    (tmp_path / "root" / FOLDER.removesuffix("/")).symlink_to(tmp_path / "other" / FOLDER)
    found = read_notes(store, HASH)
    assert found.notes == ()
    assert "symbolic link" in found.damaged[0]


LIES = {
    "kind": "colour",
    "exp_hash": "f" * 16,
    "step": -1,
    "revision": 0,
    "text": ["x"],
    "created_at": "yesterday",
    "is_removal": 1,
    "schema": "weightslab.checkpoint",
    "schema_version": 2,
}


@pytest.mark.parametrize("key", LIES)
def test_note_that_lies_is_damaged(key):
    store = MemoryStore()
    note = add(store, "note", "x", step=1)
    document, _ = unseal(store.map(note.key), what="note")
    store.put(note.key, [seal({**document, key: LIES[key]})])
    found = read_notes(store, HASH)
    assert found.notes == ()
    assert len(found.damaged) == 1


def test_file_too_large_for_a_note_is_not_parsed():
    store = MemoryStore()
    store.put(FOLDER + "big.json", [b"[" * (3 << 20)])
    assert "which is no note" in read_notes(store, HASH).damaged[0]


def test_files_of_others_are_ignored():
    store = MemoryStore()
    store.put(FOLDER + "readme.txt", [b"x"])
    assert read_notes(store, HASH).is_certain
