"""Files that were made to hurt are refused: nothing runs, nothing outside changes, nothing grows."""

import shutil

import pytest
from support.forking import ForkServer
from support.hostile_files import FILES, Target, contents, make_outside
from support.hostile_hands import make_root
from support.roots import fast_folder

MAX_SECONDS = 1.0
# of time a busy machine takes what it likes: what is too slow gets two more chances
TRIES = 3


@pytest.fixture(scope="module")
def server():
    with ForkServer("support.hostile_hands") as opened:
        yield opened


@pytest.fixture(scope="module")
def harmless():
    with fast_folder() as folder:
        make_root(folder / "root")
        yield folder / "root"


def test_there_are_many_of_them():
    assert len(FILES) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_hostile_file_is_refused(server, harmless, name):
    with fast_folder() as folder:
        shutil.copytree(harmless, folder / "root")
        make_outside(folder / "outside")
        FILES[name](Target(folder / "root"))
        before = contents(folder / "outside")
        for _ in range(TRIES):
            (found,) = server.run(("read_hostile", str(folder / "root")))
            assert found["odd"] == []
            assert found["seen"] == []
            assert found["refused"] != []
            if found["seconds"] < MAX_SECONDS:
                break
        assert found["seconds"] < MAX_SECONDS
        assert contents(folder / "outside") == before
