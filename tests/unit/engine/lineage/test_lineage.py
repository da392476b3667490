"""The graph, the tree and histories: what is said of experiments that are here, gone or forged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.lines import FRESH, Lines, link_to

from weightslab.engine.errors import CheckpointNotFoundError, ExperimentNotFoundError
from weightslab.engine.values import ParentLink


def a_b_a():
    """A saves, B goes on and saves, A goes on from there."""
    root = Lines()
    a, b = root.experiment(0, [1, 2]), root.experiment(1, [1])
    first = root.save(a, 10)
    second = root.save(b, 20, first)
    return root, a, b, root.save(a, 30, second)


def test_training_that_came_back_has_a_history_of_three_parts():
    root, a, b, _last = a_b_a()
    history = root.history(f"{a}@30")

    assert history.experiments == (a, b, a)
    assert [step.reference for step in history] == [f"{a}@10", f"{b}@20", f"{a}@30"]
    assert history.is_complete
    assert str(history) == f"{a}  new model, step 10\n{b}  step 20\n{a}  step 30"


def test_ancestry_is_that_of_checkpoints_not_of_experiments():
    root, a, b, _ = a_b_a()
    graph = root.lineage()

    assert graph.ancestors(f"{a}@10") == ()
    assert graph.ancestors(f"{a}@30") == (b,)
    assert graph.ancestors(a) == (b,)
    assert graph.ancestors(b) == (a,)
    assert graph.descendants(a) == (b,)
    assert graph.descendants(f"{a}@30") == ()
    assert graph.descendants(b) == (a,)


def test_a_later_branch_does_not_descend_from_what_came_into_its_parent_afterwards():
    root = Lines()
    a, b, c = (root.experiment(n) for n in range(3))
    first = root.save(a, 10)
    root.save(c, 20, first)
    root.save(a, 30, root.save(b, 5))

    assert root.lineage().ancestors(c) == (a,)
    assert root.lineage().descendants(b) == (a,)


def test_the_common_ancestor_and_the_path_over_it():
    root = Lines()
    a, b, c = (root.experiment(n) for n in range(3))
    trunk = [root.save(a, 10)]
    trunk.append(root.save(a, 20, trunk[0]))
    left, right = root.save(b, 21, trunk[1]), root.save(c, 15, trunk[0])
    graph = root.lineage()

    assert graph.common_ancestor(b, c) == trunk[0].name
    assert graph.common_ancestor(b, f"{a}@20") == trunk[1].name
    assert graph.path(b, c) == (left.name, trunk[1].name, trunk[0].name, right.name)
    assert graph.path(f"{a}@10", b) == (trunk[0].name, trunk[1].name, left.name)
    other = root.experiment(9)
    root.save(other, 1)
    assert graph.common_ancestor(b, other) is None
    assert graph.path(b, other) == ()


def test_edges_say_where_it_left_and_where_it_arrived():
    root, a, b, _ = a_b_a()
    told = [(e.parent, e.child, e.step, e.child_step, e.kind) for e in root.lineage().edges]

    assert sorted(told) == sorted([(a, b, 10, 20, "checkpoint"), (b, a, 20, 30, "checkpoint")])


def test_an_experiment_that_saved_nothing_is_on_the_way():
    root = Lines()
    a, b, c = (root.experiment(n) for n in range(3))
    root.save(c, 20, link_to(root.save(a, 10), via=(b,)))
    graph = root.lineage()

    assert [(e.parent, e.child, e.step, e.child_step, e.kind) for e in graph.edges] == [
        (a, b, 10, None, "via"),
        (b, c, None, 20, "via"),
    ]
    assert graph.ancestors(c) == (b, a)
    assert set(graph.descendants(a)) == {b, c}
    assert root.history(c).gaps == (f"before {c}@20 it went through {b}: no step was saved",)


def test_the_change_of_an_edge_is_what_the_record_says_else_both_are_compared():
    root = Lines()
    a = root.experiment(0)
    b = root.experiment(1, changed_from={"exp_hash": a, "changes": ["as it was told"]})
    c = root.experiment(2, changed_from={"exp_hash": a, "changes": ["about another"]})
    first = root.save(a, 1)
    root.save(c, 3, root.save(b, 2, first))
    graph = root.lineage()
    changes = {e.child: graph.changes(e) for e in graph.edges}

    assert changes == {b: ("as it was told",), c: ("n: 1 -> 2",)}


def test_what_records_state_is_kept_apart_and_used_for_no_ancestry():
    root = Lines()
    a = root.experiment(0)
    b = root.experiment(1, changed_from={"exp_hash": a, "changes": ["n: 0 -> 1"]})
    root.save(b, 1)
    graph = root.lineage()

    assert graph.edges == ()
    assert [(e.parent, e.child, e.kind) for e in graph.stated] == [(a, b, "stated")]
    assert graph.ancestors(b) == graph.descendants(a) == ()
    assert graph.roots == (a, b)
    assert str(graph).split("\n") == [
        f"* {a}  no checkpoints",
        f"* {b}  ~ compared with {a}  1 checkpoint  n: 0 -> 1",
    ]


def test_a_deleted_experiment_is_a_missing_node():
    root, a, b, _ = a_b_a()
    root.lose_experiment(b)
    root.catalog.refresh()
    graph = root.lineage()

    assert graph.nodes[b].is_missing
    assert graph.ancestors(a) == (b,)
    assert root.history(f"{a}@30").gaps == (f"the record of {b}@20 is gone",)
    assert f"x {b}  (not here)" in str(graph)
    assert graph.descendants(b) == (a,)


@pytest.mark.parametrize(
    ("loss", "state", "gap"),
    [
        ("lose", "missing", "the record of {} is gone"),
        ("damage", "damaged", "the manifest of {} is damaged"),
        ("replace", "replaced", "another checkpoint has the name {} now"),
        ("trash", "trashed", None),
        ("thin", "thinned", None),
    ],
)
def test_a_parent_counts_only_if_it_is_the_very_one(loss, state, gap):
    root = Lines()
    a = root.experiment(0)
    first = root.save(a, 1)
    second = root.save(a, 2, first)
    root.save(a, 3, second)
    getattr(root, loss)(second)
    history = root.history(f"{a}@3")

    assert [step.state for step in history][-2:] == [state, "present"]
    assert history.gaps == (() if gap is None else (gap.format(f"{a}@2"),))
    assert len(history) == (3 if gap is None else 2)


def test_a_forged_cycle_ends_and_is_told():
    root = Lines()
    a = root.experiment(0, [1])
    start = ParentLink(
        kind="checkpoint", exp_hash=a, step=1, revision=1, manifest_digest="sha256:x", exact=True
    )
    child = root.save(a, 2, start)
    root.save(a, 1, child, revision=2, derived_from="sha256:x")
    graph = root.lineage()

    for reference in (f"{a}@1", f"{a}@2"):
        history = root.history(reference)
        assert len(history) == 2
        assert history.gaps[0].endswith("which came from it: forged")
    assert graph.ancestors(a) == ()
    assert {c.verdict for c in root.audit([7])} == {"unknown"}


@pytest.mark.parametrize("kind", ["unknown", "import"])
def test_weights_from_elsewhere_are_a_gap(kind):
    root = Lines()
    a = root.experiment(0, [1])
    root.save(a, 1, ParentLink(kind=kind))

    assert not root.history(a).is_complete
    assert [c.verdict for c in root.audit([2])] == ["unknown"]


def test_hostile_links_are_shown_inert_and_lead_nowhere():
    root = Lines()
    a = root.experiment(0, [1])
    evil = "\x1b[31m<b>"
    root.save(a, 1, replace(FRESH, via=(evil,), exact=False))
    root.save(
        a, 2, ParentLink(kind="checkpoint", exp_hash="../../etc", step=-1, manifest_digest="x")
    )
    graph = root.lineage()

    assert graph.edges == ()
    assert "\x1b" not in str(graph) + str(root.history(f"{a}@1")) + str(root.audit([2]))
    assert [c.verdict for c in root.audit([2])] == ["unknown", "unknown"]
    json.dumps([graph.to_dict(), root.history(f"{a}@2").to_dict(), root.audit([2]).to_dict()])


def test_hostile_changes_cannot_draw_in_the_tree():
    root = Lines()
    a = root.experiment(0)
    root.experiment(1, changed_from={"exp_hash": a, "changes": ["a\nb\x1b[2J", 3]})
    root.experiment(2, changed_from={"exp_hash": a, "changes": "text"})
    root.experiment(3, changed_from={"exp_hash": ["x"]})
    lines = str(root.lineage()).split("\n")

    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


def test_a_line_of_hundreds_of_experiments_is_narrow_and_no_recursion():
    root = Lines()
    hashes = [root.experiment(n) for n in range(400)]
    before = FRESH
    for n, exp_hash in enumerate(hashes):
        before = root.save(exp_hash, n, before)
    lines = str(root.lineage()).split("\n")

    assert len(lines) == 400
    assert max(map(len, lines)) < 100
    assert len(root.history(hashes[-1])) == 400
    assert len(root.lineage().ancestors(hashes[-1])) == 399


def test_branches_are_indented_and_the_largest_goes_straight_on():
    root = Lines()
    a, b, c, d = (root.experiment(n) for n in range(4))
    first = root.save(a, 1)
    root.save(b, 2, first)
    root.save(d, 4, root.save(c, 3, first))
    lines = root.lineage().tree(names={b: "side"}).split("\n")

    assert lines == [
        f"* {a}  1 checkpoint",
        f'|-* {b} "side"  from {a}@1  1 checkpoint',
        f"* {c}  from {a}@1  1 checkpoint",
        f"* {d}  from {c}@3  1 checkpoint",
    ]


def test_an_empty_root_has_an_empty_tree():
    graph = Lines().lineage()

    assert (str(graph), graph.roots, graph.edges) == ("", (), ())
    with pytest.raises(ExperimentNotFoundError):
        graph.ancestors("ab")


def test_a_history_of_what_is_not_there_is_an_error():
    root = Lines()
    a = root.experiment(0)

    with pytest.raises(CheckpointNotFoundError, match="no checkpoint"):
        root.history(a)
    with pytest.raises(ValueError, match="the forms are"):
        root.history(f"{a}@x")
