"""Tests keep no catalogs in the cache folder of whoever runs them, and can be interrupted."""

import os
import shutil
import signal
import tempfile

_KEY = "WEIGHTSLAB_CATALOG"


def pytest_configure(config):
    # A shell starts jobs in the background with Ctrl-C ignored, which children would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.catalog_folder = tempfile.mkdtemp(prefix="weightslab-catalogs-")
    os.environ[_KEY] = config.catalog_folder


def pytest_unconfigure(config):
    os.environ.pop(_KEY, None)
    shutil.rmtree(config.catalog_folder, ignore_errors=True)
