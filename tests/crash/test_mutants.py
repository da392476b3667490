"""The package with one fsync, link or rename left out: each time something is lost, and noticed."""

import importlib.util
import random
import shutil

import pytest
from support import mutants, tracing
from support.crash_check import Case
from support.crash_hands import OPERATIONS
from support.forking import ForkServer
from support.power_calls import acks_in, all_states
from support.roots import fast_folder

SITES = mutants.sites()
IDS = [f"{number}-{site[1]}-{site[4]}" for number, site in enumerate(SITES)]
NUM_LAST = 12
# those that make folders are asked first, those that cost much last
FIRST = ("begin in new folders", "update hash", "backup")
LAST = ("save in the background", "discard samples")
ORDER = [*FIRST, *(name for name in OPERATIONS if name not in FIRST + LAST), *LAST]


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


@pytest.fixture(scope="module")
def lines(server):
    """Operation -> the places in the source that it goes through."""
    files = sorted({importlib.util.find_spec(site[0]).origin for site in SITES})
    found = {}
    for name in OPERATIONS:
        with fast_folder() as folder:
            path = Case(name, folder).fresh(folder / "root")
            (seen,) = server.run(("lines_of", name, str(path), files))
            found[name] = {(file, line) for file, line in seen}
    return found


@pytest.fixture(scope="module")
def cases():
    """Each operation with its roots, made once."""
    with fast_folder() as folder:
        found = {}
        for name in ORDER:
            (folder / name).mkdir()
            found[name] = Case(name, folder / name)
        yield found


def goes_through(lines, site):
    module, _, line, *_ = site
    return (importlib.util.find_spec(module).origin, line) in lines


class Run:
    """A run of an operation with one call left out."""

    def __init__(self, server, case, site):
        self._case, self._folder = case, case.template.parent
        path = case.fresh(self._folder / "root")
        job = ("work_on", case.name, str(path), site[:4])
        try:
            self._calls, result = tracing.recorded(server, job, self._folder / "calls.txt")
        except AssertionError:  # the worker failed with an error that is not of the house
            self._calls, result = [], None
        acks = acks_in(self._calls)
        self.is_odd = result is not True or bool(case.problems(path, acks, done=True))

    def few_states(self):
        """Return the states after everything was acknowledged, and some others."""
        states = self.all_states()
        return states[: -NUM_LAST - 1 : -1] + random.Random(1).sample(states, min(12, len(states)))

    def all_states(self):
        """Return every state that a power loss during the run may leave."""
        path = self._case.fresh(self._folder / "root")
        return all_states(path, self._calls, self._case.operation.unsynced)

    def has_problem(self, state):
        """Tell whether something is lost, or half there, after a power loss."""
        path = self._folder / "state"
        shutil.rmtree(path, ignore_errors=True)
        state.lay_out(path)
        return bool(self._case.problems(path, state.acknowledged()))


def is_caught(server, cases, site):
    """Tell whether a run itself, or a power loss during it, shows that a call is missing."""
    runs = []
    for case in cases:
        run = Run(server, case, site)
        if run.is_odd or any(map(run.has_problem, run.few_states())):
            return True
        runs.append(run)
    return any(any(map(run.has_problem, run.all_states())) for run in runs)


def test_call_sites_are_found():
    assert len(SITES) >= 26
    assert len(set(IDS)) == len(IDS)


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES, ids=IDS)
def test_call_that_is_left_out_is_missed(server, lines, cases, site):
    on_the_way = [case for name, case in cases.items() if goes_through(lines[name], site)]
    assert on_the_way, "no operation goes through it"
    assert is_caught(server, on_the_way, site)
