"""What a plan keeps, thins and drops, why, and how many bytes that frees."""

import pytest
from support.histories import A, B, C, History, carried_out, digest_of, file_of

from weightslab.engine.retention.facts import Child
from weightslab.engine.retention.planning import DROP, KEEP, LEAVE, THIN, plan_retention, settled
from weightslab.engine.retention.policies import (
    BestN,
    ByteBudget,
    CustomSteps,
    EveryNSteps,
    LatestN,
    PreserveAll,
)
from weightslab.engine.retention.rules import Retention


def plan(history, wanted=None, **more):
    retention = Retention.of(LatestN(1) if wanted is None else wanted)
    return plan_retention(history.candidates, retention, **more)


def names(plan, action):
    return [(d.name.exp_hash[0], d.name.step, d.name.revision) for d in plan.of(action)]


def steps(plan, action):
    return sorted(d.name.step for d in plan.of(action))


def reason(plan, name):
    return next(d.reason for d in plan.decisions if d.name == name)


@pytest.fixture
def history():
    return History()


# ---------------------------------------------------------------- what is never dropped
def test_everything_stays_by_default(history):
    history.line(A, [1, 2, 3])
    assert steps(plan(history, Retention()), KEEP) == [1, 2, 3]


def test_the_newest_of_each_experiment_and_of_the_root_stays(history):
    history.save(A, 1, minutes=50)
    history.line(A, [2, 3])
    history.line(B, [1, 2])
    kept = plan(history, CustomSteps([99], scope="root"))
    assert names(kept, KEEP) == [("a", 3, 1), ("b", 2, 1), ("a", 1, 1)]
    assert reason(kept, history.candidates[0].entry.name) == "the newest of the root"


def test_the_best_stays_even_beyond_a_budget(history):
    for step, loss in enumerate((3.0, 1.0, 2.0, 4.0)):
        history.save(A, step, metrics={"loss": loss})
    kept = plan(history, Retention(keep=BestN("loss", 3), budget=ByteBudget(0)))
    assert steps(kept, KEEP) + steps(kept, THIN) == [3, 1]


def test_the_best_of_a_policy_for_training_state_stays_too(history):
    for step, loss in enumerate((1.0, 2.0, 3.0)):
        history.save(A, step, metrics={"loss": loss})
    kept = plan(history, Retention(keep=LatestN(1), training=BestN("loss")))
    assert steps(kept, DROP) == [1]


def test_pinned_ones_stay_with_their_training_state(history):
    history.save(A, 1, is_pinned=True)
    history.line(A, [2, 3])
    kept = plan(history, Retention(keep=LatestN(1), training=LatestN(1)))
    assert (steps(kept, KEEP), steps(kept, DROP)) == ([1, 3], [2])


def test_what_is_untouchable_stays_and_says_why(history):
    name = history.save(A, 1, untouchable="its notes cannot be read")
    history.line(A, [2, 3])
    assert reason(plan(history), name) == "its notes cannot be read"


def test_a_branch_point_stays_and_its_ancestors_go(history):
    _, second, _ = history.line(A, [1, 2, 3])
    history.line(B, [1], parent=second)
    kept = plan(history)
    assert reason(kept, second) == f"branch point of {B}"
    assert names(kept, DROP) == [("a", 1, 1)]


def test_a_branch_point_goes_with_the_last_child_that_names_it(history):
    _, second, _ = history.line(A, [1, 2, 3])
    history.line(B, [1, 2], parent=second)
    kept = plan(history)  # only step 2 of B stays, whose parent is step 1 of B
    assert names(kept, DROP) == [("b", 1, 1), ("a", 2, 1), ("a", 1, 1)]


def test_a_fork_within_an_experiment_stays_while_both_lines_do(history):
    (fork,) = history.line(A, [1])
    history.save(A, 2, parent=fork)
    history.save(A, 5, parent=fork)
    assert steps(plan(history, LatestN(2)), KEEP) == [1, 2, 5]
    assert steps(plan(history, LatestN(1)), KEEP) == [5]


def test_one_child_in_the_same_experiment_makes_no_branch_point(history):
    history.line(A, [1, 2, 3])
    assert steps(plan(history, LatestN(2)), DROP) == [1]


def test_every_checkpoint_of_an_experiment_in_a_via_stays(history):
    history.line(B, [1, 2, 3])
    (parent,) = history.line(A, [1])
    history.save(C, 1, parent=parent, via=[B])
    kept = plan(history)
    assert steps(kept, DROP) == []
    assert reason(kept, history.candidates[0].entry.name) == f"its experiment is in the via of {C}"


def test_children_that_are_not_planned_keep_their_parents(history):
    _, second, _ = history.line(A, [1, 2, 3])
    history.save(B, 9, parent=second, via=[])
    child = Child(exp_hash=B, parent=history.candidates.pop().entry.parent)
    assert steps(plan(history, outside=[child]), DROP) == [1]


