"""Collections beside savers in other processes: what was to be kept is there."""

import pytest
from support.collected import begin
from support.crash_check import strangers
from support.forking import ForkServer
from support.roots import fast_folder, hash_of, small_root, tidy_all

from weightslab.engine.repository.verify import verify_files
from weightslab.engine.retention.policies import BestN, LatestN
from weightslab.engine.retention.rules import Retention

STEPS = 30
UNTIL = [(0, STEPS), (1, STEPS)]


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.hands") as opened:
        yield opened


@pytest.fixture
def path():
    with fast_folder() as folder:
        for number in (0, 1):
            begin(small_root(folder / "root"), number)
        yield folder / "root"


def there(root, exp_hash):
    """Return step -> newest manifest of what is in its place."""
    entries = sorted(root.checkpoints(exp_hash), key=lambda entry: entry.name.revision)
    return {entry.name.step: root.manifest(entry) for entry in entries}


def check_saver(root, number, saved):
    points, branches, pins = saved
    found = there(root, hash_of(number))
    best = min(range(1, STEPS + 1), key=lambda step: (step * 7 % STEPS, -step))
    assert {*points, *pins, best, STEPS, STEPS - 1} == found.keys()
    for step in (*pins, STEPS):
        assert "training" in found[step].parts
    for step, branch in zip(points, branches, strict=True):
        child = there(root, branch)[1]
        assert child.parent.manifest_digest in (found[step].digest, found[step].derived_from)
    for manifest in found.values():
        verify_files(root.store, manifest)


@pytest.mark.slow
@pytest.mark.parametrize("num_collectors", [1, 2])
def test_collections_beside_two_savers_lose_nothing_that_was_to_be_kept(
    server, path, num_collectors
):
    savers = [("save_with_branches", str(path), number, STEPS) for number in (0, 1)]
    collectors = [("collect_until", str(path), UNTIL)] * num_collectors
    *saved, collected = server.run(*savers, *collectors)[: 2 + 1]
    root = small_root(path)
    report = root.gc(Retention(keep=LatestN(2) | BestN("loss"), training=LatestN(1)))
    assert report.problems == ()
    assert collected[0] + len(report.dropped) > 0
    for number, found in enumerate(saved):
        check_saver(root, number, found)
    tidy_all(root)
    assert root.verify() == []
    assert strangers(path) == []
