"""Tests keep no catalogs in the cache folder of whoever runs them, and can be interrupted."""

import os
import shutil
import signal
import tempfile

import pytest

_KEY = "WEIGHTSLAB_CATALOG"
# many cases, processes and kills: `make test-fast` leaves them to `make test`
_SLOW_FOLDERS = {"crash", "identity", "integration", "properties", "stateful"}


def pytest_collection_modifyitems(config, items):
    tests = config.rootpath / "tests"
    for item in items:
        if (
            item.path.is_relative_to(tests)
            and item.path.relative_to(tests).parts[0] in _SLOW_FOLDERS
        ):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    # A shell starts jobs in the background with Ctrl-C ignored, which children would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.catalog_folder = tempfile.mkdtemp(prefix="weightslab-catalogs-")
    os.environ[_KEY] = config.catalog_folder


def pytest_unconfigure(config):
    os.environ.pop(_KEY, None)
    shutil.rmtree(config.catalog_folder, ignore_errors=True)
