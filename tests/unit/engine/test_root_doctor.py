"""`root.doctor`: one case for each thing that can be wrong; mending does the safe ones and nothing else."""

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from support.roots import ORIGIN, begin, save, small_root, ticking_clock

from weightslab.engine.care import doctor as doctoring
from weightslab.engine.care import root_symptoms
from weightslab.engine.care.diagnosis import Diagnosis, Problem
from weightslab.engine.care.left_files import file_system_of
from weightslab.engine.errors import ReadOnlyStoreError
from weightslab.engine.repository import layout
from weightslab.engine.repository.index_file import find_index_path
from weightslab.engine.storage.holder import boot_id, host_id

ELSEWHERE = b'{"boot": "b", "host": "0123456789ab", "pid": 1, "schema": 1}\n'
BEFORE_RESTART = (
    json.dumps({"boot": "earlier", "host": host_id(), "pid": 1, "schema": 1}).encode() + b"\n"
)
HERE = json.dumps({"boot": boot_id(), "host": host_id(), "pid": 1, "schema": 1}).encode() + b"\n"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A root with two experiments, five checkpoints, notes, trash and logs; nothing is wrong with it."""
    path = tmp_path_factory.mktemp("sound") / "root"
    root = small_root(path, clock=ticking_clock())
    for number in (0, 1):
        exp_hash = begin(root, number, num_samples=5)[0]
        for step in (1, 2, 3):
            save(root, exp_hash, step, f"{number} {step}")
    root.pin(exp_hash, step=1)
    root.notes.name(exp_hash, "x")
    root.trash.put(exp_hash, 3)
    return path


@pytest.fixture
def root(sound, tmp_path, monkeypatch):
    shutil.copytree(sound, tmp_path / "root")
    monkeypatch.setattr(doctoring, "file_system_of", lambda path: "ext4")
    return small_root(tmp_path / "root", clock=lambda: ORIGIN + timedelta(hours=1))


@pytest.fixture
def exp_hash(root):
    return root.list_hashes()[0]


def name_of(exp_hash, step, revision=1):
    return layout.CheckpointName(exp_hash=exp_hash, step=step, revision=revision)


def weights_of(root, exp_hash, step):
    name = name_of(exp_hash, step)
    return root.path / name.file_key(name.file_name("model"))


def found(root, **more):
    return [(p.severity, p.kind, p.where) for p in root.doctor(**more)]


def content_without(root, *gone):
    """Every file of the root, but those below `gone`."""
    files = {
        p.relative_to(root.path).as_posix(): p.read_bytes()
        for p in root.path.rglob("*")
        if p.is_file()
    }
    return {k: v for k, v in files.items() if not k.startswith(gone)}


def test_sound_root_has_no_problems(root):
    diagnosis = root.doctor()
    assert list(diagnosis) == []
    assert diagnosis.is_healthy
    assert (diagnosis.num_experiments, diagnosis.num_checkpoints) == (2, 5)
    assert str(diagnosis) == "2 experiments, 5 checkpoints: nothing is wrong"


# ---------------------------------------------------------------- what dead writers leave
def test_leftovers_of_a_save_are_told_and_removed_by_mending_alone(root, exp_hash):
    name = name_of(exp_hash, 9)
    left = root.path / name.file_key(name.file_name("model"))
    shutil.copy(weights_of(root, exp_hash, 1), left)
    where = layout.model_folder(exp_hash) + name.stem
    assert found(root) == [("warning", "leftover", where)]
    assert left.exists()
    diagnosis = root.doctor(mend=True)
    assert (list(diagnosis), [p.where for p in diagnosis.mended]) == ([], [where])
    assert not left.exists()
    assert "mended: " in str(diagnosis)


@pytest.mark.parametrize(
    "content", [HERE, b"", BEFORE_RESTART, ELSEWHERE], ids=["here", "empty", "boot", "host"]
)
@pytest.mark.parametrize("is_committed", [True, False])
def test_hold_of_the_dead_is_told_and_on_a_local_disk_removed_with_its_files(
    root, exp_hash, content, is_committed
):
    name = name_of(exp_hash, 1 if is_committed else 9)
    (root.path / name.pending_key).write_bytes(content)
    if not is_committed:
        shutil.copy(
            weights_of(root, exp_hash, 1), root.path / name.file_key(name.file_name("model"))
        )
    before = content_without(
        root, layout.model_folder(exp_hash) + name_of(exp_hash, 9).stem, name.pending_key
    )
    (problem,) = root.doctor()
    assert (problem.kind, problem.where, problem.is_mendable) == ("hold", name.pending_key, True)
    assert list(root.doctor(mend=True)) == []
    assert content_without(root) == before
    save(root, exp_hash, 9, "again")


def test_hold_of_another_host_on_a_network_file_system_is_left_alone(root, exp_hash, monkeypatch):
    monkeypatch.setattr(doctoring, "file_system_of", lambda path: "nfs4")
    hold = root.path / name_of(exp_hash, 9).pending_key
    hold.write_bytes(ELSEWHERE)
    problem, system = root.doctor(mend=True)
    assert (problem.kind, problem.is_mendable, hold.exists()) == ("hold", False, True)
    assert "once you are sure" in problem.mend
    assert (system.severity, system.kind, system.where) == ("note", "file_system", "nfs4")
    hold.write_bytes(HERE)  # a process of this host and boot is dead wherever the disk is
    assert [p.kind for p in root.doctor(mend=True)] == ["file_system"]


def test_writer_that_lives_is_no_problem_and_is_not_disturbed(root, exp_hash):
    name = name_of(exp_hash, 9)
    shutil.copy(weights_of(root, exp_hash, 1), root.path / name.file_key(name.file_name("model")))
    with root.store.hold(name.pending_key):
        assert found(root, mend=True) == []
        assert (root.path / name.file_key(name.file_name("model"))).exists()


@pytest.mark.parametrize("host", [host_id(), "0123456789ab"])
@pytest.mark.parametrize("part", ["", "model/", "notes/", "provenance/"])
def test_temporary_files_of_the_dead_are_told_and_removed(root, exp_hash, host, part):
    folder = root.path / layout.experiment_folder(exp_hash) / part
    folder.mkdir(exist_ok=True)
    left = folder / f".x.json.{host}.{'0' * 16}.tmp"
    left.write_bytes(b"half")
    assert found(root) == [("note", "temporary", left.relative_to(root.path).as_posix())]
    assert found(root, mend=True) == []
    assert not left.exists()


def test_backup_whose_writer_died_elsewhere_is_mended(root, exp_hash):
    import h5py

    from weightslab.engine.repository.data_file import save_backup

    with h5py.File(root.path / "data" / "t.h5", "w") as file:
        file["x"] = [1]
    key = save_backup(root.store, exp_hash, root.path / "data" / "t.h5", name="t")
    (root.path / f"{key}.json").unlink()
    (root.path / f"{key}.pending").write_bytes(ELSEWHERE)
    assert found(root) == [("warning", "hold", f"{key}.pending")]
    assert found(root, mend=True) == []
    assert root.verify(exp_hash) == []


def test_trash_that_a_kill_left_half_goes_and_old_entries_are_told_and_stay(root):
    (remains,) = (root.path / layout.TRASH).iterdir()
    half = root.path / layout.TRASH / f"{name_of(root.list_hashes()[0], 7).stem}"
    half.mkdir()
    root.clock = lambda: ORIGIN + timedelta(days=30)
    assert found(root) == [
        ("note", "trash", layout.TRASH),
        ("note", "trash_remains", f"{layout.TRASH}{half.name}/"),
    ]
    assert found(root, mend=True) == [("note", "trash", layout.TRASH)]
    assert (half.exists(), remains.exists()) == (False, True)
    (remains / "why.json").write_text("{")
    assert [(p.severity, p.kind) for p in root.doctor(mend=True)] == [("warning", "trash")]


def test_torn_log_is_told_and_closed_off(root):
    path = root.path / "logs" / "events.jsonl"
    with path.open("a") as file:
        file.write('{"half": ')
    before = path.read_bytes()
    assert found(root) == [("note", "torn_log", "logs/events.jsonl")]
    assert found(root, mend=True) == []
    assert path.read_bytes() == before + b"\n"


def test_catalog_that_is_damaged_is_told_and_removed(root):
    index = find_index_path(root.path)
    index.write_bytes(b"SQLite format 3\0" + b"garbage" * 500)
    (problem,) = root.doctor()
    assert (problem.kind, problem.where, problem.is_mendable) == ("catalog", str(index), True)
    index.write_bytes(b"SQLite format 3\0" + b"garbage" * 500)
    assert found(small_root(root.path, clock=root.clock), mend=True) == []


def test_catalog_without_a_place_is_told_and_off_is_no_problem(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", str(tmp_path / "file" / "below"))
    assert [(p.severity, p.kind) for p in root.doctor()] == [("note", "catalog")]
    monkeypatch.setenv("WEIGHTSLAB_CATALOG", "off")
    assert found(root) == []


# ---------------------------------------------------------------- damage: told, never touched
def damage_manifest(root, exp_hash):
    path = root.path / name_of(exp_hash, 2).manifest_key
    path.write_bytes(path.read_bytes()[:-9])
    return "manifest", name_of(exp_hash, 2).manifest_key


def damage_record(root, exp_hash):
    path = root.path / layout.experiment_key(exp_hash)
    path.write_bytes(b"{" + path.read_bytes())
    return "record", layout.experiment_key(exp_hash)


def lose_record(root, exp_hash):
    (root.path / layout.experiment_key(exp_hash)).unlink()
    return "record", layout.experiment_key(exp_hash)


def lose_weights(root, exp_hash):
    path = weights_of(root, exp_hash, 2)
    path.unlink()
    return "file", path.relative_to(root.path).as_posix()


def cut_weights(root, exp_hash):
    path = weights_of(root, exp_hash, 2)
    path.write_bytes(path.read_bytes()[:-1])
    return "file", path.relative_to(root.path).as_posix()


def lose_config(root, exp_hash):
    (root.path / layout.config_key(exp_hash)).unlink()
    return "component", layout.config_key(exp_hash)


def lose_samples(root, exp_hash):
    (root.path / layout.data_key(exp_hash)).unlink()
    return "component", layout.data_key(exp_hash)


def damage_note(root, exp_hash):
    note = root.notes.add(exp_hash, "hello")
    (root.path / note.key).write_text("{}")
    return "note", layout.notes_folder(exp_hash)


@pytest.mark.parametrize(
    "harm",
    [
        damage_manifest,
        damage_record,
        lose_record,
        lose_weights,
        cut_weights,
        lose_config,
        lose_samples,
        damage_note,
    ],
)
def test_damage_is_an_error_that_says_what_to_do_and_mending_leaves_it(root, exp_hash, harm):
    kind, where = harm(root, exp_hash)
    before = content_without(root)
    assert ("error", kind, where) in found(root)
    diagnosis = root.doctor(mend=True)
    assert content_without(root) == before
    assert not diagnosis.is_healthy
    (problem,) = (p for p in diagnosis if p.where == where)
    assert problem.mend
    assert diagnosis.num_experiments == 2


def test_one_experiment_that_cannot_be_read_hides_no_other(root):
    first, second = root.list_hashes()
    shutil.rmtree(root.path / layout.model_folder(first))
    (root.path / layout.model_folder(first)[:-1]).symlink_to(root.path / "data")
    damage_manifest(root, second)
    kinds = {(p.kind, p.where.split("/")[1]) for p in root.doctor()}
    assert ("unreadable", first) in kinds
    assert ("manifest", second) in kinds


def test_experiment_that_was_never_finished_is_a_note(root):
    (root.path / "checkpoints" / ("a" * 16) / "hp").mkdir(parents=True)
    assert found(root) == [("note", "unfinished", f"checkpoints/{'a' * 16}/")]


def test_quarantine_is_a_note(root, exp_hash):
    damage_manifest(root, exp_hash)
    root.quarantine(exp_hash, step=2)
    assert found(root) == [("note", "quarantine", layout.QUARANTINE)]


# ---------------------------------------------------------------- clocks
def test_clock_that_went_back_is_a_note_and_one_ahead_a_warning(root, exp_hash):
    times = iter(
        [
            ORIGIN + timedelta(minutes=50),
            ORIGIN + timedelta(minutes=10),
            ORIGIN + timedelta(days=400),
        ]
    )
    for step in (10, 11, 12):
        moment = next(times)
        root.clock = lambda moment=moment: moment
        save(root, exp_hash, step, "x")
    root.clock = lambda: ORIGIN + timedelta(hours=1)
    assert found(root) == [
        ("warning", "clock", name_of(exp_hash, 12).manifest_key),
        ("note", "clock", name_of(exp_hash, 11).manifest_key),
    ]


# ---------------------------------------------------------------- what is not ours
def test_foreign_files_are_a_note_per_folder_and_stay(root, exp_hash):
    places = [
        "checkpoints/",
        layout.experiment_folder(exp_hash),
        layout.model_folder(exp_hash),
        layout.config_folder(exp_hash),
    ]
    for place in places:
        (root.path / place / "mine\x1b[2J.txt").write_text("x")
    (root.path / layout.data_folder(exp_hash) / "folder").mkdir()
    diagnosis = root.doctor(mend=True)
    assert [(p.severity, p.kind, p.where) for p in diagnosis] == [
        ("note", "foreign", where) for where in sorted([*places, layout.data_folder(exp_hash)])
    ]
    assert "\x1b" not in str(diagnosis)
    assert (root.path / "checkpoints" / "mine\x1b[2J.txt").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("checkpoints.metadata", "numbered CheckpointManager"),
        ("checkpoints/manifest.yaml", "weightslab 2"),
    ],
)
def test_root_of_another_kind_is_named(tmp_path, file, said):
    path = tmp_path / "old"
    (path / "checkpoints" / "models").mkdir(parents=True)
    (path / file).write_text("x")
    problems = [p for p in small_root(path, read_only=True).doctor() if p.kind == "other_kind"]
    assert [p.where for p in problems] == [file]
    assert said in problems[0].what


def test_links_and_a_folder_that_is_not_there_are_told(root, exp_hash, tmp_path):
    (root.path / "checkpoints" / ("b" * 16)).symlink_to(tmp_path, target_is_directory=True)
    assert found(root) == [("error", "link", f"checkpoints/{'b' * 16}")]
    shutil.move(root.path / "checkpoints", tmp_path / "moved")
    (root.path / "checkpoints").symlink_to(tmp_path / "moved", target_is_directory=True)
    reader = small_root(root.path, read_only=True, clock=root.clock)
    assert found(reader) == [("error", "link", "checkpoints/")]
    (root.path / "checkpoints").unlink()
    assert found(reader) == [("warning", "empty", "checkpoints/")]


def test_folders_that_may_not_be_written_or_read_are_told(root, exp_hash, monkeypatch):
    model = root.path / "checkpoints" / exp_hash / "model"
    real = os.access  # the tests may run as a user whom no mode stops

    def access(path, mode):
        return False if Path(path) == model and mode & denied else real(path, mode)

    monkeypatch.setattr(root_symptoms.os, "access", access)
    denied = os.W_OK
    assert found(root) == [("warning", "unwritable", f"checkpoints/{exp_hash}/model/")]
    assert found(small_root(root.path, read_only=True, clock=root.clock)) == []
    denied = os.R_OK
    assert found(root) == [("error", "unreadable", f"checkpoints/{exp_hash}/model/")]


def test_file_system_without_links_is_a_note(root, monkeypatch):
    monkeypatch.setattr(doctoring, "file_system_of", lambda path: "vfat")
    assert found(root) == [("note", "file_system", "vfat")]


MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/with\040space rw shared:1 - nfs4 host:/x rw
31 22 0:41 / /mnt rw - xfs /dev/sdb rw
broken line
"""


