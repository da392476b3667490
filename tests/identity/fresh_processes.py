"""Run all cases in fresh processes that differ in all that must not count, and compare the digests.

    python tests/identity/fresh_processes.py [--runs 20] [--jobs 2] [--only test_layers]

Every run has its own PYTHONHASHSEED, working directory, place of the code files and order of the
cases. Prints what varied, and exits with 1 if anything did.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def collect(only):
    """Return (id, case, needs one rank) of all tables, in order of files."""
    from support.identity import import_file

    found = []
    for path in sorted(HERE.glob("test_*.py")):
        if only and path.stem != only:
            continue
        module = import_file(path, f"cases_{path.stem}")
        for table in ("CASES", "DISTRIBUTED"):
            found += [
                (f"{path.stem}: {case.name}", case, table == "DISTRIBUTED")
                for case in getattr(module, table, ())
            ]
    return found


def child(seed, only):
    """Print id -> digests of all cases, in an order of this run."""
    from support.identity import single_rank

    cases = collect(only)
    random.Random(seed).shuffle(cases)
    digests = {}
    for name, case, needs_rank in cases:
        if needs_rank:
            with single_rank():
                digests[name] = case.digests()
        else:
            digests[name] = case.digests()
    sys.stdout.write("\n" + json.dumps(digests) + "\n")


def run(seed, only):
    """Return what one fresh process found."""
    with tempfile.TemporaryDirectory(prefix=f"run-{seed}-") as folder:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed * 7919 % 2**32),
            "TMPDIR": folder,
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
            "OMP_NUM_THREADS": str(1 + seed % 2),
        }
        command = [sys.executable, "-W", "ignore", str(HERE / "fresh_processes.py")]
        command += ["--child", str(seed), *(["--only", only] if only else [])]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"run {seed} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def varying(runs, *, jobs=1, only=None):
    """Return (number of cases, names of those whose digests vary or contradict their verdict)."""
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda seed: run(seed, only), range(1, runs + 1)))
    wrong = {name for one in results for name in one if one[name] != results[0].get(name)}
    wrong |= set(results[0]) ^ set().union(*results)
    return len(results[0]), sorted(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--child", type=int)
    options = parser.parse_args()
    if options.child is not None:
        child(options.child, options.only)
        return 0
    count, wrong = varying(options.runs, jobs=options.jobs, only=options.only)
    sys.stdout.write(f"{count} cases in {options.runs} processes, {len(wrong)} vary\n")
    for name in wrong:
        sys.stdout.write(f"  {name}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
