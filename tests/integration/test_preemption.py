"""Real signals to real programs: what is on disk, what they printed, and how they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from weightslab.engine.root import CheckpointRoot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server():
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "support.preempted"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(server, tmp_path):
    """Run a program; `meanwhile` is called with its pid once it is ready."""

    def run_program(name, meanwhile=None):
        server.stdin.write(json.dumps([name, str(tmp_path)]) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        if meanwhile is not None:
            while not (tmp_path / "ready").exists():
                os.sched_yield()
            meanwhile(pid)
        status = int(server.stdout.readline())
        root = CheckpointRoot(tmp_path / "root", read_only=True)
        events = [e for e in root.journal.read() if e["event"] == "checkpoint_committed"]
        return SimpleNamespace(
            status=status,
            out=(tmp_path / "out").read_text().split("\n")[:-1],
            err=(tmp_path / "err").read_text(),
            saves=[(e["step"], e.get("because")) for e in events],
            root=root,
        )

    return run_program


@pytest.mark.parametrize(
    ("name", "status", "out", "saves"),
    [
        ("exits", 143, ["1", "2", "cleaned up"], [(3, "SIGTERM")]),
        (
            "exits_with_a_save_under_way",
            143,
            ["1", "2", "cleaned up"],
            [(1, "every 1 steps"), (2, "every 1 steps"), (3, "SIGTERM")],
        ),
        ("exits_once", 143, ["1", "2", "cleaned up"], [(3, "SIGTERM and SIGINT")]),
        ("interrupted", -signal.SIGINT, ["1", "2", "cleaned up"], [(3, "SIGINT")]),
        ("dies", -signal.SIGTERM, ["1", "2"], [(3, "SIGTERM")]),
        ("goes_on", 0, ["1", "2", "3", "4", "cleaned up"], [(3, "SIGUSR1")]),
        ("ignores", 0, ["1", "2", "3", "4", "cleaned up"], []),
        (
            "asks_an_earlier_handler",
            0,
            ["1", "2", "handler", "3", "4", "cleaned up"],
            [(3, "SIGTERM")],
        ),
        ("before_the_first_step", -signal.SIGTERM, [], []),
        ("after_close", -signal.SIGTERM, [], []),
        ("steps_in_a_thread", 143, ["1", "2"], [(2, "SIGTERM")]),
        ("has_a_worker", 0, ["1", f"worker {-signal.SIGTERM}"], []),
        ("ends_without_close", 0, ["1", "2", "3"], [(3, "exit")]),
        ("raises_without_with", 1, ["1", "2", "3"], [(3, "exit")]),
    ],
)
def test_a_program_ends_as_it_should_with_its_last_step_on_disk(run, name, status, out, saves):
    found = run(name)
    assert (found.status, found.out, found.saves) == (status, out, saves), found.err
    assert found.root.verify() == []


def test_a_kill_from_outside_in_the_middle_of_a_step_loses_nothing(run):
    found = run("waits_for_its_parent", lambda pid: os.kill(pid, signal.SIGTERM))
    assert (found.status, found.saves) == (143, [(3, "SIGTERM")]), found.err
    assert found.root.latest().metrics == {"n": 3}
    assert sorted(found.root.tensors(found.root.latest().name.exp_hash, 3, "0.*")) == [
        "0.bias",
        "0.weight",
    ]
    assert "step 3 is on disk" in found.err


def test_what_could_not_be_saved_at_the_end_is_said(run):
    found = run("ends_after_its_optimizer")
    assert (found.status, found.saves) == (0, [])
    assert "the optimizer that was given to step() is gone" in found.err
