"""Two large checkpoints are compared in little memory, and torch stays out of it."""

import subprocess
import sys

import pytest
import torch

from weightslab.components import CheckpointManagerV2

CHILD = """
import sys
from weightslab.engine.root import CheckpointRoot
def peak():
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if "VmHWM" in l)
root = CheckpointRoot(sys.argv[1], read_only=True)
root.compare("latest", "latest")
import weightslab.engine.comparing.weights
before = peak()
(weights,) = root.compare(*sys.argv[2:], weights=True).weights
print(peak() - before, weights.read_bytes, len(weights.tensors), "torch" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_comparing_320_mb_takes_less_than_60_mb_mapped_pages_included(tmp_path):
    model = torch.nn.ModuleList(torch.nn.Linear(2500, 4000) for _ in range(4))
    with CheckpointManagerV2(tmp_path) as manager:
        exp_hash = manager.update_experiment_hash(model, {}).exp_hash
        manager.save_model_checkpoint(model, step=1, save_optimizer=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        manager.save_model_checkpoint(model, step=2, save_optimizer=False)
    code = [sys.executable, "-c", CHILD, str(tmp_path), f"{exp_hash}@1", f"{exp_hash}@2"]
    used, read, changed, torch_there = subprocess.run(
        code, check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(read) == 2 * 4 * (2500 + 1) * 4000 * 4
    assert (int(changed), torch_there) == (8, "False")
    assert int(used) < 60e6
