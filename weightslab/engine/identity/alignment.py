"""Which module of an old description is which module of a new one.

Names come first; the numbered children of containers are aligned like lines of a text, so that an
inserted layer is one insertion and not a change of everything after it.
"""

from __future__ import annotations

import difflib
import operator
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightslab.engine.identity.moduletree import Node

__all__ = ["Alignment", "Event", "align"]

_PARAMETRIZATIONS: Final = "parametrizations"
_Opcode = tuple[str, int, int, int, int]  # as of `difflib`
_MAX_ALIGNED: Final = 250_000  # old x new modules: 500 layers that all differ take 0.3 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to modules as a whole.

    Attributes:
        kind: `added`, `removed` (nodes side by side, alike), `replaced`, `wrapped`, `unwrapped`,
            `moved`, `swapped`, `permuted` (numbered ones in another order), `reordered` (the
            parents whose names are registered in another order).
        old, new: the nodes before and after; empty where there were none.
        renumbered: how many modules after an insertion or a removal got another number.
    """

    kind: str
    old: tuple[Node, ...] = ()
    new: tuple[Node, ...] = ()
    renumbered: int = 0


@dataclass(slots=True)
class Alignment:
    """The result of `align`.

    Attributes:
        pairs: nodes that are the same module, to be compared; in the order of the new model.
        events: what happened to whole modules.
        paths: old path -> new path of every module that is still there.
    """

    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)

    def new_path(self, path: str) -> str:
        """Return where a module is now; its old path if it is gone."""
        return self.paths.get(path, path)

    def new_tensor(self, path: str) -> str:
        """Return the name that a parameter or buffer has now."""
        owner, _, name = path.rpartition(".")
        owner = self.new_path(owner)
        return f"{owner}.{name}" if owner else name


def align(old: Node, new: Node) -> Alignment:
    """Align two models."""
    aligner = _Aligner()
    aligner.meet(old, new)
    aligner.find_moves()
    return aligner.result


class _Aligner:
    def __init__(self) -> None:
        self.result = Alignment()

    def _pair(self, old: Node, new: Node) -> None:
        self.result.paths[old.path] = new.path
        self.result.pairs.append((old, new))

    def _pair_all(self, old: Node, new: Node) -> None:
        for one, other in zip(old.walk(), new.walk(), strict=True):
            self._pair(one, other)

    def _tell(
        self, kind: str, old: Sequence[Node] = (), new: Sequence[Node] = (), renumbered: int = 0
    ) -> None:
        self.result.events.append(
            Event(kind=kind, old=tuple(old), new=tuple(new), renumbered=renumbered)
        )

    # ------------------------------------------------------------ one place
    def meet(self, old: Node, new: Node) -> None:
        """Align two modules that stand in the same place."""
        if old.signature == new.signature:
            self._pair_all(old, new)
        elif not (old.is_module and new.is_module):
            if old.is_module == new.is_module and ("same_as" in old.entry) == (
                "same_as" in new.entry
            ):
                self._pair(old, new)
            else:
                self._tell("replaced", [old], [new])
        elif (
            old.entry["class"] == new.entry["class"]
            or _is_renamed(old, new)
            or _is_reworked(old, new)
        ):
            self._pair(old, new)
            self._children(old, new)
        else:
            self._replace(old, new)

    def _replace(self, old: Node, new: Node) -> None:
        inside = [c for c in new.children.values() if c.signature == old.signature]
        outside = [c for c in old.children.values() if c.signature == new.signature]
        if len(inside) == 1 and old.has_weights:
            self._tell("wrapped", [old], [new, inside[0]])
            self._pair_all(old, inside[0])
        elif len(outside) == 1 and new.has_weights:
            self._tell("unwrapped", [old, outside[0]], [new])
            self._pair_all(outside[0], new)
        else:
            self._tell("replaced", [old], [new])

    def _children(self, old: Node, new: Node) -> None:
        names = [*old.children, *new.children]
        if names and all(name.isdecimal() for name in names):
            self._numbered([*old.children.values()], [*new.children.values()])
        else:
            self._named(old, new)

    # ------------------------------------------------------------ names
    def _named(self, old: Node, new: Node) -> None:
        before, after = dict(old.children), dict(new.children)
        if (_PARAMETRIZATIONS in before) != (_PARAMETRIZATIONS in after):  # told by the module
            before.pop(_PARAMETRIZATIONS, None)
            after.pop(_PARAMETRIZATIONS, None)
        crossed = self._crossed(before, after)
        for name in [n for n in before if n in after and n not in crossed]:
            self.meet(before[name], after[name])
        gone = [node for name, node in before.items() if name not in after]
        come = [node for name, node in after.items() if name not in before]
        for one, other in _same_once(gone, come):
            self._tell("moved", [one], [other])
            self._pair_all(one, other)
            gone.remove(one)
            come.remove(other)
        for node in gone:
            self._tell("removed", [node])
        for node in come:
            self._tell("added", (), [node])
        kept = [name for name in before if name in after]
        if kept != [name for name in after if name in before]:
            self._tell("reordered", [old], [new])

    def _crossed(self, before: dict[str, Node], after: dict[str, Node]) -> set[str]:
        """Tell of two children that exchanged their names; return the names."""
        changed = [n for n in before if n in after and before[n].signature != after[n].signature]
        done: set[str] = set()
        for name in changed:
            partners = [
                other
                for other in changed
                if name not in done
                and other not in done
                and before[name].signature == after[other].signature
                and before[other].signature == after[name].signature
            ]
            if len(partners) == 1:
                other = partners[0]
                done |= {name, other}
                self._tell("swapped", [before[name], before[other]], [after[other], after[name]])
                self._pair_all(before[name], after[other])
                self._pair_all(before[other], after[name])
        return done

    # ------------------------------------------------------------ numbers
    def _numbered(self, old: list[Node], new: list[Node]) -> None:
        before, after = ([node.signature for node in nodes] for nodes in (old, new))
        if Counter(before) == Counter(after) and before != after:
            self._permuted(old, new)
            return
        opcodes = _opcodes(before, after)
        told = sum(max(j - i, m - k) for tag, i, j, k, m in opcodes if tag != "equal")
        if len(old) == len(new) and told >= sum(map(operator.ne, before, after)):
            self._gap(old, new, 0)  # of many alike, one changed: nothing moved
            return
        for tag, i, j, k, m in opcodes:
            if tag == "equal":
                for one, other in zip(old[i:j], new[k:m], strict=True):
                    self._pair_all(one, other)
            else:
                self._gap(old[i:j], new[k:m], len(new) - m)

    def _permuted(self, old: list[Node], new: list[Node]) -> None:
        left = list(new)
        places: dict[int, Node] = {}
        for at, node in enumerate(old):
            if new[at].signature == node.signature:
                places[at] = new[at]
                left.remove(new[at])
        for at, node in enumerate(old):
            if at not in places:
                places[at] = next(n for n in left if n.signature == node.signature)
                left.remove(places[at])
        moved = [at for at in places if places[at].name != old[at].name]
        for at, node in enumerate(old):
            self._pair_all(node, places[at])
        kind = "swapped" if len(moved) == 2 else "permuted"  # noqa: PLR2004  two places
        self._tell(kind, [old[at] for at in moved], [places[at] for at in moved])

    def _gap(self, old: list[Node], new: list[Node], after: int) -> None:
        """Align children that are not equal: by class, then by place."""
        if len(old) == len(new):
            for one, other in zip(old, new, strict=True):
                self.meet(one, other)
            return
        classes = [[_kind(node) for node in nodes] for nodes in (old, new)]
        for tag, i, j, k, m in _opcodes(*classes):
            if tag == "equal" or j - i == m - k:
                for one, other in zip(old[i:j], new[k:m], strict=True):
                    self.meet(one, other)
                continue
            rest = len(new) - m + after
            self._runs("removed", old[i:j], rest)
            self._runs("added", new[k:m], rest)

    def _runs(self, kind: str, nodes: list[Node], renumbered: int) -> None:
        for _, run in groupby(nodes, key=lambda node: node.signature):
            found = tuple(run)
            old, new = (found, ()) if kind == "removed" else ((), found)
            self._tell(kind, old, new, renumbered=renumbered)

    # ------------------------------------------------------------ the whole model
    def find_moves(self) -> None:
        """Make a removal and an addition of the same thing, where there is one of each, a move.

        Either may lie inside something bigger that went or came.
        """
        gone, come = (
            [n for n in self._single(kind) if n.has_weights] for kind in ("removed", "added")
        )
        inside_gone, inside_come = (
            [inner for node in nodes for inner in node.walk() if inner.has_weights]
            for nodes in (gone, come)
        )
        moves = [*_same_once(gone, inside_come), *_same_once(inside_gone, come)]
        for one, other in dict.fromkeys(moves):
            self.result.events = [
                e
                for e in self.result.events
                if not (e.kind == "removed" and e.old == (one,))
                and not (e.kind == "added" and e.new == (other,))
            ]
            self._tell("moved", [one], [other])
            self._pair_all(one, other)

    def _single(self, kind: str) -> list[Node]:
        events = [event for event in self.result.events if event.kind == kind]
        return [(*e.old, *e.new)[0] for e in events if len(e.old) + len(e.new) == 1]


def _kind(node: Node) -> str:
    return str(node.entry.get("class"))


def _same_once(gone: Sequence[Node], come: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Return what can only be the same: equal, and there once on either side."""
    counts = [Counter(node.signature for node in nodes) for nodes in (gone, come)]
    by_signature = {node.signature: node for node in come}
    return [
        (one, by_signature[one.signature])
        for one in gone
        if counts[0][one.signature] == counts[1][one.signature] == 1
    ]


