"""Power loss on a real ext4: its blocks are logged, and every state of the disk is mounted again."""

import random
import shutil

import pytest
from support import block_log
from support.crash_check import ACKS, Case
from support.crash_hands import OPERATIONS
from support.forking import ForkServer
from support.roots import fast_folder

NUM_STATES = 9  # of each operation in the fast set
FAST = ("save", "save past the cache", "update hash", "begin in new folders")


@pytest.fixture(scope="module")
def server():
    why = block_log.why_not_here()
    if why is not None:
        pytest.skip(why)
    with ForkServer("support.crash_hands") as opened:
        yield opened


def logged(server, case, folder, *, is_safe=True):
    """Do the work on a logged disk; returns the disk and (position in the log, acknowledgement)."""

    def fill(place):
        shutil.rmtree(place / "lost+found")
        case.fresh(place / "root")

    disk = block_log.LoggedDisk(folder, fill)
    disk.log.touch()
    with disk.opened() as place:
        job = ("work_on_disk", case.name, str(place / "root"), str(disk.log), is_safe)
        (pid,) = server.fork(job)
        server.release()
        assert server.wait(pid) == (0, True)
    words = [word for word in server.words(pid) if "position" in word]
    return disk, [(w["position"], (k, w[k])) for w in words for k in ACKS if k in w]


def bad_states(case, folder, disk, acks, count=None):
    """Return (number of states looked at, problems by position in the log)."""
    last = disk.num_images() - 1
    chosen = (
        {*range(last + 1)}
        if count is None
        else {last, *random.Random(1).sample(range(last), count)}
    )
    found = []
    for number, (position, image) in enumerate(disk.images()):
        if number not in chosen:
            continue
        path = folder / "state.img"
        path.write_bytes(image)
        with block_log.mounted(path, folder / "state") as place:
            known = [ack for at, ack in acks if at <= position]
            found += [(position, text) for text in case.problems(place / "root", known)]
    return len(chosen), found


def check(server, name, count, *, is_safe=True):
    with fast_folder() as folder:
        (folder / "case").mkdir()
        case = Case(name, folder / "case")
        disk, acks = logged(server, case, folder, is_safe=is_safe)
        return bad_states(case, folder, disk, acks, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_some_power_losses_on_ext4_lose_nothing(server, name):
    _, found = check(server, name, NUM_STATES)
    assert found == []


@pytest.mark.slow
def test_without_fsync_power_losses_on_ext4_lose_what_was_acknowledged(server):
    _, found = check(server, "save", NUM_STATES, is_safe=False)
    assert any("lost" in text for _, text in found)


@pytest.mark.crash_long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_power_loss_on_ext4_loses_anything(server, name, record_property):
    count, found = check(server, name, None)
    record_property("states", count)
    assert found == []