# ---------------------------------------------------------------- revisions and damage
def test_older_revisions_go_and_go_first(history):
    history.line(A, [1])
    history.save(A, 2)
    history.save(A, 2, revision=2)
    history.save(A, 3)
    assert names(plan(history, LatestN(2)), DROP) == [("a", 2, 1), ("a", 1, 1)]
    assert names(plan(history, LatestN(1)), DROP) == [("a", 2, 1), ("a", 2, 2), ("a", 1, 1)]
    assert reason(plan(history, LatestN(2)), history.candidates[1].entry.name) == (
        "revision 2 answers for its step"
    )


def test_an_older_revision_that_stays_keeps_what_answers_for_its_step(history):
    history.save(A, 1, is_pinned=True)
    history.save(A, 1, revision=2)
    history.save(A, 2)
    assert names(plan(history), DROP) == []


def test_a_damaged_highest_revision_leaves_the_next_one_in_its_place(history):
    history.save(A, 1)
    history.save(A, 2)
    history.save(A, 2, revision=2, damaged="cut")
    kept = plan(history)
    assert (names(kept, KEEP), names(kept, LEAVE)) == ([("a", 2, 1)], [("a", 2, 2)])


def test_damaged_ones_are_neither_newest_nor_best_nor_dropped(history):
    history.save(A, 1, metrics={"loss": 2.0})
    history.save(A, 2, metrics={"loss": 3.0})
    history.save(A, 3, metrics={"loss": 1.0}, damaged="cut")
    kept = plan(history, BestN("loss"))
    assert (steps(kept, KEEP), steps(kept, LEAVE)) == ([1, 2], [3])


def test_what_was_thinned_stands_for_its_original(history):
    origin = history.save(A, 1)
    thin = history.save(A, 1, revision=2, training=0, derived_from=digest_of(origin))
    history.save(A, 2)
    history.save(B, 1, parent=origin)
    kept = plan(history)
    assert reason(kept, thin) == f"branch point of {B}"
    assert reason(kept, origin) == "thinned to revision 2"


def test_an_original_beside_its_thinned_revision_takes_no_place_among_the_best(history):
    origin = history.save(A, 1, metrics={"loss": 1.0})
    facts = {"metrics": {"loss": 1.0}, "derived_from": digest_of(origin)}
    history.save(A, 1, revision=2, training=0, **facts)
    history.save(A, 2, metrics={"loss": 2.0})
    history.save(A, 3, metrics={"loss": 3.0})
    assert names(plan(history, BestN("loss", 2)), KEEP) == [("a", 1, 2), ("a", 2, 1), ("a", 3, 1)]


# ---------------------------------------------------------------- training state
def test_training_state_stays_with_the_newest_of_what_is_kept(history):
    history.line(A, [0, 50, 100, 150, 200, 250])
    kept = plan(history, Retention(keep=EveryNSteps(100), training=LatestN(2)))
    assert (steps(kept, DROP), steps(kept, THIN), steps(kept, KEEP)) == (
        [50, 150],
        [0, 100],
        [200, 250],
    )


def test_an_older_revision_is_not_thinned_for_it_would_answer_for_the_step(history):
    history.save(A, 1)
    history.save(A, 1, revision=2)
    history.save(A, 2)
    kept = plan(history, Retention(keep=PreserveAll(), training=LatestN(1)))
    assert names(kept, THIN) == [("a", 1, 2)]


def test_nothing_is_thinned_below_a_damaged_revision(history):
    history.save(A, 1)
    history.save(A, 1, revision=2, damaged="cut")
    history.save(A, 2)
    assert names(plan(history, Retention(training=LatestN(1))), THIN) == []


def test_what_has_no_file_of_training_state_is_not_thinned(history):
    history.save(A, 1, training=0)
    history.save(A, 2)
    assert names(plan(history, Retention(training=LatestN(1))), THIN) == []


# ---------------------------------------------------------------- budget
def test_a_budget_thins_the_oldest_first_and_no_more_than_needed(history):
    history.line(A, [1, 2, 3, 4])  # 300 bytes each, 200 of them training state
    assert steps(plan(history, ByteBudget(900)), THIN) == [1, 2]
    assert steps(plan(history, ByteBudget(1200)), THIN) == []


def test_what_thinning_cannot_free_is_dropped_the_oldest_first(history):
    history.line(A, [1, 2, 3, 4])
    kept = plan(history, ByteBudget(500))
    assert (steps(kept, DROP), steps(kept, THIN), steps(kept, KEEP)) == ([1], [2, 3], [4])
    assert kept.kept_bytes == 500


