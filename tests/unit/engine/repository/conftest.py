import pytest
from support.repo import Repo


@pytest.fixture
def repo():
    return Repo()
