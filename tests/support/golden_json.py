"""The JSON of every reading command: what is asked, and what the answers are compared with.

`PYTHONPATH=tests python -m support.golden_json` writes the files anew; look at the difference before you
commit it: programs of users read these documents.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path

from support.command_line import FIRST, make_root
from weightslab.cli.start import main

FOLDER = Path(__file__).parents[1] / "unit" / "cli" / "golden"
SECOND = "1e5fa8b701969ff9"
# file -> words; `--root` and `--json` are added
ASKED = {
    "ls": ("ls",),
    "ls_checkpoints": ("ls", "--checkpoints", "--where", "step >= 2", "--order", "step"),
    "show_experiment": ("show", FIRST[:4]),
    "show_checkpoint": ("show", f"{FIRST[:6]}@2"),
    "log": ("log", FIRST),
    "tree": ("tree",),
    "history": ("tree", f"{FIRST}@latest"),
    "samples": ("samples", SECOND, "--uids"),
    "diff": ("diff", FIRST, SECOND),
    "audit": ("audit", "17", "99", "--experiment", FIRST),
    "audit_history": ("audit", "17", "--history"),
    "verify": ("verify",),
    "doctor": ("doctor",),
    "reproduce": ("reproduce", SECOND),
    "gc": ("gc", "--latest", "1", "--dry-run"),
    "restore": ("restore",),
    "tag": ("tag", FIRST),
    "note": ("note", FIRST),
    "name": ("note", FIRST, "--name"),
    "bundle": ("bundle", "ROOT.wlb", FIRST),
    "copy": ("copy", "ROOT-other", FIRST, "--dry-run"),
    "import": ("import", "ROOT.safetensors", "--dry-run"),
}


def asked(name, root):
    """Return the words of a question; `ROOT` in them is the path of the root."""
    return [word.replace("ROOT", str(root)) for word in ASKED[name]]


def plain(name: str, text: str, root: Path) -> str:
    """Return the answer without the place of the root, and without what depends on h5py."""
    text = text.replace(json.dumps(str(root))[1:-1], "ROOT")
    return re.sub(r'"size_bytes": \d+', '"size_bytes": "SIZE"', text) if name == "verify" else text


def write_all() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "root"
        make_root(path)
        for name in ASKED:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                main([*asked(name, path), "--root", str(path), "--json"])
            (FOLDER / f"{name}.json").write_text(
                plain(name, out.getvalue(), path), encoding="utf-8"
            )


if __name__ == "__main__":
    sys.exit(write_all())