def test_what_is_dropped_for_a_budget_is_worth_less_than_all_that_stays(history):
    history.save(A, 1, weights=50)
    history.save(A, 2, weights=500)
    history.save(A, 3, weights=100)
    assert steps(plan(history, ByteBudget(350)), DROP) == [1, 2]


def test_among_the_best_is_worth_more_than_newer(history):
    for step, loss in enumerate((1.0, 2.0, 9.0, 9.0, 9.0)):
        history.save(A, step, metrics={"loss": loss}, training=0)
    wanted = Retention(keep=BestN("loss", 2) | LatestN(3), budget=ByteBudget(300))
    assert steps(plan(history, wanted), DROP) == [2, 3]


def test_a_budget_below_what_is_protected_is_a_problem_with_its_figures(history):
    history.save(A, 1, is_pinned=True)
    history.line(A, [2, 3])
    kept = plan(history, ByteBudget(100))
    assert (steps(kept, DROP), steps(kept, KEEP)) == ([2], [1, 3])
    (problem,) = kept.problems
    assert problem == (
        f"the budget of experiment {A} cannot be met: it is 100 bytes, and 600 bytes are in "
        "checkpoints that are never dropped"
    )


def test_each_experiment_has_a_budget_of_its_own_or_all_share_one(history):
    history.line(A, [1, 2], training=0)
    history.line(B, [1, 2], training=0)
    assert names(plan(history, ByteBudget(200)), DROP) == []
    shared = plan(history, ByteBudget(300, scope="root"))
    assert names(shared, DROP) == [("a", 1, 1)]


def test_shared_bytes_count_once_and_are_freed_by_the_last_owner(history):
    backbone = file_of("backbone", 1000, "shared", num_links=3)
    for step in (1, 2, 3):
        files = [backbone, file_of(f"head {step}", 10)]
        history.save(A, step, training=0, files=files)
    assert names(plan(history, ByteBudget(1030)), DROP) == []
    dropped = plan(history, ByteBudget(1025))
    assert [(d.name.step, d.freed_bytes) for d in dropped.of(DROP)] == [(1, 10)]
    assert dropped.kept_bytes == 1020


def test_bytes_that_somebody_else_owns_are_not_freed(history):
    files = [file_of("weights", 1000, "linked elsewhere", num_links=2)]
    history.save(A, 1, training=0, files=files)
    history.save(A, 2)
    assert plan(history).freed_bytes == 0


def test_bytes_of_which_all_names_go_are_freed_by_the_last(history):
    files = [file_of("weights", 1000, "shared", num_links=2)]
    for step in (1, 2):
        history.save(A, step, training=0, files=files)
    history.save(A, 3)
    assert [(d.name.step, d.freed_bytes) for d in plan(history).of(DROP)] == [(2, 0), (1, 1000)]


# ---------------------------------------------------------------- the plan itself
def test_the_order_of_the_checkpoints_given_does_not_matter(history):
    history.line(A, [1, 2, 3])
    history.line(B, [1, 2])
    before = plan(history)
    history.candidates.reverse()
    assert plan(history) == before


def test_guards_are_what_is_to_stand_for_what_goes(history):
    history.line(A, [1, 2])
    history.save(B, 1)
    assert {name.stem for name in plan(history).guards} == {f"{A}_step_000002"}
    assert plan(history, PreserveAll()).guards == frozenset()


def test_answers_of_steps_that_lose_revisions_are_guards(history):
    history.save(A, 1)
    history.save(A, 1, revision=2)
    history.save(A, 2)
    assert {n.stem for n in plan(history, LatestN(2)).guards} == {
        f"{A}_step_000001.r2",
        f"{A}_step_000002",
    }


def test_a_policy_that_does_not_answer_for_each_is_refused(history):
    class Short:
        scope = "experiment"

        def choose(self, checkpoints):
            return []

    history.line(A, [1, 2])
    with pytest.raises(ValueError, match="gave 0 answers about 2 checkpoints"):
        plan(history, Short())


def test_a_plan_that_was_not_carried_out_whole_says_what_stayed(history):
    history.line(A, [1, 2, 3])
    second = history.candidates[1].entry.name
    done = settled(plan(history), history.candidates, {second: "it is being read"})
    assert steps(done, DROP) == [1]
    assert (done.freed_bytes, done.kept_bytes) == (300, 600)
    assert reason(done, second) == "stays for now: it is being read"


def test_no_checkpoints_need_no_plan(history):
    assert plan(history).decisions == ()


def test_a_second_plan_over_what_is_left_does_nothing(history):
    history.line(A, [1, 2, 3, 4, 5])
    wanted = Retention(keep=LatestN(4), training=LatestN(2), budget=ByteBudget(700))
    first = plan(history, wanted)
    history.candidates = carried_out(history.candidates, first)
    again = plan(history, wanted)
    assert (again.of(DROP), again.of(THIN)) == ((), ())
    assert again.kept_bytes == first.kept_bytes == 600
