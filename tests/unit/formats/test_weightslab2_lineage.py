"""Parents in roots of WeightsLab 2.0: what the files tell, and nothing else."""

from weightslab.formats.weightslab2_lineage import Span, find_parents


def span(name, steps, created="", last_used=""):
    return Span(exp_hash=name, steps=steps, created=created, last_used=last_used)


def test_steps_of_one_experiment_follow_each_other():
    assert find_parents([span("a", (0, 2, 4))]) == {("a", 2): ("a", 0), ("a", 4): ("a", 2)}


def test_a_change_begins_at_the_step_that_the_old_one_had():
    spans = [span("a", (2, 4), "1", "2"), span("b", (4, 6), "3", "4")]
    assert find_parents(spans)["b", 4] == ("a", 4)


def test_an_experiment_that_begins_at_0_has_no_parent():
    spans = [span("a", (0, 4), "1", "2"), span("b", (0, 4), "3", "4")]
    assert ("b", 0) not in find_parents(spans)


def test_of_several_the_one_that_was_in_use_last_is_the_parent():
    spans = [span("a", (4,), "1", "2"), span("b", (4,), "3", "4"), span("c", (4,), "5", "6")]
    assert find_parents(spans)["c", 4] == ("b", 4)


def test_of_several_that_were_used_later_too_only_the_manager_knows():
    spans = [span("a", (4,), "1", "9"), span("b", (4,), "3", "4"), span("c", (4,), "5", "6")]
    assert ("c", 4) not in find_parents(spans)
    assert find_parents(spans, "c", "a")["c", 4] == ("a", 4)


def test_a_parent_that_the_manager_names_and_that_has_not_the_step_is_none():
    spans = [span("a", (3,), "1", "2"), span("b", (4,), "3", "4")]
    assert find_parents(spans, "b", "a") == {}


def test_experiments_used_in_turns_leave_the_steps_between_unknown():
    spans = [span("a", (2, 4, 10), "1", "9"), span("b", (4, 8), "3", "5")]
    found = find_parents(spans)
    assert ("a", 10) not in found  # it may come from b at 8, or from a at 4
    assert ("a", 4) not in found  # saved again after a return from b, perhaps
    assert found["b", 8] == ("b", 4)


def test_without_dates_nothing_leads_from_one_to_the_other():
    assert find_parents([span("a", (4,)), span("b", (4,))]) == {}
