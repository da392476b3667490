"""Recording: the provenance of this process, collected once, written beside each experiment it opens.

`WEIGHTSLAB_PROVENANCE=off` switches it off. Nothing here makes a training fail: what cannot be found out is
a problem in the record, what cannot be written is told.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.provenance.facts import (
    home_folders,
    host_facts,
    installed_packages,
    seed_facts,
    user_names,
    version_facts,
)
from weightslab.engine.provenance.git import read_code_state, repository_of
from weightslab.engine.provenance.redact import Redactor
from weightslab.engine.provenance.secrets import is_secret_name
from weightslab.engine.repository.provenance import Provenance, add_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from weightslab.engine.repository.provenance import CodeState
    from weightslab.engine.storage.store import Store

__all__ = ["PROVENANCE_VARIABLE", "collect", "is_wanted", "record_provenance", "redactor_of"]

PROVENANCE_VARIABLE: Final = "WEIGHTSLAB_PROVENANCE"
_MAX_COMMAND: Final = 32 << 10  # characters; a command line may hold a thousand file names


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether provenance is recorded: yes, unless WEIGHTSLAB_PROVENANCE is `off`, `0`, `no` or `false`."""
    return environment.get(PROVENANCE_VARIABLE, "").strip().lower() not in (
        "off",
        "0",
        "no",
        "false",
    )


def record_provenance(store: Store, exp_hash: str, *, clock: Callable[[], datetime]) -> str | None:
    """Write where this session comes from beside an experiment, unless it is there already.

    The code is looked at once in a process, when it opens its first experiment.

    Args:
        store: where the root lives.
        exp_hash: the experiment.
        clock: returns the current aware UTC time.
    Returns: None; or why nothing could be written, in words.
    Durability: on disk on return.
    """
    if not is_wanted():
        return None
    facts = dict(_process_facts())
    redactor: Redactor = facts.pop("redactor")
    try:
        seeds, num = redactor.document(seed_facts())
        record = Provenance(exp_hash=exp_hash, recorded_at=clock(), seeds=seeds, **facts)
        add_provenance(store, replace(record, num_redacted=record.num_redacted + num))
    except CheckpointError as error:
        return f"the provenance of {exp_hash} is not recorded: {error}"
    return None


@cache
def _process_facts() -> dict[str, Any]:
    """Collect once: the code that was imported does not change any more when its files do."""
    redactor = redactor_of(os.environ)
    folder = _code_folder()
    return {"redactor": redactor, **collect(folder, _command(), redactor)}


def redactor_of(environment: Mapping[str, str]) -> Redactor:
    """Return what takes out the secrets of this process: values of the environment, names, homes."""
    known = (k for k in environment if is_secret_name(k) and k.upper() not in ("PWD", "OLDPWD"))
    secret = {environment[name].strip() for name in known}
    node = platform.node()
    return Redactor(
        homes=home_folders(),
        users=user_names(),
        hosts=tuple({node, node.partition(".")[0]} - {""}),
        literals=tuple(sorted(secret - {""})),
    )


def collect(folder: Path | None, command: list[str], redactor: Redactor) -> dict[str, Any]:
    """Return the facts of a session but its seeds, redacted; what fails is a problem among them.

    Args:
        folder: where the training code lies; None if that is not known.
        command: the command line.
        redactor: takes out what must not be kept.
    """
    problems: list[str] = []
    code = None
    if folder is None:
        problems.append("the folder of the code is not known")
    else:
        code, found = read_code_state(folder)
        problems += found
    code, num_code = _redacted_code(code, redactor)
    words, num_words = redactor.arguments(_shortened(command, problems))
    rest = {
        "folder": _current_folder(),
        "problems": problems,
        "host": _attempt(host_facts, "the machine", problems),
        "versions": _attempt(version_facts, "the versions", problems),
        "packages": _attempt(installed_packages, "the packages", problems),
    }
    told, num_rest = redactor.document(rest)
    return {
        "command": words,
        "code": code,
        **told,
        "problems": tuple(told["problems"]),
        "num_redacted": num_code + num_words + num_rest,
    }


def _redacted_code(code: CodeState | None, redactor: Redactor) -> tuple[CodeState | None, int]:
    if code is None:
        return None, 0
    diff, in_diff = redactor.text(code.diff)
    names: dict[str, Any] = {"branch": code.branch, "remote": code.remote, "folder": code.folder}
    names |= {"binary": code.binary, "untracked": code.untracked}
    told, in_names = redactor.document(names)
    told |= {"binary": tuple(told["binary"]), "untracked": tuple(told["untracked"])}
    return replace(code, diff=diff, num_redacted=in_diff, **told), in_diff + in_names


def _attempt(look: Callable[[], dict[str, Any]], what: str, problems: list[str]) -> dict[str, Any]:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - third-party code; a training must not fail for it
        problems.append(f"{what} could not be read: {type(error).__name__}")
        return {}


def _command() -> list[str]:
    words = list(getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv])
    if words and Path(words[0]).name.startswith("python"):
        words[0] = "python"  # where it was installed says nothing
    return words


def _shortened(command: list[str], problems: list[str]) -> list[str]:
    kept, room = [], _MAX_COMMAND
    for word in command:
        room -= len(word) + 1
        if room < 0:
            problems.append(f"the command line was cut: it has {len(command)} words")
            break
        kept.append(word)
    return kept


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return ""  # it was deleted


def _code_folder() -> Path | None:
    """Return the folder of the training code: of the main script, or where the program runs.

    The second where the first is in no repository, or belongs to what is installed (pytest, ipykernel).
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        current = Path.cwd()
        folder = current if script is None else Path(script).resolve().parent
        prefixes = [Path(p).resolve() for p in (sys.prefix, sys.base_prefix)]
        is_installed = any(folder.is_relative_to(p) for p in prefixes)
        if is_installed or "site-packages" in folder.parts or repository_of(folder) is None:
            return current
    except OSError:
        return None  # the folder was deleted
    return folder
