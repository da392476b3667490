"""Canonical code remembered: serialising a syntax tree again costs ten times what checking does.

The form of a code object depends on the code object and on what its globals resolve to, on nothing
else. So the answers of the resolver are kept with the form, asked for again at every use, and
the form is taken only if all of them are what they were: a changed global, helper or constant is
seen. Another `__code__` is another key; defaults and closures are not part of the form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.identity.canonical import encode_canonical
from weightslab.engine.identity.code import canonical_code

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from weightslab.engine.identity.canonical import Tree
    from weightslab.engine.identity.codeform import CodeForm, Resolver
    from weightslab.engine.identity.effects import Effects

__all__ = ["remembered_code"]

_MAX_FORMS: Final = 4096  # user functions of one process; a notebook makes new ones all day
_Answers = list[tuple[tuple[str, ...], "tuple[Tree, int]"]]
# by id: equal code of two files is one key otherwise; the code is kept alive, so ids stay its own
_forms: dict[int, tuple[types.CodeType, _Answers, CodeForm]] = {}


def remembered_code(
    code: types.CodeType, resolve: Resolver, notice: Callable[[Effects], None]
) -> CodeForm:
    """Return `canonical_code(code, ...)`, from memory where nothing it depends on changed."""
    known = _forms.get(id(code))
    if known is not None:
        notice(known[2].effects)
    if known is not None and all(_same(resolve(chain), found) for chain, found in known[1]):
        return known[2]
    answers: _Answers = []

    def recording(chain: tuple[str, ...]) -> tuple[Tree, int]:
        found = resolve(chain)
        answers.append((chain, found))
        return found

    form = canonical_code(code, recording, notice)
    if not form.weak:  # its source may turn up later
        if len(_forms) >= _MAX_FORMS:
            _forms.pop(next(iter(_forms)), None)
        _forms[id(code)] = (code, answers, form)
    return form


def _same(left: Any, right: Any) -> bool:
    try:
        return bool(left == right)
    except RecursionError:  # a constant of a thousand levels
        return left[1] == right[1] and encode_canonical(left[0]) == encode_canonical(right[0])
