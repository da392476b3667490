"""The ledger: names, the only one, weak references, threads."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from weightslab.backend import ledgers
from weightslab.backend.ledgers import Ledger, LedgerError

KINDS = {
    "model": "models",
    "optimizer": "optimizers",
    "dataloader": "dataloaders",
    "hyperparams": "hyperparams",
    "samples": "samples",
    "scheduler": "schedulers",
}


class Thing:
    """Something that can be held weakly."""


@pytest.fixture(autouse=True)
def _empty_ledgers():
    ledgers.clear_all()
    yield
    ledgers.clear_all()


@pytest.mark.parametrize(("kind", "plural"), KINDS.items())
def test_each_kind_has_its_five_functions_on_a_ledger_of_its_own(kind, plural):
    register, get, find, names, unregister = (
        getattr(ledgers, name)
        for name in (
            f"register_{kind}",
            f"get_{kind}",
            f"find_{kind}",
            f"list_{plural}",
            f"unregister_{kind}",
        )
    )
    thing = Thing()
    register("main", thing)
    assert get("main") is thing
    assert get() is thing
    assert find() is thing
    assert names() == ["main"]
    others = [getattr(ledgers, f"list_{other}")() for other in KINDS.values() if other != plural]
    assert others == [[]] * 5
    assert unregister("main") is True
    assert unregister("main") is False
    assert find() is None


def test_registering_a_name_again_replaces_its_object():
    first, second = Thing(), Thing()
    ledgers.register_model("main", first)
    ledgers.register_model("main", second)
    assert ledgers.get_model() is second
    assert ledgers.list_models() == ["main"]


def test_names_are_sorted():
    for name in ("generator", "critic", "encoder"):
        ledgers.register_model(name, Thing())
    assert ledgers.list_models() == ["critic", "encoder", "generator"]


def test_object_that_is_false_is_an_object():
    ledgers.register_hyperparams("main", {})
    assert ledgers.get_hyperparams() == {}
    assert ledgers.find_hyperparams() == {}


# ---------------------------------------------------------------- errors
def test_without_a_name_and_without_objects_the_error_says_so():
    with pytest.raises(LedgerError, match=r"^no model is registered$"):
        ledgers.get_model()
    with pytest.raises(LedgerError, match=r"^no model is registered, so there is no 'main'$"):
        ledgers.get_model("main")


def test_without_a_name_and_with_several_the_error_lists_them():
    ledgers.register_model("generator", Thing())
    ledgers.register_model("critic", Thing())
    message = r"^2 model entries are registered: 'critic', 'generator'; say which one by its name$"
    for call in (ledgers.get_model, ledgers.find_model):
        with pytest.raises(LedgerError, match=message):
            call()


def test_unknown_name_is_an_error_that_names_the_nearest_and_all():
    ledgers.register_model("generator", Thing())
    ledgers.register_model("critic", Thing())
    with pytest.raises(
        LedgerError,
        match=r"^no model 'genrator' is registered; nearest: 'generator'; "
        r"registered: 'critic', 'generator'$",
    ):
        ledgers.get_model("genrator")
    with pytest.raises(
        LedgerError, match=r"^no model 'zzz' is registered; registered: 'critic', 'generator'$"
    ):
        ledgers.get_model("zzz")
    assert ledgers.find_model("genrator") is None


def test_ledger_error_is_a_lookup_error():
    assert issubclass(LedgerError, LookupError)


@pytest.mark.parametrize(
    ("name", "thing", "kind", "message"),
    [
        (1, "x", TypeError, "the name of a model is a str, not int"),
        ("", "x", ValueError, "the name of a model is empty"),
        ("main", None, TypeError, "None is no model; use unregister to remove 'main'"),
    ],
)
def test_wrong_arguments_are_refused(name, thing, kind, message):
    with pytest.raises(kind, match=message):
        ledgers.register_model(name, thing)
    assert ledgers.list_models() == []


# ---------------------------------------------------------------- weak references
def test_weak_object_leaves_when_nobody_else_has_it():
    thing = Thing()
    ledgers.register_model("weak", thing, weak=True)
    ledgers.register_model("strong", Thing())
    assert ledgers.list_models() == ["strong", "weak"]
    del thing
    gc.collect()
    assert ledgers.list_models() == ["strong"]
    assert ledgers.find_model("weak") is None
    assert isinstance(ledgers.get_model(), Thing)
    assert ledgers.unregister_model("weak") is False


def test_weak_reference_to_a_dict_is_refused_with_the_reason():
    with pytest.raises(TypeError, match="'main' is a dict, which has no weak references; register"):
        ledgers.register_hyperparams("main", {}, weak=True)


# ---------------------------------------------------------------- the rest
def test_clear_all_empties_every_kind():
    for kind in KINDS:
        getattr(ledgers, f"register_{kind}")("main", Thing())
    ledgers.clear_all()
    assert [getattr(ledgers, f"list_{plural}")() for plural in KINDS.values()] == [[]] * 6


def test_threads_do_not_lose_names():
    ledger = Ledger("thing")

    def work(number):
        for turn in range(200):
            ledger.register(f"{number}.{turn}", Thing())
            ledger.list()
            if turn % 2:
                assert ledger.unregister(f"{number}.{turn}") is True

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(ledger.list()) == 800


def test_ledger_says_what_is_in_it():
    ledger = Ledger("model")
    assert repr(ledger) == "<Ledger of model: empty>"
    ledger.register("b", Thing())
    ledger.register("a", Thing())
    assert repr(ledger) == "<Ledger of model: a, b>"


def test_ledger_stands_alone():
    script = (
        "import sys, weightslab.backend.ledgers\n"
        "found = [m for m in sys.modules if m.startswith('weightslab.engine') or m == 'torch']\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
