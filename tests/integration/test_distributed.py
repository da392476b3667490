"""Two processes of torch.distributed: rank 0 commits, nobody waits for anybody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from support import ranks

from weightslab.engine.root import CheckpointRoot

SCRIPT = Path(ranks.__file__)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo"),
]


def run(folder, mode):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(rank), mode],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=90) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], outputs
    return [json.loads(out) for out, _ in outputs]


@pytest.mark.parametrize("mode", ["all", "first", "late"])
def test_one_commit_the_same_path_and_the_same_weights(tmp_path, mode):
    zero, one = run(tmp_path, mode)
    assert zero["hash"] == one["hash"]
    assert (zero["is_new"], one["is_new"]) == (True, False)
    assert (zero["found"], one["found"]) == (False, False)
    assert zero["path"] is not None
    assert one["path"] == (None if mode == "first" else zero["path"])
    assert (zero["step"], one["step"]) == (1, 1)
    assert zero["equal"]
    assert one["equal"]
    root = CheckpointRoot(tmp_path / "root", read_only=True)
    (entry,) = root.checkpoints()
    assert (entry.name.step, entry.name.revision, entry.sequence) == (1, 1, 1)
    assert root.verify() == []
    events = [event["event"] for event in root.journal.read()]
    assert events == [
        "experiment_begun",
        "checkpoint_begun",
        "checkpoint_committed",
        "checkpoint_loaded",
    ]
