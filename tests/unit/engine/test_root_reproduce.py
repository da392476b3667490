"""`root.reproduce`: the commands, the files, and everything that is missing, for whoever comes years later."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from support.roots import ORIGIN, begin, content_of, draft_of, save, small_root

from weightslab.engine.care.recipe import shell_word
from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.provenance import CodeState, Provenance, add_provenance
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.values import ParentLink

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIFF = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-lr = 1\n+lr = 2\n"
SEEDS = {
    "torch_initial_seed": 7,
    "pythonhashseed": "0",
    "torch_deterministic": True,
    "hash_randomization": False,
}
CODE = CodeState(
    commit=COMMIT, branch="main", remote="https://example.org/x.git", folder="src", diff=DIFF
)


def session_of(exp_hash, **more):
    told = {
        "recorded_at": ORIGIN,
        "command": ("python", "train.py", "--name", "a b"),
        "code": CODE,
        "versions": {"python": "3.11.7", "cuda": "12.6"},
        "packages": {"torch": "2.13.0", "weightslab": "0.1.0", "-e evil": "1", "x": "1; rm"},
        "host": {"system": "Linux", "machine": "x86_64", "num_cpus": 8, "gpus": ["NVIDIA H100"]},
        "seeds": SEEDS,
    }
    return Provenance(exp_hash=exp_hash, **told | more)


@pytest.fixture
def root(tmp_path):
    return small_root(tmp_path / "root")


@pytest.fixture
def exp_hash(root):
    found = begin(root, 0, num_samples=5)[0]
    save(root, found, 100, "x")
    return found


def test_complete_record_misses_nothing_and_prints_the_commands(root, exp_hash):
    add_provenance(root.store, session_of(exp_hash))
    recipe = root.reproduce(f"{exp_hash[:6]}@100")
    assert recipe.missing == ()
    assert recipe.commands[1:] == [
        "git clone -- https://example.org/x.git code && cd code",
        f"git checkout --detach {COMMIT}",
        'git apply "$recipe/code.diff"',
        "cd -- src",
        'pip install -r "$recipe/requirements.txt"',
        "PYTHONHASHSEED=0 python train.py --name 'a b'",
    ]
    text = str(recipe)
    assert text.startswith(f"# checkpoint at step 100 of experiment {exp_hash}\n")
    assert "Python 3.11.7, CUDA 12.6, Linux x86_64, 8 CPUs, NVIDIA H100" in text
    assert "# missing: nothing" in text
    assert "torch_initial_seed 7" in text
    assert recipe.reference == f"{exp_hash}@100"


def test_experiment_as_a_whole_and_a_bad_reference(root, exp_hash):
    add_provenance(root.store, session_of(exp_hash))
    recipe = root.reproduce(exp_hash[:6])
    assert (recipe.step, recipe.reference) == (None, exp_hash)
    assert str(recipe).startswith(f"# experiment {exp_hash}\n")
    with pytest.raises(ValueError, match="the forms are"):
        root.reproduce(f"{exp_hash}@soon")
    with pytest.raises(ExperimentNotFoundError):
        root.reproduce("ffff")
    with pytest.raises(CheckpointNotFoundError, match="nearest: 100"):
        root.reproduce(f"{exp_hash}@7")


def test_files_are_written_into_a_new_folder_and_nothing_is_replaced(root, exp_hash, tmp_path):
    add_provenance(root.store, session_of(exp_hash))
    recipe = root.reproduce(f"{exp_hash}@100")
    folder = recipe.write(tmp_path / "recipe")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.txt", "code.diff", "config.yaml", "recipe.json", "requirements.txt", "samples.jsonl",
    ]  # fmt: skip
    stored = root.path / layout.config_key(exp_hash)
    assert (folder / "config.yaml").read_bytes() == stored.read_bytes()
    lines = (folder / "samples.jsonl").read_text().splitlines()
    assert sorted(json.loads(line) for line in lines) == [0, 1, 2, 3, 4]
    assert (folder / "code.diff").read_text() == DIFF
    assert (folder / "requirements.txt").read_text() == "torch==2.13.0\n"
    assert json.loads((folder / "recipe.json").read_text()) == recipe.to_dict()
    assert (folder / "README.txt").read_text() == f"{recipe}\n"
    with pytest.raises(AlreadyExistsError, match="not empty"):
        recipe.write(folder)


@pytest.mark.slow
def test_first_command_writes_the_files_from_any_folder(root, exp_hash, tmp_path):
    add_provenance(root.store, session_of(exp_hash))
    words = shlex.split(root.reproduce(f"{exp_hash}@100").commands[0])
    subprocess.run([sys.executable, *words[1:3]], cwd=tmp_path, check=True)
    assert (tmp_path / "recipe" / "samples.jsonl").exists()


GAPS = {
    "no commit was recorded": {"code": None, "problems": ("the code is in no git repository",)},
    "the code is in no git repository": {
        "code": None,
        "problems": ("the code is in no git repository",),
    },
    "the diff was too long and is cut": {"code": replace(CODE, is_cut=True)},
    "3 secrets or names were taken out of the diff": {"code": replace(CODE, num_redacted=3)},
    "changed binary files are not in the diff: a.bin": {"code": replace(CODE, binary=("a.bin",))},
    "their content is not stored: b.py and 8 more": {
        "code": replace(CODE, untracked=("b.py",), num_untracked=9)
    },
    "the repository has no remote": {"code": replace(CODE, remote=None)},
    "the login was taken out": {"code": replace(CODE, remote="https://<redacted>@h/x.git")},
    "parts of the command line were taken out": {"command": ("python", "--token", "<redacted>")},
    "the seed of torch was not recorded": {"seeds": {}},
    "PYTHONHASHSEED was not set": {
        "seeds": SEEDS | {"hash_randomization": True, "pythonhashseed": "0"}
    },
    "torch was not told to be deterministic": {"seeds": SEEDS | {"torch_deterministic": False}},
}
GAPS["PYTHONHASHSEED was not set"]["seeds"].pop("pythonhashseed")


@pytest.mark.parametrize("said", GAPS)
def test_what_the_record_does_not_hold_is_said(root, exp_hash, said):
    add_provenance(root.store, session_of(exp_hash, **GAPS[said]))
    recipe = root.reproduce(exp_hash)
    assert [text for text in recipe.missing if said in text]
    assert said in str(recipe)


def test_experiment_without_provenance_still_gives_config_samples_and_says_so(root, exp_hash):
    recipe = root.reproduce(exp_hash)
    assert recipe.missing == (
        "no provenance was recorded: code, command line, versions and seeds are unknown",
    )
    assert set(recipe.files) == {"config.yaml", "samples.jsonl"}
    assert root.provenance(exp_hash) == ()


def test_damaged_and_absent_parts_are_said_and_hide_nothing_else(root, tmp_path):
    bare = begin(root, 1)[0]
    add_provenance(root.store, session_of(bare))
    (
        root.path / layout.provenance_folder(bare) / "20260101T000000000000Z_0000000000000000.json"
    ).write_text("{")
    (root.path / layout.config_key(bare)).write_text("a: 1\n")
    recipe = root.reproduce(bare)
    for said in (
        "a record of provenance is damaged",
        "the config cannot be read",
        "no sample list",
        "no checkpoint, so what it began from is unknown",
    ):
        assert [text for text in recipe.missing if said in text], said
    assert recipe.session is not None
    assert len(root.provenance(bare)) == 1
    (root.path / layout.experiment_key(bare)).write_text("{")
    assert "the record of the experiment is damaged" in root.reproduce(bare).missing[0]


def test_session_is_the_last_that_began_before_the_checkpoint(root, exp_hash):
    created = root.get_checkpoint(exp_hash, 100).created_at
    for hours in (-2, -1, 1):
        moment = created + timedelta(hours=hours)
        add_provenance(
            root.store, session_of(exp_hash, recorded_at=moment, command=("python", str(hours)))
        )
    recipe = root.reproduce(f"{exp_hash}@100")
    assert recipe.session.command == ("python", "-1")
    assert root.reproduce(exp_hash).session.command == ("python", "-2")
    assert "3 sessions opened the experiment" in recipe.missing[0]
    assert [s.command[1] for s in root.provenance(exp_hash)] == ["-2", "-1", "1"]


def branch(root, exp_hash, step, parent):
    draft = draft_of(exp_hash, step, content_of(f"{step}"))
    link = ParentLink(kind="fresh", exact=True) if parent is None else parent
    manifest = write_checkpoint(root, replace(draft, parent=link))
    return root.get_checkpoint(manifest.name.exp_hash, step).as_parent()


def test_checkpoint_to_start_from_is_that_of_the_experiment_before(root):
    """A@1 -> B@2 -> B@3 -> A@4 -> A@5."""
    a, b = begin(root, 0)[0], begin(root, 1)[0]
    first = branch(root, a, 1, None)
    third = branch(root, b, 3, branch(root, b, 2, first))
    branch(root, a, 5, branch(root, a, 4, third))
    starts = {
        (h, s): root.reproduce(f"{h}@{s}").start
        for h, s in ((a, 1), (b, 2), (b, 3), (a, 4), (a, 5))
    }
    assert starts == {
        (a, 1): None,
        (b, 2): f"{a}@1",
        (b, 3): f"{a}@1",
        (a, 4): f"{b}@3",
        (a, 5): f"{b}@3",
    }
    assert root.reproduce(b).start == f"{a}@1"
    root.delete(a, step=1)
    assert [text for text in root.reproduce(f"{b}@3").missing if f"{a}@1, cannot be had" in text]
    branch(root, b, 9, ParentLink(kind="import"))
    assert "where the weights came from is unknown: import" in root.reproduce(f"{b}@9").missing


def test_hostile_record_is_shown_inert(root, exp_hash):
    evil = replace(
        CODE, remote="--upload-pack=x", folder="$(touch y)", untracked=("\x1b[2J",), num_untracked=1
    )
    command = ("python", "a\x1b]0;x\x07\nrm -rf ~", "; rm", "'")
    add_provenance(root.store, session_of(exp_hash, code=evil, command=command))
    recipe = root.reproduce(exp_hash)
    text = str(recipe)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "git clone -- --upload-pack=x code" in text
    assert "cd -- '$(touch y)'" in text
    done = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + " ".join(map(shell_word, command))],
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split("\0")[:-1] == list(command)


def test_read_only_root_answers(root, exp_hash):
    add_provenance(root.store, session_of(exp_hash))
    reader = small_root(root.path, read_only=True)
    assert reader.reproduce(exp_hash).to_dict()["missing"] == []
