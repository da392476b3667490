"""Frozen digests: what a release must not change by accident, on every Python and in every process."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.identity import import_file

from weightslab.engine.identity.canonical import SCHEME

HERE = Path(__file__).resolve().parent
GOLDEN = json.loads((HERE / "golden" / "hashes.json").read_text())
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ADVICE = (
    "the digest of something that users may have stored changed; if that is meant, the scheme needs"
    " a new version (SCHEME in canonical.py), and then golden/frozen.py writes hashes.json again"
)


def _script(name):
    return import_file(HERE / "golden" / f"{name}.py", f"golden_{name}")


def _interpreter(version):
    """Return a Python of this version, or None."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(managed.glob(f"{version}.*/bin/python"))
    if found:
        return str(found[-1])
    path = shutil.which(f"python{version}")
    if path is None:
        return None
    works = subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
    return path if works else None


def test_the_golden_file_is_of_this_scheme():
    assert GOLDEN["scheme"] == SCHEME, ADVICE


@pytest.mark.parametrize("kind", ["models", "configs", "samples"])
def test_frozen_things_keep_their_digests(kind):
    assert _script("frozen").digests()[kind] == GOLDEN[kind], ADVICE


@pytest.mark.parametrize("version", PYTHONS)
def test_canonical_code_is_the_same_on_every_python(version):
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    done = subprocess.run(
        [python, "-I", str(HERE / "golden" / "digest_syntax.py"), str(HERE.parents[1])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    readable = {
        name: digest
        for name, digest in GOLDEN["syntax"].items()
        if tuple(map(int, name.split()[0].split("."))) <= tuple(map(int, version.split(".")))
    }
    assert len(readable) >= 14
    assert json.loads(done.stdout) == readable, ADVICE


def test_the_frozen_syntax_holds_what_differs_between_pythons():
    text = (HERE / "golden" / "syntax.txt").read_text()
    for word in (
        "match x",
        ":=",
        "except*",
        "async for",
        'f"{name=}"',
        "def typed[T",
        "with (open",
    ):
        assert word in text
    assert re.findall(r"^#: (\S+)", text, re.MULTILINE) == ["3.10", "3.11", "3.12"]


@pytest.mark.slow
@pytest.mark.parametrize("only", ["test_attack_code", "test_attack_state"])
def test_fresh_processes_agree(only):
    count, wrong = _fresh().varying(2, only=only)
    assert wrong == []
    assert count > 40


def _fresh():
    return import_file(HERE / "fresh_processes.py", "fresh_processes")
