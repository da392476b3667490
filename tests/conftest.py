"""Tests keep no catalogs in the cache folder of whoever runs them."""

import os
import shutil
import tempfile

_KEY = "WEIGHTSLAB_CATALOG"


def pytest_configure(config):
    config.catalog_folder = tempfile.mkdtemp(prefix="weightslab-catalogs-")
    os.environ[_KEY] = config.catalog_folder


def pytest_unconfigure(config):
    os.environ.pop(_KEY, None)
    shutil.rmtree(config.catalog_folder, ignore_errors=True)
