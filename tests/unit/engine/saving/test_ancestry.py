"""Ancestry: the parent of a checkpoint is what its weights came from."""

import gc

from support.repo import Repo

from weightslab.engine.saving.ancestry import Ancestry
from weightslab.engine.values import ParentLink


class Model:
    """A live object."""


def checkpoint(step=100):
    return Repo().commit(step=step)[0]


A = checkpoint().name.exp_hash  # the experiment that support.repo commits into


def test_model_seen_for_the_first_time_is_fresh():
    ancestry, model = Ancestry(), Model()
    ancestry.enter("a")
    ancestry.meet([model])
    assert ancestry.parent_of([model], "a") == ParentLink(kind="fresh", exact=True)


def test_second_save_has_the_first_as_its_parent():
    ancestry, model, saved = Ancestry(), Model(), checkpoint()
    ancestry.enter(A)
    ancestry.meet([model])
    ancestry.settle([model], saved)
    parent = ancestry.parent_of([model], A)
    assert (parent.kind, parent.exp_hash, parent.step) == ("checkpoint", A, 100)
    assert parent.manifest_digest == saved.digest
    assert (parent.via, parent.exact) == ((), True)


def test_first_save_of_the_next_experiment_has_a_parent_in_the_one_before():
    ancestry, model = Ancestry(), Model()
    ancestry.enter(A)
    ancestry.settle([model], checkpoint())
    ancestry.enter("b")
    parent = ancestry.parent_of([model], "b")
    assert (parent.exp_hash, parent.via, parent.exact) == (A, (), True)


def test_experiment_that_saved_nothing_is_named_in_via():
    ancestry, model = Ancestry(), Model()
    ancestry.enter(A)
    ancestry.settle([model], checkpoint())
    ancestry.enter("b")
    ancestry.enter("c")
    parent = ancestry.parent_of([model], "c")
    assert (parent.via, parent.exact) == (("b",), False)


def test_way_there_and_back_names_what_was_between():
    ancestry, model = Ancestry(), Model()
    ancestry.enter(A)
    ancestry.settle([model], checkpoint())
    ancestry.enter("b")
    ancestry.enter(A)
    parent = ancestry.parent_of([model], A)
    assert (parent.exp_hash, parent.via, parent.exact) == (A, ("b",), False)


def test_fresh_model_trained_under_an_earlier_experiment_names_it():
    ancestry, model = Ancestry(), Model()
    ancestry.enter("a")
    ancestry.meet([model])
    ancestry.enter("b")
    parent = ancestry.parent_of([model], "b")
    assert (parent.kind, parent.via, parent.exact) == ("fresh", ("a",), False)


def test_model_that_was_never_given_may_come_from_anything_of_this_session():
    ancestry = Ancestry()
    ancestry.enter("a")
    ancestry.enter("b")
    parent = ancestry.parent_of([Model()], "b")
    assert (parent.kind, parent.via, parent.exact) == ("fresh", ("a",), None)


def test_loading_into_another_experiment_keeps_the_loaded_checkpoint_as_parent():
    ancestry, model = Ancestry(), Model()
    ancestry.enter("b")
    ancestry.settle([model], checkpoint())
    parent = ancestry.parent_of([model], "b")
    assert (parent.exp_hash, parent.step, parent.via, parent.exact) == (A, 100, (), True)


def test_models_with_different_parents_have_an_unknown_one():
    ancestry, one, other = Ancestry(), Model(), Model()
    ancestry.enter("b")
    ancestry.settle([one], checkpoint(100))
    ancestry.settle([other], checkpoint(200))
    assert ancestry.parent_of([one, other], "b").kind == "unknown"


def test_models_are_held_weakly():
    ancestry, model = Ancestry(), Model()
    ancestry.enter("a")
    ancestry.meet([model])
    del model
    gc.collect()
    assert len(ancestry._tracks) == 0
