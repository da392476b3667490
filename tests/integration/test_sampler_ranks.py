"""Two processes of torch.distributed share the samples, and agree without talking to each other."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch.distributed as dist
from support import sampler_ranks

SCRIPT = Path(sampler_ranks.__file__)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(rank)],
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


def test_ranks_are_those_of_torch_distributed(ranks):
    assert [rank["ranks"] for rank in ranks] == [[2, 0], [2, 1]]


def test_together_they_get_each_sample_once_an_epoch(ranks):
    first = [list(chain.from_iterable(rank["batches"][:3])) for rank in ranks]
    second = [list(chain.from_iterable(rank["batches"][3:])) for rank in ranks]
    assert sorted(first[0] + first[1]) == list(range(20))  # 20 was discarded in time
    assert sorted(second[0] + second[1]) == list(range(20))
    assert [len(rank["batches"]) for rank in ranks] == [6, 6]


def test_they_have_the_same_state_after_every_batch(ranks):
    assert all(rank["agree"] for rank in ranks)


def test_each_resumes_its_own_part(ranks):
    for rank in ranks:
        assert rank["rest"] == rank["batches"][2:]
