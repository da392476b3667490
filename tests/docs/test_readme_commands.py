"""The commands that the README names exist, and what CI runs is what the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from support.documents import README, REPOSITORY

TEXT = README.read_text("utf-8")
INDENTED = re.findall(r"^    (make [\w-]+)", TEXT, re.MULTILINE)
TARGETS = sorted(set(re.findall(r"\bmake ([\w-]+)(?=`|\s+#)", TEXT)))

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def test_the_readme_names_two_commands_for_a_fresh_machine():
    assert INDENTED == ["make demo", "make test"]


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_of_the_readme_exists(target):
    # -n prints what would be run; without `-C` the output of a make around us would get mixed in
    finished = subprocess.run(
        ["make", "-n", "--no-print-directory", "-C", str(REPOSITORY), target],
        capture_output=True,
        check=False,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()


@needs_make
def test_a_target_that_does_not_exist_would_be_found():
    finished = subprocess.run(
        ["make", "-n", "-C", str(REPOSITORY), "no-such-target"], capture_output=True, check=False
    )
    assert finished.returncode != 0


def test_make_demo_runs_the_example_that_the_readme_links():
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    example = re.search(r"\[The example\]\(([^)]+)\)", TEXT).group(1)

    assert re.search(rf"^demo:.*\n\t.*{re.escape(example)}", makefile, re.MULTILINE)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_ci_is_executable():
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_ci_runs_the_test_command_of_the_readme_and_the_linters():
    commands = (REPOSITORY / ".ci" / "run").read_text("utf-8").split("\n")

    assert "make test" in INDENTED
    assert "make test" in commands
    assert "make lint" in commands
