"""What a session writes beside its experiment: once, complete, without secrets, and never at a cost."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from support.roots import ORIGIN, begin, small_root, tidy_all

from weightslab.engine.errors import CheckpointError, StorageError
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.provenance import facts, recording
from weightslab.engine.provenance.redact import Redactor
from weightslab.engine.repository import layout
from weightslab.engine.repository.provenance import (
    MAX_RECORDS,
    CodeState,
    Provenance,
    add_provenance,
    provenance_keys,
    read_provenance,
)
from weightslab.engine.storage.holder import host_id

SECRET = "ghp_0123456789abcdefghij0123456789abcdef"


@pytest.fixture
def root(tmp_path):
    return small_root(tmp_path / "root")


@pytest.fixture
def exp_hash(root):
    return begin(root, 0)[0]


def session(exp_hash, *, command=("python", "train.py"), **more):
    return Provenance(exp_hash=exp_hash, recorded_at=ORIGIN, command=command, **more)


def full(exp_hash):
    code = CodeState(
        commit="a" * 40,
        diff="diff --git a/x b/x\n",
        binary=("y",),
        untracked=("z",),
        num_untracked=1,
    )
    return session(
        exp_hash, code=code, packages={"torch": "2.4"}, host={"num_cpus": 2}, seeds={"a": 1}
    )


def test_session_is_read_back_as_it_was_written(root, exp_hash):
    key = add_provenance(root.store, full(exp_hash))
    assert read_provenance(root.store, exp_hash, key) == replace(full(exp_hash), key=key)
    assert key.startswith(f"{layout.provenance_folder(exp_hash)}20260101T000000000000Z_")
    assert root.verify(exp_hash) == []


def test_same_session_later_is_not_written_again_and_another_is(root, exp_hash):
    first = add_provenance(root.store, session(exp_hash))
    later = replace(session(exp_hash), recorded_at=ORIGIN + timedelta(days=1), seeds={"other": 2})
    assert add_provenance(root.store, later) == first
    for change in (
        {"command": ("python", "train.py", "--lr", "1")},
        {"code": CodeState(commit="b" * 40)},
        {"code": CodeState(commit="b" * 40, diff="diff --git a/x b/x\n")},
        {"versions": {"python": "3.9"}},
        {"packages": {"torch": "2.5"}},
    ):
        assert add_provenance(root.store, replace(later, **change)) != first
    assert len(provenance_keys(root.store, exp_hash)) == 6


def test_no_more_than_32_sessions_are_kept(root, exp_hash):
    for number in range(MAX_RECORDS + 2):
        key = add_provenance(root.store, session(exp_hash, command=("python", str(number))))
    assert key is None
    assert len(provenance_keys(root.store, exp_hash)) == MAX_RECORDS


def test_every_flipped_bit_and_every_cut_is_found_by_verify(root, exp_hash):
    path = root.path / add_provenance(root.store, full(exp_hash))
    whole = path.read_bytes()
    for position in range(0, len(whole), 23):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        assert [f.is_damage for f in root.verify(exp_hash)] == [True], position
    path.write_bytes(whole[:-1])
    assert len(root.verify(exp_hash)) == 1
    path.unlink()
    path.mkdir()
    assert len(root.verify(exp_hash)) == 1


def test_session_of_another_experiment_and_lies_in_a_good_seal_are_refused(root, exp_hash):
    key = add_provenance(root.store, full(exp_hash))
    document, _ = unseal(root.store.map(key), what="x")
    lies = [
        {"exp_hash": "b" * 16},
        {"command": "rm"},
        {"code": {"commit": "--exec=x"}},
        {"packages": {"a": 1}},
    ]
    lies += [{"recorded_at": "soon"}, {"problems": None}, {"schema_version": 2}, {"schema": "x"}]
    lies += [
        {"code": document["code"] | {"commit": "$(touch x)"}},
        {"code": document["code"] | {"is_cut": 0}},
    ]
    for lie in lies:
        root.store.put(key, [seal({k: v for k, v in (document | lie).items() if k != "digest"})])
        with pytest.raises(CheckpointError):
            read_provenance(root.store, exp_hash, key)


def test_experiment_is_deleted_with_its_sessions_and_dead_writers_are_swept(root, exp_hash):
    add_provenance(root.store, full(exp_hash))
    folder = root.path / layout.provenance_folder(exp_hash)
    left = folder / f".half.{host_id()}.{'0' * 16}.tmp"
    left.write_bytes(b"half")
    tidy_all(root)
    assert not left.exists()
    root.delete(exp_hash)
    assert not folder.parent.exists()


# ---------------------------------------------------------------- collecting
@pytest.fixture
def planted(tmp_path):
    """A repository full of secrets."""
    folder = tmp_path / "home" / "jdoe" / "code"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("lr = 1\n")
    settings = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (
        ["init", "-q", "-b", "jdoe/main"],
        ["add", "."],
        [*settings, "commit", "-qm", "x"],
        ["remote", "add", "origin", f"https://jdoe:{SECRET}@example.org/x.git"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (folder / "train.py").write_text(f'lr = 2\ntoken = "{SECRET}"\npath = "{folder}/data"\n')
    (folder / f"key_{SECRET}.txt").write_text("x")
    return folder


def test_nothing_planted_is_in_what_is_collected(planted, tmp_path):
    redactor = Redactor(
        homes=(str(tmp_path / "home" / "jdoe"),), users=("jdoe",), literals=("tr0ub4dor",)
    )
    command = ["python", f"{planted}/train.py", "--api-key", "k3y", "--note", "tr0ub4dor"]
    found = recording.collect(planted, command, redactor)
    record = Provenance(exp_hash="a" * 16, recorded_at=ORIGIN, **found)
    written = record.to_bytes().decode()
    assert [
        word for word in (SECRET, "jdoe", "k3y", "tr0ub4dor", str(tmp_path)) if word in written
    ] == []
    assert record.command == (
        "python",
        "~/code/train.py",
        "--api-key",
        "<redacted>",
        "--note",
        "<redacted>",
    )
    assert record.code.remote == "https://<redacted>@example.org/x.git"
    assert record.code.num_redacted == 2
    assert record.problems == ()
    assert "torch" in record.packages


def test_what_cannot_be_read_is_a_problem_and_no_error(monkeypatch, tmp_path):
    def broken():
        raise ValueError("broken")

    monkeypatch.setattr(recording, "host_facts", broken)
    found = recording.collect(tmp_path, ["python"], Redactor())
    assert found["problems"] == (
        "the code is in no git repository",
        "the machine could not be read: ValueError",
    )
    assert found["host"] == {}
    assert (
        recording.collect(None, ["python"], Redactor())["problems"][0]
        == "the folder of the code is not known"
    )


def test_long_command_line_is_cut_and_said_so(tmp_path):
    found = recording.collect(tmp_path, ["python", *["x" * 1000] * 100], Redactor())
    assert len(found["command"]) == 33
    assert "the command line was cut: it has 101 words" in found["problems"]


def test_session_is_recorded_once_a_session_and_switched_off_by_the_environment(
    root, exp_hash, monkeypatch
):
    for _ in range(2):
        assert recording.record_provenance(root.store, exp_hash, clock=root.clock) is None
    assert len(provenance_keys(root.store, exp_hash)) == 1
    other = begin(root, 1)[0]
    monkeypatch.setenv("WEIGHTSLAB_PROVENANCE", "off")
    assert recording.record_provenance(root.store, other, clock=root.clock) is None
    assert provenance_keys(root.store, other) == []


def test_store_that_cannot_write_is_told_in_words(root, exp_hash, monkeypatch):
    def full(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr(root.store, "put", full)
    said = recording.record_provenance(root.store, exp_hash, clock=root.clock)
    assert said == f"the provenance of {exp_hash} is not recorded: the disk is full"


def test_secret_values_of_the_environment_are_known_and_the_folder_is_none_of_them():
    redactor = recording.redactor_of(
        {"HF_TOKEN": "abc-def-ghi", "PWD": "/work/somewhere", "LANG": "C.UTF-8"}
    )
    assert redactor.literals == ("abc-def-ghi",)


def test_facts_name_no_machine_and_no_person_and_draw_no_random_number():
    before = torch.get_rng_state()
    told = json.dumps([facts.host_facts(), facts.seed_facts(), facts.version_facts()])
    assert torch.equal(torch.get_rng_state(), before)
    names = {platform.node(), *facts.home_folders(), *facts.user_names()} - {""}
    assert [name for name in names if f'"{name}"' in told] == []
    assert facts.seed_facts()["torch_initial_seed"] == torch.initial_seed()


def test_collecting_imports_neither_torch_nor_cuda():
    script = (
        "import sys; from weightslab.engine.provenance import recording as r;"
        "found = r._process_facts(); from weightslab.engine.provenance.facts import seed_facts; seed_facts();"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; print(found['command'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--api-key=x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'--api-key=<redacted>'" in done.stdout
