"""The README promises: run the script, kill it whenever you like, run it again; it goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from support.documents import README, fenced_blocks

from weightslab.engine.root import CheckpointRoot

LAST_STEP = 1000
EVERY = 100


def _readme_script():
    (script,) = (b.text for b in fenced_blocks(README.read_text("utf-8")) if b.language == "python")
    return script


def _start(folder, script):
    (folder / "train.py").write_text(script, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-u", "train.py"],  # -u: a line is there as soon as it is printed
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _steps(text):
    return [int(step) for step in re.findall(r"_step_(\d+)\.safetensors$", text, re.MULTILINE)]


def _run(folder, script):
    process = _start(folder, script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return _steps(out), err


def _run_and_kill_after(folder, script, *, lines):
    process = _start(folder, script)
    printed = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    rest, err = process.communicate(timeout=120)
    assert process.returncode != 0, err
    return _steps("".join(printed) + rest)


def _all_files(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "events.jsonl"  # a load is an event
    }


def _tensors_at_the_end(root):
    records = root.manifest(root.latest()).tensors
    return {  # the script seeds torch alone, so other random states differ from run to run
        name: (record.shape, record.digest)
        for name, record in records.items()
        if not name.startswith("training/random")
    }


def _names_in_the_picture(exp_hash):
    """The files and folders that the README shows under "On disk", with this hash in them."""
    section = README.read_text("utf-8").split("## On disk")[1].split("## ")[0]
    paths = re.findall(r"^    [\s\u2500-\u257f]*([\w./]+)", section, re.MULTILINE)
    names = {name for path in paths for name in path.split("/") if name}
    return {re.sub(r"[0-9a-f]{16}", exp_hash, name) for name in names}


@pytest.mark.slow
def test_the_script_of_the_readme_goes_on_where_it_was_killed(tmp_path):
    script = _readme_script()

    before = _run_and_kill_after(tmp_path, script, lines=3)
    assert before[:3] == [100, 200, 300]
    at_least = before[-1]  # it printed the step, so the step is committed
    committed = CheckpointRoot(tmp_path / "runs", read_only=True).latest().name.step
    assert committed in (at_least, at_least + EVERY)  # killed between the commit and the print

    after, _ = _run(tmp_path, script)
    assert after == list(range(committed + EVERY, LAST_STEP + 1, EVERY))

    root = CheckpointRoot(tmp_path / "runs", read_only=True)
    (exp_hash,) = root.list_hashes()
    entries = root.checkpoints(exp_hash)
    assert [e.name.step for e in entries] == list(range(EVERY, LAST_STEP + 1, EVERY))
    assert [e.name.revision for e in entries] == [1] * 10
    assert all(e.parts == ("model", "training") for e in entries)
    assert [e.parent.step for e in entries] == [None, *range(EVERY, LAST_STEP, EVERY)]
    assert root.verify() == []
    assert not list((tmp_path / "runs").rglob("*.pending"))
    assert not list((tmp_path / "runs").rglob("*.tmp"))

    assert _names_in_the_picture(exp_hash) - {p.name for p in tmp_path.rglob("*")} == set()

    (tmp_path / "whole").mkdir()
    _run(tmp_path / "whole", script)
    whole = CheckpointRoot(tmp_path / "whole" / "runs", read_only=True)
    assert _tensors_at_the_end(root) == _tensors_at_the_end(whole)  # killed or not: the same bits

    files = _all_files(tmp_path / "runs")
    third, _ = _run(tmp_path, script)
    assert third == []
    assert _all_files(tmp_path / "runs") == files


@pytest.mark.slow
def test_the_script_with_another_learning_rate_says_what_the_readme_says(tmp_path):
    script = _readme_script()
    _run(tmp_path, script)

    steps, log = _run(tmp_path, script.replace('"lr": 1e-3', '"lr": 3e-4'))

    assert steps[0] == EVERY
    shown = README.read_text("utf-8")
    for words in (
        "fresh start: experiment ",
        " has no checkpoints. Nearest: ",
        " (lr: 0.001 -> 0.0003), newest step 1000; resume(..., on_change='continue') goes on",
    ):
        assert words in shown
        assert words in log
