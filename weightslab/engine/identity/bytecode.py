"""Code without source: described as byte-code, which holds for one Python version; stdlib only."""

from __future__ import annotations

import dis
import hashlib
import sys
import types
from typing import TYPE_CHECKING

from weightslab.engine.identity.codeform import CodeForm, Facts
from weightslab.engine.identity.effects import Effects
from weightslab.engine.identity.source import code_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.identity.codeform import Resolver

__all__ = ["byte_code_form"]


def byte_code_form(
    code: types.CodeType, resolve: Resolver, notice: Callable[[Effects], None] | None
) -> CodeForm:
    """Return the form of a code object: its digest, and what its names stand for."""
    facts = Facts(returns_value=True, in_place=True)
    names, effects = _names_in(code)
    if notice is not None:
        notice(effects)
    facts.reads |= names
    facts.dynamic = "getattr" in names or "__dict__" in names
    facts.uses_super = "super" in names
    resolved = [[name, resolve((name,))[0]] for name in sorted(names)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(repr(code_key(code)).encode("utf-8", "backslashreplace")).hexdigest()
    return CodeForm(["bytecode", version, digest, resolved], facts, effects, "", weak=True)


def _names_in(code: types.CodeType) -> tuple[set[str], Effects]:
    """Return the names that byte-code uses, and what it is seen to assign."""
    names: set[str] = set()
    effects = Effects(code.co_varnames[0] if code.co_argcount else None)
    stack = [code]
    while stack:
        one = stack.pop()
        names.update(one.co_names)
        for instruction in dis.get_instructions(one):
            if instruction.opname == "STORE_GLOBAL":
                effects.stored.add((instruction.argval,))
            elif instruction.opname in ("STORE_ATTR", "DELETE_ATTR"):
                effects.foreign.add(instruction.argval)
        stack.extend(const for const in one.co_consts if isinstance(const, types.CodeType))
    return names, effects
