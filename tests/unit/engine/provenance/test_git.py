"""The state of the code as git tells it; nothing that a repository names is run, and nothing hangs."""

import os
import subprocess
import time

import pytest

from weightslab.engine.provenance.git import read_code_state, repository_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="plants scripts")


def git(folder, *arguments):
    settings = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository with a commit: a text file in a folder, and a binary file."""
    folder = tmp_path_factory.mktemp("origin") / "code"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "train.py").write_text("lr = 0.1\nsteps = 3\n")
    (folder / "blob.bin").write_bytes(b"\0\1")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def code(origin, tmp_path):
    subprocess.run(["cp", "-a", str(origin), str(tmp_path / "code")], check=True)
    return tmp_path / "code"


def edit(code):
    (code / "src" / "train.py").write_text("lr = 0.2\nsteps = 3\n")
    (code / "blob.bin").write_bytes(b"\0\2")
    (code / "notes.txt").write_text("content that stays here")


def test_clean_commit_is_told_with_branch_remote_and_folder(code):
    git(code, "remote", "add", "origin", "https://example.org/code.git")
    state, problems = read_code_state(code / "src")
    assert problems == []
    assert (len(state.commit), state.branch, state.folder) == (40, "main", "src")
    assert state.remote == "https://example.org/code.git"
    assert not state.is_dirty


def test_stored_diff_applied_to_the_commit_gives_the_code_back(code, tmp_path):
    edit(code)
    state, _ = read_code_state(code)
    assert (state.binary, state.untracked, state.num_untracked) == (
        ("blob.bin",),
        ("notes.txt",),
        1,
    )
    assert "content that stays here" not in state.diff
    (tmp_path / "code.diff").write_text(state.diff)
    git(code, "stash", "-q")
    git(code, "apply", str(tmp_path / "code.diff"))
    assert (code / "src" / "train.py").read_text() == "lr = 0.2\nsteps = 3\n"


def test_long_diff_is_cut_after_a_whole_file(code):
    (code / "a.py").write_text("x = 1\n")
    git(code, "add", ".")
    (code / "src" / "train.py").write_text("y = 2\n" * 5000)
    state, _ = read_code_state(code, max_diff_bytes=400)
    assert state.is_cut
    assert state.diff.startswith("diff --git a/a.py")
    assert "train.py" not in state.diff
    assert state.is_dirty


def test_folder_without_repository_is_a_problem_and_starts_no_process(tmp_path):
    assert read_code_state(tmp_path, program="/nowhere/git") == (
        None,
        ["the code is in no git repository"],
    )


def test_missing_git_and_an_empty_repository_are_told(code, tmp_path):
    state, problems = read_code_state(code, program=str(tmp_path / "no-git"))
    assert (state, problems) == (None, ["git cannot be run: No such file or directory"])
    git(tmp_path, "init", "-q")
    state, problems = read_code_state(tmp_path)
    assert (state.commit, problems) == (None, ["the repository has no commit yet"])


def test_damaged_repository_is_told(code):
    (code / ".git" / "HEAD").write_text("nonsense")
    state, (problem,) = read_code_state(code)
    assert state is None
    assert "failed with status 128" in problem


def test_git_that_hangs_is_ended_with_all_it_started(code, tmp_path):
    slow = tmp_path / "slow-git"
    slow.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/child\nwait\n")
    slow.chmod(0o755)
    began = time.monotonic()
    state, problems = read_code_state(code, program=str(slow), timeout_seconds=0.3)
    assert (state, problems) == (None, ["git config took too long and was ended"])
    assert time.monotonic() - began < 5
    child = int((tmp_path / "child").read_text())
    assert not is_running(child)


def is_running(pid):
    """Tell whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_nothing_that_the_repository_names_is_run(code, tmp_path, monkeypatch):
    """Hooks, monitor, filters, external diff, text conversion, pager, ssh: each would leave a file."""
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for name in ("post-index-change", "fsmonitor-watchman", "post-checkout", "pre-commit"):
        (code / ".git" / "hooks" / name).write_text(trap.read_text())
        (code / ".git" / "hooks" / name).chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "core.sshCommand", "diff.external", "diff.evil.textconv",
        "diff.evil.command", "filter.Evil.clean", "filter.Evil.smudge", "filter.Evil.process", "core.editor",
    ):  # fmt: skip
        git(code, "config", key, str(trap))
    git(code, "config", "filter.Evil.required", "true")
    (code / ".gitattributes").write_text("*.py filter=Evil diff=evil\n")
    edit(code)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(trap))
    monkeypatch.setenv("GIT_PAGER", str(trap))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    state, problems = read_code_state(code)
    assert problems == []
    assert "+lr = 0.2" in state.diff
    assert not (tmp_path / "sprung").exists()


def test_filter_that_cannot_be_switched_off_keeps_git_from_being_asked(code, tmp_path):
    with (code / ".git" / "config").open("a") as file:
        file.write(f'[filter "a=b"]\n\tclean = touch {tmp_path}/sprung\n')
    (code / ".gitattributes").write_text("*.py filter=a=b\n")
    edit(code)
    state, (problem,) = read_code_state(code)
    assert state is None
    assert "cannot be switched off" in problem
    assert not (tmp_path / "sprung").exists()


def test_looking_writes_nothing_into_the_repository(code):
    edit(code)
    os.utime(code / "src" / "train.py")
    before = {p: p.stat().st_mtime_ns for p in code.rglob("*")}
    read_code_state(code)
    assert {p: p.stat().st_mtime_ns for p in code.rglob("*")} == before


def test_repository_is_found_from_a_folder_below_it(code):
    assert repository_of(code / "src") == code
