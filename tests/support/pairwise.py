"""Pairwise tables: every two values of different factors meet in at least one row."""

from __future__ import annotations

import random
from itertools import combinations


def pairwise(factors, seed=0, candidates=20, only=None):
    """Return rows (dicts) in which every pair of values occurs; greedy, the same for a seed.

    With `only`, every pair with a value of that factor.
    """
    chance = random.Random(seed)
    names = list(factors)
    left = {
        ((a, x), (b, y))
        for a, b in combinations(names, 2)
        if only in (None, a, b)
        for x in factors[a]
        for y in factors[b]
    }
    rows = []
    while left:
        row = max((_row(factors, left, chance) for _ in range(candidates)), key=lambda r: r[0])[1]
        rows.append(row)
        left -= pairs_of(row)
    return rows


def pairs_of(row):
    """Return the pairs of values that meet in a row."""
    return set(combinations(row.items(), 2))


def _row(factors, left, chance):
    """Begin with a pair that is missing, and give each other factor the value that adds most."""
    row = dict(chance.choice(sorted(left, key=repr)))
    for name in chance.sample(list(factors), len(factors)):
        if name in row:
            continue

        def gain(value, name=name):
            return sum(
                (((name, value), other) in left) + ((other, (name, value)) in left)
                for other in row.items()
            )

        best = max(map(gain, factors[name]))
        row[name] = chance.choice([value for value in factors[name] if gain(value) == best])
    row = {name: row[name] for name in factors}
    return len(pairs_of(row) & left), row


def several(factors, count):
    """Return at least `count` different rows: as many pairwise tables as it takes."""
    rows, seed = {}, 0
    while len(rows) < count:
        rows |= {tuple(row.values()): row for row in pairwise(factors, seed)}
        seed += 1
    return list(rows.values())
