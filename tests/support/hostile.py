"""Opens, lists, verifies and loads a root while an audit hook takes notes; prints them as JSON.

    python hostile.py WARM_ROOT ROOT

Everything is done to a harmless root first, so that what is imported lazily is imported.
"""

import json
import logging
import sys
import warnings

import torch

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError

WATCHED = {
    "exec", "compile", "import", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec",
    "os.posix_spawn", "ctypes.dlopen", "socket.connect", "marshal.loads", "builtins.input",
}  # fmt: skip


def visit(path, read_only):
    """Do everything that reads, survive every error of the house, count those of other kinds."""
    odd = []

    def attempt(name, call, *arguments):
        try:
            call(*arguments)
        except CheckpointError:
            pass
        except Exception as error:
            odd.append(f"{name}{arguments}: {type(error).__name__}: {error}")

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with CheckpointManagerV2(path, read_only=read_only) as manager:
        root = manager.root
        attempt("list", manager.list_experiment_hashes)
        attempt("latest", manager.load_latest_checkpoint, model)
        attempt("root.latest", root.latest)
        attempt("root.best", root.best, "loss")
        attempt("root.verify", root.verify)
        hashes = root.list_hashes()
        for one in hashes:
            attempt("info", manager.get_checkpoint_info, one)
            attempt("config", manager.load_config, one)
            attempt("architecture", root.architecture, one)
            attempt("samples", root.samples, one)
            for other in hashes:
                attempt("changes", root.changes, one, other)
            for entry in root.checkpoints(one):
                name = entry.name
                attempt("config of a step", lambda: manager.load_config(one, step=name.step))
                attempt(
                    "load",
                    lambda: manager.load_checkpoint(
                        name.step, one, model, optimizer=optimizer, revision=name.revision
                    ),
                )
            attempt("latest of", lambda: manager.load_latest_checkpoint(model, exp_hash=one))
        if not read_only:
            attempt("update", manager.update_experiment_hash, model, {"lr": 1}, range(5))
            attempt("save", lambda: manager.save_model_checkpoint(model, step=1))
    return odd


def main():
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    warm, root, mode = sys.argv[1:]
    read_only = mode == "read"
    assert visit(warm, read_only) == []
    seen = []

    def hook(event, arguments):
        if event in WATCHED:
            seen.append(f"{event} {arguments[:1]!r:.200}")

    sys.addaudithook(hook)
    odd = visit(root, read_only)
    found, seen = seen, []
    print(json.dumps({"seen": found, "odd": odd}))


if __name__ == "__main__":
    main()
