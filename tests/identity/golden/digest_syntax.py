"""Print name -> digest of the canonical form of every function in syntax.txt; stdlib only.

    python digest_syntax.py REPOSITORY [SECTION ...]

Runs under any Python, without torch: the package folders are put together by hand, because the
packages' own `__init__` files import more than canonical code needs.
"""

import builtins
import inspect
import json
import linecache
import sys
import types
import warnings
from pathlib import Path

HERE = Path(__file__).parent


def prepare(repository):
    """Make `weightslab.engine.identity` importable without running the packages' `__init__`."""
    for name in ("weightslab", "weightslab.engine", "weightslab.engine.identity"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(repository, *name.split(".")))]
        sys.modules[name] = package


def sections():
    """Yield (version, text) of syntax.txt."""
    _, *parts = (HERE / "syntax.txt").read_text(encoding="utf-8").split("#: ")
    for part in parts:
        version, _, text = part.partition("\n")
        yield version, text


def functions(code):
    """Yield the code objects of functions at the top and in classes."""
    only = code.co_name.partition("<generic parameters of ")[2].rstrip(">")
    for const in code.co_consts:
        if isinstance(const, types.CodeType) and (not only or const.co_name == only):
            is_function = const.co_flags & inspect.CO_NEWLOCALS and const.co_name[0] != "<"
            yield from (const,) if is_function else functions(const)


def digests():
    """Return "version name" -> digest, for the sections that this Python can read."""
    from weightslab.engine.identity.canonical import component_digest
    from weightslab.engine.identity.code import canonical_code

    def resolve(chain):
        kind = "builtin" if hasattr(builtins, chain[0]) else "global"
        return [kind, chain[0]], 1

    found = {}
    for version, text in sections():
        if tuple(map(int, version.split("."))) > sys.version_info[:2]:
            continue
        name = f"<syntax {version}>"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(text, name, "exec", dont_inherit=True)
        for one in functions(code):
            form = canonical_code(one, resolve)
            if form.weak:
                raise SystemExit(f"{one.co_name}: the source was not found again")
            found[f"{version} {one.co_name}"] = component_digest("code", form.tree)
    return found


if __name__ == "__main__":
    prepare(sys.argv[1])
    sys.stdout.write(json.dumps(digests(), indent=1, sort_keys=True) + "\n")
