"""Power loss at every point of every operation: a model over the system calls it really makes."""

import random
import shutil

import pytest
from support import tracing
from support.crash_check import Case
from support.crash_hands import OPERATIONS
from support.forking import ForkServer
from support.power_calls import all_states
from support.roots import fast_folder

NUM_STATES = 12  # of each operation in the fast set


@pytest.fixture(scope="module", autouse=True)
def no_catalog():
    """Work without an index: it is no part of a root, and each of many states would get its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHTSLAB_CATALOG", "off")
        yield


@pytest.fixture(scope="module")
def server(no_catalog):
    why = tracing.why_not_here()
    if why is not None:
        pytest.skip(why)
    with ForkServer("support.crash_hands") as opened:
        yield opened


def recorded(server, case, folder, site=None):
    """Run the work; returns its calls and what it returned. The root it left is `folder / "done"`."""
    path = case.fresh(folder / "root")
    job = ("work_on", case.name, str(path), site)
    calls, result = tracing.recorded(server, job, folder / "calls.txt")
    shutil.rmtree(folder / "done", ignore_errors=True)
    shutil.move(path, folder / "done")
    return calls, result


def states_of(case, folder, calls):
    return all_states(case.fresh(folder / "root"), calls, case.operation.unsynced)


def problems_of(case, state, folder):
    path = folder / "state"
    shutil.rmtree(path, ignore_errors=True)
    state.lay_out(path)
    return case.problems(path, state.acknowledged())


def bad_states(case, folder, calls, count=None):
    """Return (number of states looked at, those with problems); all of them without `count`."""
    states = states_of(case, folder, calls)
    chosen = states if count is None else random.Random(1).sample(states, min(count, len(states)))
    return len(chosen), [(s.at, p) for s in chosen for p in problems_of(case, s, folder)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_some_power_losses_lose_nothing(server, name):
    with fast_folder() as folder:
        case = Case(name, folder)
        calls, result = recorded(server, case, folder)
        assert result is True
        _, found = bad_states(case, folder, calls, NUM_STATES)
        assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["save", "save past the cache", "update hash", "backup"])
def test_without_fsync_the_same_power_losses_lose_something(server, name):
    with fast_folder() as folder:
        case = Case(name, folder)
        calls, _ = recorded(server, case, folder)
        unsafe = [call for call in calls if call.name not in ("fsync", "fdatasync")]
        assert len(unsafe) < len(calls)
        count, found = bad_states(case, folder, unsafe, NUM_STATES)
        assert len(found) > count / 20


@pytest.mark.crash_long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_power_loss_loses_anything(server, name, record_property):
    with fast_folder() as folder:
        case = Case(name, folder)
        calls, _ = recorded(server, case, folder)
        count, found = bad_states(case, folder, calls)
        record_property("states", count)
        assert found == []
