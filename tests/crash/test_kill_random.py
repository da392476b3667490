"""kill -9 in the middle of saves: what was acknowledged is there, and nothing half is."""

import random

import pytest
from support.forking import ForkServer
from support.roots import (
    begin,
    content_of,
    fast_folder,
    listing,
    read,
    save,
    small_root,
    strangers,
)

from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.opening import tidy

NUM_KILLS = 48
CROWD = 8
NUM_ROUNDS = 26  # of a crowd, each of whom is killed
ROUNDS_PER_ROOT = 13
KILLS_PER_ROOT = 8


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.hands") as opened:
        yield opened


def kill_at_random(server, chance, job):
    """Start a worker and kill it at some moment; returns what it has acknowledged."""
    (pid,) = server.fork(job)
    server.release()
    if chance.random() < 0.8:
        server.listen_for(pid, "saved", chance.randint(1, 6))
    server.listen(chance.uniform(0, 0.012))
    assert server.kill(pid) == -9
    return server.heard(pid, "saved")


def check_acknowledged(root, acknowledged, size_bytes):
    for exp_hash, step, revision, text, _ in acknowledged:
        name = CheckpointName(exp_hash=exp_hash, step=step, revision=revision)
        assert read(root, name) == content_of(text, size_bytes)


@pytest.mark.slow
def test_killed_savers_lose_nothing_acknowledged_and_show_nothing_half(server):
    chance = random.Random(20_26)
    with fast_folder() as folder:
        left_behind = sum(
            kills_in_one_root(server, chance, folder / f"root-{turn}", KILLS_PER_ROOT)
            for turn in range(NUM_KILLS // KILLS_PER_ROOT)
        )
    assert left_behind > NUM_KILLS // 8  # else the kills came between saves and proved nothing


def kills_in_one_root(server, chance, path, num_kills):
    acknowledged, left_behind, step = [], 0, 1
    for turn in range(num_kills):
        size_bytes = chance.choice([48, 48, 200_000])
        job = ("save_forever", str(path), turn // 4, step, size_bytes)
        new = kill_at_random(server, chance, job)
        acknowledged += new
        left_behind += has_left_something_and_goes_on(path, turn // 4, new, step, size_bytes)
        step += 1000
    root = small_root(path)
    assert root.verify() == []
    assert {tuple(a[:3]) for a in acknowledged} <= {found[:3] for found in listing(root)}
    return left_behind


def has_left_something_and_goes_on(path, number, acknowledged, step, size_bytes):
    root = small_root(path)
    check_acknowledged(root, acknowledged, size_bytes)
    assert [found for found in listing(root) if found[3]] == []
    left = strangers(root)
    exp_hash, _ = begin(root, number, num_samples=20)
    tidy(root.store, exp_hash)
    assert strangers(root) == []
    assert root.verify() == []
    manifest = save(root, exp_hash, step + 500, "next", size_bytes)
    assert read(root, manifest.name) == content_of("next", size_bytes)
    assert manifest.sequence > max((a[4] for a in acknowledged), default=0)
    return bool(left)


@pytest.mark.slow
def test_eight_savers_killed_one_by_one_beside_a_reader_lose_nothing(server):
    chance, kills, turns, left_behind = random.Random(8), 0, 0, 0
    with fast_folder() as folder:
        for number in range(NUM_ROUNDS // ROUNDS_PER_ROOT):
            path = str(folder / f"root-{number}")
            exp_hash, _ = begin(small_root(path), 0, num_samples=20)
            acknowledged = []
            for turn in range(ROUNDS_PER_ROOT):
                saved, seen = kill_a_crowd(server, chance, (path, exp_hash), 100_000 * turn)
                kills, turns = kills + CROWD, turns + seen
                acknowledged += saved
                left_behind += bool(strangers(small_root(path)))
            check_after_the_crowd(path, acknowledged)
    assert kills >= 200
    assert turns >= NUM_ROUNDS  # else nobody was reading
    assert left_behind > NUM_ROUNDS // 4  # else the kills came between saves and proved nothing


def kill_a_crowd(server, chance, place, first_step):
    """Start savers and a reader, kill the savers one by one; returns (acknowledged, turns read)."""
    steps = [first_step + 10_000 * number for number in range(CROWD)]
    jobs = [("save_forever", place[0], 0, s, chance.choice([48, 48, 60_000])) for s in steps]
    *savers, reader = server.fork(*jobs, ("read_forever", *place))
    server.release()
    server.listen_for(savers[0], "saved")
    server.listen_for(reader, "turn", 2)
    chance.shuffle(savers)
    for pid in savers:
        server.listen(chance.uniform(0, 0.03))
        assert server.kill(pid) == -9
    assert server.kill(reader) == -9
    wrong = [text for texts in server.heard(reader, "wrong") for text in texts]
    assert wrong == []
    saved = [found for pid in savers for found in server.heard(pid, "saved")]
    return saved, sum(count > 0 for count in server.heard(reader, "turn"))


def check_after_the_crowd(path, acknowledged):
    root = small_root(path)
    found = listing(root)
    assert [entry for entry in found if entry[3]] == []
    assert {tuple(a[:3]) for a in acknowledged} <= {entry[:3] for entry in found}
    for exp_hash, step, revision, text, _ in acknowledged:
        name = CheckpointName(exp_hash=exp_hash, step=step, revision=revision)
        parts = read(root, name)
        assert parts == content_of(text, len(parts["model"]))
    exp_hash, _ = begin(root, 0, num_samples=20)
    tidy(root.store, exp_hash)
    assert strangers(root) == []
    assert root.verify() == []
    manifest = save(root, exp_hash, 99_999_999, "next")
    assert read(root, manifest.name) == content_of("next")
    assert manifest.sequence > max(a[4] for a in acknowledged)