def _opcodes(old: Sequence[str], new: Sequence[str]) -> list[_Opcode]:
    """Align two lists as `difflib` does, without its time on long ones: they keep their places."""
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    rest = shorter - start
    end = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    middle = old[start : len(old) - end], new[start : len(new) - end]
    inner: list[_Opcode] = [("replace", 0, len(middle[0]), 0, len(middle[1]))]
    if len(middle[0]) * len(middle[1]) <= _MAX_ALIGNED:
        matcher = difflib.SequenceMatcher(None, *middle, autojunk=False)
        inner = [(tag, i, j, k, m) for tag, i, j, k, m in matcher.get_opcodes()]
    found = [(tag, start + i, start + j, start + k, start + m) for tag, i, j, k, m in inner]
    before: list[_Opcode] = [("equal", 0, start, 0, start)] if start else []
    ends = ("equal", len(old) - end, len(old), len(new) - end, len(new))
    after: list[_Opcode] = [ends] if end else []
    return [*before, *found, *after]


def _is_reworked(old: Node, new: Node) -> bool:
    """Say whether another class of the user took over most of the children by name."""
    if not old.entry["kind"] == new.entry["kind"] == "user":
        return False
    shared = old.children.keys() & new.children.keys()
    return 2 * len(shared) > max(len(old.children), len(new.children))


def _is_renamed(old: Node, new: Node) -> bool:
    """Say whether two modules of different classes are the same module after its class changed.

    They have the same children, or are both a user's and own tensors of the same names.
    """
    if list(old.children) != list(new.children):
        return False
    if old.children:
        return True
    both_users = old.entry["kind"] == new.entry["kind"] == "user"
    names = [[name for name, *_ in node.entry.get("parameters", ())] for node in (old, new)]
    return (
        both_users
        and names[0] == names[1]
        and (bool(names[0]) or old.entry["attributes"] == new.entry["attributes"])
    )
