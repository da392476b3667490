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
    """Do everything that reads, survive every error of the house, return those of other kinds."""
    odd = []

    def attempt(call, *arguments, **more):
        try:
            return call(*arguments, **more)
        except CheckpointError:
            return None
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            odd.append(f"{call.__name__}{arguments}: {type(error).__name__}: {error}"[:300])
            return None

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with CheckpointManagerV2(path, read_only=read_only) as manager:
        root = manager.root
        attempt(manager.load_latest_checkpoint, model)
        attempt(root.latest)
        attempt(root.best, "loss")
        attempt(root.verify)
        attempt(
            root.catalog.locate, {"xxh3-128:" + "0" * 32}
        )  # opens the index, however small the root
        attempt(root.usage)
        attempt(root.doctor)
        attempt(root.doctor, mend=not read_only)
        hashes = attempt(manager.list_experiment_hashes)
        for one in hashes:
            attempt(manager.get_checkpoint_info, one)
            attempt(manager.load_config, one)
            attempt(root.architecture, one)
            attempt(root.provenance, one)
            attempt(lambda one=one: str(root.reproduce(one)))
            attempt(root.samples, one)
            for other in hashes:
                attempt(root.changes, one, other)
            for entry in attempt(root.checkpoints, one):
                step = entry.name.step
                attempt(manager.load_config, one, step=step)
                attempt(manager.load_checkpoint, step, one, model, optimizer=optimizer)
            attempt(manager.load_latest_checkpoint, model, exp_hash=one)
        if not read_only:
            attempt(manager.update_experiment_hash, model, {"lr": 1}, range(5))
            attempt(manager.save_model_checkpoint, model, step=1)
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
    sys.stdout.write(json.dumps({"seen": list(seen), "odd": odd}))


if __name__ == "__main__":
    main()
