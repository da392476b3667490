"""Verbs whose rooms are imported when they are first used."""

import inspect
import subprocess
import sys

from support.roots import begin, small_root

from weightslab.engine.care.summary import info
from weightslab.engine.query.asking import count
from weightslab.engine.root import CheckpointRoot


def test_a_verb_is_the_function_of_its_room_for_the_class_and_for_its_objects(tmp_path):
    root = small_root(tmp_path / "root")
    exp_hash, _ = begin(root, 1)
    assert CheckpointRoot.info is info
    assert inspect.signature(CheckpointRoot.info) == inspect.signature(info)
    assert root.info(exp_hash)["exp_hash"] == exp_hash


def test_every_verb_of_the_root_is_there():
    names = [name for name in vars(CheckpointRoot) if not name.startswith("_")]
    assert {"audit", "compare", "lineage", "gc"} <= set(names)
    for name in names:
        getattr(CheckpointRoot, name)


def test_rooms_are_not_imported_before_their_verbs_are_used():
    script = (
        "import sys; from weightslab.engine.root import CheckpointRoot as R\n"
        "rooms = ('audit', 'comparing', 'collecting', 'care', 'query.asking', 'transplanting')\n"
        "names = ['weightslab.engine.' + room for room in rooms]\n"
        "assert not set(names) & set(sys.modules), set(names) & set(sys.modules)\n"
        "R.audit\n"
        "assert names[0] in sys.modules and names[1] not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_filter_wants_is_counted_without_a_limit(tmp_path):
    root = small_root(tmp_path / "root")
    hashes = [begin(root, number)[0] for number in range(3)]
    assert count(root, "experiments") == 3
    assert count(root, "experiments", where=f"hash = {hashes[0]}") == 1
    assert count(root, "checkpoints", exp_hash=hashes[0]) == 0


def test_hashes_are_found_by_their_beginning(tmp_path):
    root = small_root(tmp_path / "root")
    hashes = sorted(begin(root, number)[0] for number in range(5))
    for first in hashes:
        assert root.catalog.exp_hashes(first[:6]) == [first]
    assert root.catalog.exp_hashes() == hashes
    assert root.catalog.exp_hashes("x") == []
