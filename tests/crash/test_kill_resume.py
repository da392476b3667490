"""kill -9 in a script that resumes by itself, and two scripts that resume the same checkpoint."""

from __future__ import annotations

import random

import pytest
from support.forking import ForkServer
from support.roots import fast_folder

from weightslab.engine.root import CheckpointRoot

NUM_KILLS = 30
LAST_STEP = 900  # more than 30 lives reach


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.resume_hands") as opened:
        yield opened


def kill_once(server, chance, path):
    """Run the script until it is killed at some moment; returns where it resumed and came to."""
    (pid,) = server.fork(("train", path, LAST_STEP))
    server.release()
    if chance.random() < 0.8:
        server.listen_for(pid, "step", chance.randint(1, 12))
    server.listen(chance.uniform(0, 0.04))
    assert server.kill(pid) == -9
    return server.heard(pid, "resumed"), server.heard(pid, "step")


@pytest.mark.slow
def test_a_script_killed_thirty_times_ends_like_one_that_was_not(server):
    chance, reached, resumed = random.Random(23), 0, []
    with fast_folder() as folder:
        path = str(folder / "root")
        for _ in range(NUM_KILLS):
            begun, steps = kill_once(server, chance, path)
            assert all(step % 3 == 0 and step <= reached + 1 for step in begun)
            reached = max([reached, *begun, *steps])
            resumed += begun
        assert len({step for step in resumed if step > 0}) >= NUM_KILLS // 3

        (digests,) = server.run(("train", path, LAST_STEP))

        assert digests == server.run(("train_in_one_go", LAST_STEP))[0]
        root = CheckpointRoot(path, read_only=True)
        assert root.verify() == []
        assert [e.name.step for e in root.checkpoints()] == [*range(3, LAST_STEP + 1, 3)]
        # nothing was trained twice into something else: each step has one revision alone
        assert {e.name.revision for e in root.checkpoints()} == {1}


@pytest.mark.slow
def test_two_scripts_may_resume_the_same_checkpoint_and_nothing_is_lost(server):
    with fast_folder() as folder:
        path = str(folder / "root")
        server.run(("train", path, 6))
        begun = server.run(("go_on_beside_others", path, 1, 4), ("go_on_beside_others", path, 2, 4))
        assert begun == [6, 6]

        root = CheckpointRoot(path, read_only=True)
        assert root.verify() == []
        entries = root.checkpoints()
        manifests = {e.digest: root.manifest(e) for e in entries}
        for step in range(7, 11):
            found = [m for m in manifests.values() if m.name.step == step]
            assert sorted(m.name.revision for m in found) == [1, 2]
            assert sorted(m.metadata["by"] for m in found) == [1, 2]
        for by in (1, 2):  # each has a line of its own, back to what both resumed
            (last,) = (
                m for m in manifests.values() if m.name.step == 10 and m.metadata["by"] == by
            )
            line = [last]
            while line[-1].name.step > 6:
                line.append(manifests[line[-1].parent.manifest_digest])
            assert [m.name.step for m in line] == [10, 9, 8, 7, 6]
            assert {m.metadata["by"] for m in line[:-1]} == {by}
        newest = max(entries, key=lambda e: (e.sequence, e.created_at))
        assert root.latest().name == newest.name
