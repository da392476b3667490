"""One root for all tests that only read, and the command line in this process."""

import pytest
from support import command_line


@pytest.fixture(scope="session")
def looked_at(tmp_path_factory):
    """A root that no test changes."""
    path = tmp_path_factory.mktemp("cli") / "root"
    command_line.make_root(path)
    return path


@pytest.fixture
def root(tmp_path):
    """A root of one's own."""
    path = tmp_path / "root"
    command_line.make_root(path)
    return path


@pytest.fixture
def cli(capsys, monkeypatch):
    """Call `weightslab WORDS`; no variable of whoever runs the tests counts."""
    for name in ("WEIGHTSLAB_ROOT", "WEIGHTSLAB_DEBUG", "NO_COLOR", "COLUMNS", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    return lambda *words: command_line.run(capsys, *words)
