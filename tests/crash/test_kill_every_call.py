"""kill -9 at, and failure of, each system call of each operation that changes something."""

import random

import pytest
from support import tracing
from support.crash_check import Case, acks_of, strangers, view_of
from support.crash_hands import OPERATIONS
from support.forking import ForkServer
from support.roots import fast_folder, small_root, tidy_all

# what a file system answers, and the calls that may hear it
FAILURES = {
    "ENOSPC": "mkdir openat write writev pwrite64 ftruncate fsync link rename",
    "EDQUOT": "mkdir openat write writev pwrite64 link rename",
    "EIO": "mkdir openat write writev pwrite64 ftruncate fsync fdatasync link rename unlink rmdir",
    "EACCES": "mkdir openat link rename unlink rmdir",
}
NUM_KILLS = 4  # of each operation in the fast set
NUM_FAILURES = 2


@pytest.fixture(scope="module")
def server():
    why = tracing.why_not_here()
    if why is not None:
        pytest.skip(why)
    with ForkServer("support.crash_hands") as opened:
        yield opened


def points_of(server, case, folder):
    """Return (name, number) of every call of the work that changes something.

    strace counts for each thread by itself: a number that two threads reach is one point, at which
    the first of them dies.
    """
    path = case.fresh(folder / "root")
    job = ("work_on", case.name, str(path))
    calls, result = tracing.recorded(server, job, folder / "calls.txt")
    assert result is True
    return sorted({(call.name, call.number) for call in calls if call.changes()})


def failures_of(points):
    """Return (point, fault) for every error that the call may return, once and from then on."""
    return [
        ((name, f"{number}{lasting}"), f"error={code}")
        for name, number in points
        for code, names in FAILURES.items()
        if name in names.split()
        for lasting in ("", "+")
    ]


def go(server, case, folder, point, fault):
    """Do the work with a fault at one point; returns (exit status, problems)."""
    path = case.fresh(folder / "root")
    job = ("work_on", case.name, str(path))
    pid, status, result = tracing.inject(server, job, point, fault)
    if status == 0 and result is not True and not result.partition(":")[0].endswith("Error"):
        return status, result, [f"it returned {result}"]
    return status, result, case.problems(path, acks_of(server, pid), done=result is True)


def kill_at(server, case, folder, points):
    """Kill at each point; returns (number of deaths, problems by point)."""
    deaths, found = 0, []
    for point in points:
        status, _, problems = go(server, case, folder, point, "signal=KILL")
        assert status in (-9, 0)
        deaths += status == -9
        found += [(point, problem) for problem in problems]
    return deaths, found


def fail_at(server, case, folder, faults):
    """Let each call fail; returns (number of works that raised, problems by point)."""
    refused, found = 0, []
    for point, fault in faults:
        status, result, problems = go(server, case, folder, point, fault)
        assert status == 0
        refused += result is not True
        found += [(point, fault, problem) for problem in problems]
    return refused, found


def some(things, count):
    """Return some of the things, the same ones in every run, with the first and the last."""
    chosen = random.Random(len(things)).sample(things, min(count, len(things)))
    return sorted({*chosen, *things[:1], *things[-1:]})


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_kill_or_failure_at_some_calls_loses_nothing(server, name):
    with fast_folder() as folder:
        case = Case(name, folder)
        points = points_of(server, case, folder)
        assert len(points) >= 2
        chosen = some(points, NUM_KILLS)
        deaths, found = kill_at(server, case, folder, chosen)
        assert found == []
        assert deaths > 0
        _, found = fail_at(server, case, folder, some(failures_of(points), NUM_FAILURES))
        assert found == []


@pytest.mark.slow
def test_cleaner_that_is_killed_or_fails_beside_a_saver_takes_nothing_from_it(server):
    with fast_folder() as folder:
        case = Case("clean up", folder)
        points = points_of(server, case, folder)
        faults = [(point, "signal=KILL") for point in points]
        faults += some(failures_of(points), NUM_FAILURES)
        for point, fault in faults:
            path = case.fresh(folder / "root")
            acks = clean_beside_a_saver(server, path, point, fault)
            check_saver(path, acks)


def clean_beside_a_saver(server, path, point, fault):
    """Clean up with a fault at one point while another process saves; returns what it acknowledged."""
    work = ("work_on", "clean up", str(path))
    cleaner, saver = server.fork(work, ("save_beside", str(path)))
    server.listen_for(cleaner, "ready")
    tracer = tracing.attach(cleaner, *tracing.injecting(point, fault))
    server.release()
    assert server.wait(saver) == (0, True)
    assert server.wait(cleaner)[0] in (-9, 0)
    tracing.detach(tracer)
    return acks_of(server, saver)


def check_saver(path, acks):
    tidy_all(small_root(path))
    view = view_of(path)
    assert len(acks) == 6
    assert {tuple(value) for _, value in acks} <= view.checkpoints.keys()
    assert (view.broken, view.findings) == ([], set())
    assert strangers(path) == []


@pytest.mark.crash_long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_kill_at_each_call_loses_nothing(server, name, record_property):
    with fast_folder() as folder:
        case = Case(name, folder)
        points = points_of(server, case, folder)
        deaths, found = kill_at(server, case, folder, points)
        record_property("points", len(points))
        record_property("deaths", deaths)
        assert found == []
        assert deaths >= 0.9 * len(points)  # the rest: a count that differs from run to run


@pytest.mark.crash_long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_failure_of_each_call_is_an_error_of_the_house_and_loses_nothing(
    server, name, record_property
):
    with fast_folder() as folder:
        case = Case(name, folder)
        faults = failures_of(points_of(server, case, folder))
        refused, found = fail_at(server, case, folder, faults)
        record_property("failures", len(faults))
        record_property("refused", refused)
        assert found == []