def test_file_system_is_that_of_the_longest_mount(tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    names = {
        path: file_system_of(Path(path), tmp_path / "mounts")
        for path in ("/", "/mnt/x", "/mnt/with space/y", "/mnt/with", "/mntx")
    }
    assert list(names.values()) == ["ext4", "xfs", "nfs4", "xfs", "ext4"]
    assert file_system_of(Path("/"), tmp_path / "none") == ""


def test_nothing_behind_a_link_is_mended(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    name = name_of("c" * 16, 1)
    for file in (
        f"{name.stem}.pending",
        f"{name.stem}.safetensors",
        f".x.{host_id()}.{'0' * 16}.tmp",
    ):
        (outside / file).write_bytes(HERE)
    (root.path / "checkpoints" / ("c" * 16)).mkdir()
    (root.path / layout.model_folder("c" * 16)[:-1]).symlink_to(outside, target_is_directory=True)
    assert [(p.severity, p.kind) for p in root.doctor(mend=True)] == [("error", "unreadable")]
    assert {p.read_bytes() for p in outside.iterdir()} == {HERE}
    assert len(list(outside.iterdir())) == 3


# ---------------------------------------------------------------- the diagnosis
def test_looking_changes_nothing_and_a_read_only_root_is_not_mended(root, exp_hash):
    damage_manifest(root, exp_hash)
    (root.path / name_of(exp_hash, 9).pending_key).write_bytes(HERE)
    before = content_without(root)
    reader = small_root(root.path, read_only=True, clock=root.clock)
    assert {p.kind for p in reader.doctor()} == {"manifest", "hold"}
    assert content_without(root) == before
    with pytest.raises(ReadOnlyStoreError, match="cannot mend the root"):
        reader.doctor(mend=True)


def test_diagnosis_is_plain_json_with_errors_first(root, exp_hash):
    damage_manifest(root, exp_hash)
    (root.path / "checkpoints" / "a").write_text("x")
    told = json.loads(json.dumps(root.doctor().to_dict()))
    assert [p["severity"] for p in told["problems"]] == ["error", "note"]
    assert set(told) == {
        "is_healthy",
        "num_experiments",
        "num_checkpoints",
        "problems",
        "mended",
        "failed",
    }


def test_what_cannot_be_mended_is_told(root, exp_hash, monkeypatch):
    (root.path / name_of(exp_hash, 9).pending_key).write_bytes(HERE)

    def refuse(path):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctoring, "give_up", refuse)
    monkeypatch.setattr(doctoring, "tidy", lambda store, exp_hash: [])
    diagnosis = root.doctor(mend=True)
    assert diagnosis.failed == (f"{name_of(exp_hash, 9).pending_key}: Operation not permitted",)
    assert (len(diagnosis), diagnosis.mended) == (1, ())


def test_notes_alone_are_healthy_and_a_wrong_severity_is_refused():
    note = Problem(severity="note", kind="x", where="y", what="z", mend="w")
    assert Diagnosis(problems=(note,)).is_healthy
    with pytest.raises(ValueError, match="a severity is one of"):
        Problem(severity="bad", kind="x", where="y", what="z", mend="w")
