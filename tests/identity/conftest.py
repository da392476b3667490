"""Modules that cases import do not stay behind."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _forget_user_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("usermod", "helpers", "userpkg")):
            del sys.modules[name]
