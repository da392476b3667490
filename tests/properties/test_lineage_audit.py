"""Lineage and audit against brute force over random histories: what is lost is never called clean."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from support.lines import Lines

from weightslab.engine.saving.ancestry import Ancestry

UIDS = range(6)
LOSSES = ("lose", "damage", "replace", "trash", "thin", "lose_experiment", "damage_samples")
NUM_WORLDS = 50


class Weights:
    """A live model object."""


@dataclass
class Saved:
    """A checkpoint as it really came about."""

    manifest: object
    parent: Saved | None
    since: tuple  # experiments that were current since the parent
    lost: bool = False
    now: object = None  # the manifest that answers for it


@dataclass
class World:
    """A root, and the truth about it."""

    root: Lines
    sets: dict
    saved: list = field(default_factory=list)
    gone: set = field(default_factory=set)

    def line(self, saved):
        """The checkpoints on the way back, those beyond a lost one left out."""
        at = saved
        while at is not None:
            yield at
            at = None if at.lost else at.parent

    def here(self):
        return [s for s in self.saved if not s.lost and s.now is not None]


def make_world(sets, acts):
    root = Lines()
    hashes = [root.experiment(n, uids) for n, uids in enumerate(sets)]
    world = World(root, dict(zip(hashes, sets, strict=True)))
    follower, model, parent, since, steps = Ancestry("root"), Weights(), None, [], {}
    current = hashes[0]
    follower.enter(current)
    follower.meet([model])
    since = [current]
    for act, number in acts:
        if act == "enter":
            current = hashes[number % len(hashes)]
            follower.enter(current)
            since.append(current)
        elif act == "fresh":
            model, parent, since = Weights(), None, [current]
            follower.meet([model])
        elif act == "load" and world.saved:
            parent, since = world.saved[number % len(world.saved)], [current]
            follower.settle([model], parent.manifest)
        elif act == "save":
            steps[current] = steps.get(current, 0) + 1
            manifest = root.save(current, steps[current], follower.parent_of([model], current))
            parent = Saved(manifest, parent, tuple(since), now=manifest)
            world.saved.append(parent)
            follower.settle([model], manifest)
            since = [current]
    return world


def harm(world, losses):
    for kind, number in losses:
        if kind in ("lose_experiment", "damage_samples"):
            exp_hash = list(world.sets)[number % len(world.sets)]
            if kind == "damage_samples" and (
                world.sets[exp_hash] is None or exp_hash in world.gone
            ):
                continue
            getattr(world.root, kind)(exp_hash)
            if kind == "lose_experiment":
                for saved in world.saved:
                    if saved.manifest.name.exp_hash == exp_hash and saved.now is not None:
                        saved.lost, saved.now = True, None
            world.gone.add(exp_hash)
            continue
        alive = [s for s in world.here() if s.now is s.manifest]
        if not alive:
            continue
        saved = alive[number % len(alive)]
        found = getattr(world.root, kind)(saved.manifest)
        saved.lost = kind in ("lose", "damage", "replace")
        saved.now = found if kind == "thin" else None
    world.root.catalog.refresh()


def expected_verdict(world, saved, wanted):
    possible, unknown = False, False
    for at in world.line(saved):
        unknown |= at.lost
        exposed = {at.manifest.name.exp_hash} | (set() if at.lost else set(at.since))
        for exp_hash in exposed:
            uids = None if exp_hash in world.gone else world.sets[exp_hash]
            unknown |= uids is None
            possible |= bool(uids and uids & wanted)
    return "possible" if possible else "unknown" if unknown else "clean"


def names_back(world, saved):
    return [(at.now or at.manifest).name for at in world.line(saved)]


def random_world(seed):
    """A history of up to 40 acts in up to 5 experiments with different sets, and what was lost of it."""
    draw = random.Random(seed)
    sets = [frozenset(draw.sample(UIDS, draw.randint(1, 5))) for _ in range(draw.randint(1, 5))]
    sets = [*dict.fromkeys(sets), *[None] * (draw.random() < 0.2)]
    kinds = ["enter", "enter", "save", "save", "save", "load", "fresh"]
    acts = [(draw.choice(kinds), draw.randrange(100)) for _ in range(draw.randint(3, 40))]
    world = make_world(sets, acts)
    harm(world, [(draw.choice(LOSSES), draw.randrange(100)) for _ in range(draw.choice((0, 1, 3)))])
    return world, set(draw.sample(UIDS, draw.randint(1, 2)))


@pytest.mark.parametrize("seed", range(NUM_WORLDS))
def test_the_audit_says_of_each_checkpoint_what_brute_force_says(seed):
    world, wanted = random_world(seed)

    report = world.root.audit(wanted)

    found = {c.name: c.verdict for c in report}
    expected = {s.now.name: expected_verdict(world, s, wanted) for s in world.here()}
    assert {name: found[name] for name in expected} == expected
    clean = [s for s in world.here() if expected[s.now.name] == "clean"]
    others = {c.name for c in report if c.verdict == "clean"} - set(expected)  # put by `replace`
    if not others:
        newest = max(clean, key=lambda s: s.manifest.created_at, default=None)
        told = report.newest_clean
        assert (told and told.name) == (newest and newest.now.name)


@pytest.mark.parametrize("seed", range(NUM_WORLDS))
def test_lineage_says_what_brute_force_says(seed):
    world, _ = random_world(seed)
    graph = world.root.lineage()

    for saved in world.here():
        reference = f"{saved.now.name.exp_hash}@{saved.now.name.step}"
        told = world.root.history(reference)
        back = names_back(world, saved)
        assert [step.name for step in told][::-1] == back
        assert told.is_complete == (
            not any(at.lost or at.manifest.parent.exact is not True for at in world.line(saved))
        )
        exposed = {h for at in world.line(saved) for h in reached(at)}
        assert set(graph.ancestors(reference)) == exposed - {saved.now.name.exp_hash}
    for exp_hash in world.sets:
        expected = {
            s.now.name.exp_hash
            for s in world.here()
            if any(exp_hash in reached(at) for at in world.line(s))
        }
        if exp_hash in graph.nodes:
            kept = {h for h in graph.descendants(exp_hash) if world.root.catalog.checkpoints(h)}
            assert kept >= expected - {exp_hash}
    for a, b in zip(world.here(), world.here()[1:], strict=False):
        left, right = names_back(world, a), names_back(world, b)
        common = next((name for name in left if name in right), None)
        references = [f"{s.now.name.exp_hash}@{s.now.name.step}" for s in (a, b)]
        assert graph.common_ancestor(*references) == common
        path = graph.path(*references)
        assert len(path) == (left.index(common) + right.index(common) + 1 if common else 0)
        assert not path or (path[0], path[-1]) == (left[0], right[0])


def reached(saved):
    own = {saved.manifest.name.exp_hash}
    return own if saved.lost else own | set(saved.since)
