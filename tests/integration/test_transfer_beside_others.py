"""Several processes at once: bundles that are taken in twice, copies beside savers and collections."""

import pytest
from support.collected import begin
from support.forking import ForkServer
from support.roots import fast_folder, hash_of, save, small_root, tidy_all
from support.transfers import files_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.transfer_hands") as opened:
        yield opened


@pytest.fixture
def folder():
    with fast_folder() as found:
        yield found


def made(path, steps, size_bytes=70_000):
    root = small_root(path)
    h, _ = begin(root, 0)
    for step in steps:
        save(root, h, step, f"text {step // 4}", size_bytes)
    return root, h


def test_three_that_take_in_one_bundle_at_once_leave_each_checkpoint_once(server, folder):
    root, _ = made(folder / "root", range(1, 21))
    bundle = root.bundle(folder / "b.wlb").path

    told = server.run(*[("unbundle", str(folder / "other"), str(bundle))] * 3)

    assert all(statuses and {*statuses} <= {"copied", "known", "busy"} for statuses in told)
    for at in range(20):
        assert [statuses[at] for statuses in told].count("copied") == 1
    other = small_root(folder / "other")
    assert other.unbundle(bundle).is_complete
    tidy_all(other)
    assert other.verify() == []
    assert files_of(other) == files_of(root)


def test_copies_beside_a_saver_and_a_collection_in_both_roots_are_whole(server, folder):
    steps = 15
    for name in ("root", "other"):
        small_root(folder / name)
    root, h = made(folder / "root", [])
    made(folder / "other", [])
    jobs = [
        ("save_with_branches", str(folder / "root"), 0, steps),
        ("collect_until", str(folder / "root"), [(0, steps)]),
        ("copy_until", str(folder / "root"), str(folder / "other"), h, steps),
        ("save_some", str(folder / "other"), 0, list(range(100, 110)), "mine"),
    ]
    *_, seen, mine = server.run(*jobs)
    assert {*seen} <= {"copied", "known", "gone", "busy"}
    other = small_root(folder / "other")
    assert {s for s, *_ in mine} <= {e.name.step for e in other.checkpoints(h)}
    root.refresh()
    assert root.copy_to(other, h).left_out == ()
    theirs, ours = files_of(root, h), files_of(other, h)
    assert all(ours[key] == data for key, data in theirs.items() if "_step_" in key)
    tidy_all(other)
    assert other.verify() == []
    assert hash_of(0) == h
