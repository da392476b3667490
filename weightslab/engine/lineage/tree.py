"""The graph of experiments as a tree of text.

Each experiment has one line, below the oldest of those that led to it; the others are named in it.
Branches are indented, and the largest goes on straight on, so that a line of ten thousand experiments
is as narrow as one of two: n experiments are indented log2(n) times at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightslab.engine.lineage.graph import LineageEdge, LineageNode

__all__ = ["draw", "plain_line"]

_MAX_CHANGES: Final = 2  # of an experiment that are shown in its line
_MAX_CHARACTERS: Final = 60
_HERE, _GONE, _DAMAGED = "*", "x", "!"


def draw(
    nodes: Mapping[str, LineageNode], edges: Iterable[LineageEdge], names: Mapping[str, str]
) -> str:
    """Return the tree; empty for no experiments."""
    incoming: dict[str, dict[str, LineageEdge]] = {}
    for edge in edges:
        if edge.parent != edge.child:
            incoming.setdefault(edge.child, {}).setdefault(edge.parent, edge)
    ages = {exp_hash: _age(node) for exp_hash, node in nodes.items()}
    chosen = {h: _trunk(ages, h, incoming[h]) if h in incoming else None for h in nodes}
    children: dict[str | None, list[str]] = {}
    for exp_hash, trunk in chosen.items():
        children.setdefault(None if trunk is None else trunk.parent, []).append(exp_hash)
    order = _from_roots(children)
    sizes = dict.fromkeys(nodes, 1)
    for exp_hash in reversed(order):
        trunk = chosen[exp_hash]
        if trunk is not None:
            sizes[trunk.parent] += sizes[exp_hash]
    lines = []
    todo = [(exp_hash, "", "") for exp_hash in reversed(children.get(None, []))]
    while todo:
        exp_hash, before, mark = todo.pop()
        told = _told(nodes[exp_hash], chosen[exp_hash], incoming.get(exp_hash, {}), names)
        lines.append(plain_line(f"{before}{mark}{told}"))
        own = children.get(exp_hash, [])
        if len(own) > 1:
            own.sort(key=sizes.__getitem__)
        base = before + ("| " if mark == "|-" else "")
        todo += [(h, base, "" if at == len(own) - 1 else "|-") for at, h in enumerate(own)][::-1]
    return "\n".join(lines)


def _from_roots(children: Mapping[str | None, list[str]]) -> list[str]:
    order = list(children.get(None, []))
    for exp_hash in order:
        order += children.get(exp_hash, [])
    return order


def _trunk(
    ages: Mapping[str, tuple[int, float, str]], exp_hash: str, incoming: Mapping[str, LineageEdge]
) -> LineageEdge | None:
    """Return the edge below which an experiment is drawn: from an older one, so that it ends.

    What was trained in before what was only stated; those that are gone are taken for the oldest.
    """
    older = [edge for edge in incoming.values() if ages[edge.parent] < ages[exp_hash]]
    return min(older, key=lambda e: e.kind == "stated", default=None)


def _age(node: LineageNode) -> tuple[int, float, str]:
    if node.created_at is not None:
        return 1, node.created_at.timestamp(), node.exp_hash
    return 2 * (not node.is_missing), 0.0, node.exp_hash


def _told(
    node: LineageNode,
    edge: LineageEdge | None,
    incoming: Mapping[str, LineageEdge],
    names: Mapping[str, str],
) -> str:
    mark = _GONE if node.is_missing else _DAMAGED if node.damaged else _HERE
    name = f' "{names[node.exp_hash]}"' if node.exp_hash in names else ""
    words = [f"{mark} {node.exp_hash}{name}"]
    if edge is not None:
        words.append(_from(edge))
    if node.is_missing:
        words.append("(not here)")
    elif node.damaged:
        words.append("(damaged)")
    else:
        count = node.num_checkpoints
        words.append(f"{count or 'no'} checkpoint{'' if count == 1 else 's'}")
    if edge is not None and node.changed_from == edge.parent and node.changes:
        words.append(_shortened(node.changes))
    others = [other for parent, other in incoming.items() if edge is None or parent != edge.parent]
    if others:
        words.append(f"also {', '.join(_from(other) for other in others[:_MAX_CHANGES])}")
        more = len(others) - _MAX_CHANGES
        words[-1] += f" and {more} more" if more > 0 else ""
    return "  ".join(words)


def _from(edge: LineageEdge) -> str:
    if edge.kind == "stated":
        return f"~ compared with {edge.parent}"
    step = "" if edge.step is None else f"@{edge.step}"
    return f"from {edge.parent}{step}{' (not exact)' if edge.kind == 'via' else ''}"


def _shortened(changes: tuple[str, ...]) -> str:
    shown = [c if len(c) <= _MAX_CHARACTERS else f"{c[: _MAX_CHARACTERS - 3]}..." for c in changes]
    more = len(shown) - _MAX_CHANGES
    return "; ".join(shown[:_MAX_CHANGES]) + (f"; {more} more" if more > 0 else "")


def plain_line(line: str) -> str:
    """Return one line that does what it shows: nothing a terminal obeys."""
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)
