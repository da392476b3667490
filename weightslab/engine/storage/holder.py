"""Who holds a key: the text inside a hold file, and whether a dead holder's file may be taken."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["boot_id", "holder_text", "host_id", "may_take_over"]


@cache
def host_id() -> str:
    """Return 12 hex digits that stand for this machine, equal in all its processes.

    The host name alone is not enough: cloned machines share it, and so do containers.
    """
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""  # absent on macOS, Windows and in many containers
    return hashlib.sha256(f"{platform.node()}\0{machine}".encode()).hexdigest()[:12]


@cache
def boot_id() -> str:
    """Return what changes when the machine starts anew; `unknown` where the system has no word."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "unknown"


def holder_text() -> bytes:
    """Return the JSON line that names this process as holder."""
    holder = {"boot": boot_id(), "host": host_id(), "pid": os.getpid(), "schema": 1}
    return json.dumps(holder, sort_keys=True).encode("ascii") + b"\n"


def may_take_over(content: bytes) -> bool:
    """Return whether a hold file that nobody has locked belonged to a process that is dead.

    Locks need not reach across machines, so that a free lock proves the death of a process of this
    host and boot only. An empty file was never held: its process died before it wrote its name.
    """
    if not content:
        return True
    try:
        holder = json.loads(content)
    except ValueError:
        return False
    return (
        isinstance(holder, dict)
        and holder.get("host") == host_id()
        and holder.get("boot") == boot_id()
    )
