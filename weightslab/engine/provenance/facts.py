"""Facts: what this process, its packages and its machine are. Nothing is imported, nothing is started.

torch is looked at only where the program has imported it, and CUDA only where it is in use already.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Final

from weightslab import __version__

__all__ = [
    "home_folders",
    "host_facts",
    "installed_packages",
    "seed_facts",
    "user_names",
    "version_facts",
]

_INSTALLED: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.]*)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info\Z"
)
_MAX_PACKAGES: Final = 2000
# settings by which two runs of one program differ; none of them tells who or where
_VARIABLES: Final = (
    "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "PL_GLOBAL_SEED", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "TF32_OVERRIDE", "NVIDIA_TF32_OVERRIDE", "WORLD_SIZE",
)  # fmt: skip


def installed_packages() -> dict[str, str]:
    """Return name -> version of all installed distributions, from the names of their folders.

    Their metadata is not read: that takes 0.2 ms each.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - thousands of names, and no paths
        except OSError:
            continue  # zip files, and folders that are not there
        for name in names:
            match = _INSTALLED.match(name) if name.endswith("-info") else None
            if match is not None:
                found.setdefault(match["name"].replace("_", "-").lower(), match["version"])
    return dict(sorted(found.items())[:_MAX_PACKAGES])


def version_facts() -> dict[str, str]:
    """Return the versions that are no packages: Python, the system, CUDA."""
    found = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "weightslab": __version__,
    }
    torch: Any = sys.modules.get("torch")
    version = getattr(torch, "version", None)
    if version is not None:
        found["torch"] = str(getattr(torch, "__version__", ""))
        for name in ("cuda", "hip"):
            if getattr(version, name, None):
                found[name] = str(getattr(version, name))
        if "cuda" in found and (cudnn := torch.backends.cudnn.version()) is not None:
            found["cudnn"] = str(cudnn)
    driver = _text("/proc/driver/nvidia/version")
    if match := re.search(r"Kernel Module.*?(\d+\.\d[\d.]*)", driver):
        found["nvidia_driver"] = match[1]
    return found


def host_facts() -> dict[str, Any]:
    """Return what the machine is; no name of it, and no name of a person."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "num_cpus": os.cpu_count(),
        "num_usable_cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else None,
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None  # not told by this system


def _gpus() -> list[str]:
    """Return the names of the GPUs: those in use, else those the driver lists.

    CUDA is not begun for it: that takes a second, and forked children could not use it any more.
    """
    torch: Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return [cuda.get_device_properties(n).name for n in range(cuda.device_count())]
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    found = (re.search(r"^Model:\s*(.+)$", _text(file), re.MULTILINE) for file in files)
    return [match[1].strip() for match in found if match]


def seed_facts() -> dict[str, Any]:
    """Return seeds and switches of determinism as they are now; draws no random number."""
    found: dict[str, Any] = {n.lower(): os.environ[n] for n in _VARIABLES if n in os.environ}
    found["hash_randomization"] = bool(sys.flags.hash_randomization)
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "initial_seed"):
        return found
    return found | {
        "torch_initial_seed": torch.initial_seed(),
        "torch_deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch_deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "torch_num_threads": torch.get_num_threads(),
    }


def home_folders() -> tuple[str, ...]:
    """Return the home folder of this process under all names it is known by."""
    names = [os.environ.get(name, "") for name in ("HOME", "USERPROFILE")]
    try:
        names += [str(Path.home()), str(Path.home().resolve())]
    except (OSError, RuntimeError):
        names += []  # there is no home folder
    return tuple(sorted({n.rstrip("/\\") for n in names if len(n.rstrip("/\\")) > 1}))


def user_names() -> tuple[str, ...]:
    """Return the names that the user of this process goes by."""
    names = {os.environ.get(n, "") for n in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    names |= {re.split(r"[/\\]", home)[-1] for home in home_folders()}
    return tuple(sorted(names - {""}))


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # no such driver here
