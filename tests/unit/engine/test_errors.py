"""The error tree: kinds, exit codes, texts."""

from __future__ import annotations

import pickle
import re

import pytest

from weightslab.engine import errors
from weightslab.engine.errors import CheckpointError, NotFoundError, StateMismatchError

TREE = {
    "CheckpointError": (1, Exception),
    "NotFoundError": (10, FileNotFoundError),
    "ExperimentNotFoundError": (10, FileNotFoundError),
    "CheckpointNotFoundError": (10, FileNotFoundError),
    "ObjectNotFoundError": (10, FileNotFoundError),
    "AlreadyExistsError": (11, FileExistsError),
    "PinnedError": (12, CheckpointError),
    "IntegrityError": (20, CheckpointError),
    "DigestMismatchError": (20, errors.IntegrityError),
    "TruncatedError": (20, errors.IntegrityError),
    "MissingObjectError": (20, errors.IntegrityError),
    "ExperimentHashClashError": (20, errors.IntegrityError),
    "FormatError": (21, ValueError),
    "UnsupportedVersionError": (21, ValueError),
    "UnsafePickleError": (21, ValueError),
    "SourceChangedError": (21, ValueError),
    "InvalidManifestError": (21, ValueError),
    "NotStorableError": (21, TypeError),
    "FilterError": (21, ValueError),
    "IdentityError": (22, TypeError),
    "NotCanonicalError": (22, TypeError),
    "StateMismatchError": (23, ValueError),
    "ReplayMismatchError": (24, CheckpointError),
    "StorageError": (30, OSError),
    "ReadOnlyStoreError": (30, OSError),
    "LockedError": (30, OSError),
    "StorageFullError": (30, OSError),
    "AsyncSaveError": (31, CheckpointError),
    "MissingExtraError": (40, ImportError),
}


def test_tree_is_complete():
    assert sorted(TREE) == sorted(errors.__all__)


@pytest.mark.parametrize(("name", "exit_code", "builtin"), [(k, *v) for k, v in TREE.items()])
def test_each_error_has_its_exit_code_and_its_builtin_kin(name, exit_code, builtin):
    kind = getattr(errors, name)
    assert issubclass(kind, CheckpointError)
    assert issubclass(kind, builtin)
    assert kind.exit_code == exit_code
    assert kind.__doc__


@pytest.mark.parametrize("name", TREE)
def test_text_is_what_happened_and_then_what_to_do(name):
    kind = getattr(errors, name)
    error = kind("no step 400", hint="nearest: 300, 500", context={"step": 400})
    assert str(error) == "no step 400; nearest: 300, 500"
    assert (error.message, error.hint, error.context) == (
        "no step 400",
        "nearest: 300, 500",
        {"step": 400},
    )
    assert str(kind("no step 400")) == "no step 400"
    assert kind("x").context == {}


def test_tree_in_the_module_text_names_every_error_with_its_code():
    text = errors.__doc__ or ""
    for name in TREE:
        assert re.search(rf"\b{name}\b", text), name
    assert sorted(int(code) for code in re.findall(r"exit (\d+)", text)) == [
        10,
        11,
        12,
        20,
        21,
        22,
        23,
        24,
        30,
        31,
        40,
    ]


def test_state_mismatch_carries_what_does_not_fit():
    error = StateMismatchError(
        "3 entries do not fit",
        missing=["a"],
        unexpected=["b"],
        shape_changes={"c": "float32 [10, 128] -> float32 [10, 256]"},
    )
    assert error.missing == ("a",)
    assert error.unexpected == ("b",)
    assert error.shape_changes == {"c": "float32 [10, 128] -> float32 [10, 256]"}


def test_context_is_a_copy():
    facts: dict[str, object] = {"step": 1}
    error = CheckpointError("x", context=facts)
    facts["step"] = 2
    assert error.context == {"step": 1}


@pytest.mark.parametrize("name", TREE)
def test_error_comes_back_whole_from_another_process(name):
    """Data loaders and process pools send errors pickled."""
    error = getattr(errors, name)("what happened", hint="what to do", context={"key": "k"})
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == "what happened; what to do"
    assert back.context == {"key": "k"}


def test_handler_of_the_builtin_kind_catches_it():
    with pytest.raises(FileNotFoundError):
        raise NotFoundError("gone")
