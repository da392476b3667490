"""The guide and the README are true: their blocks run, print what they say, and nothing is left out.

`support.documents` says how blocks become a program and how their output is compared.
"""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from support.documents import (
    GUIDE,
    README,
    Masking,
    as_program,
    expected_outputs,
    fenced_blocks,
    run_program,
)

from weightslab.backend import ledgers
from weightslab.components import CheckpointManagerV2, ExperimentHashGenerator
from weightslab.engine import errors
from weightslab.engine.care.diagnosis import Diagnosis, Problem
from weightslab.engine.care.noting import RootNotes
from weightslab.engine.care.recipe import Recipe
from weightslab.engine.care.trashing import RootTrash
from weightslab.engine.care.usage import ExperimentUsage, Usage
from weightslab.engine.identity.config import DEFAULT_EXCLUDED
from weightslab.engine.loading.report import LoadReport
from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
from weightslab.engine.repository.notes import ExperimentNotes, Note
from weightslab.engine.repository.provenance import CodeState, Provenance
from weightslab.engine.repository.trash import TrashEntry
from weightslab.engine.repository.verify import Finding, VerifyReport
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.values import Change, HashUpdate, MetricRecord, ParentLink

GUIDE_TEXT = GUIDE.read_text(encoding="utf-8")
CLASSES = (CheckpointManagerV2, CheckpointRoot, RootNotes, RootTrash, ExperimentHashGenerator)
METHODS = [
    (cls, name)
    for cls in CLASSES
    for name in sorted(vars(cls))
    if not name.startswith("_") and callable(getattr(cls, name))
]
ERRORS = [getattr(errors, name) for name in errors.__all__]


# ---------------------------------------------------------------- the blocks run
@pytest.mark.slow
@pytest.mark.parametrize("path", [GUIDE, README], ids=lambda path: path.name)
def test_blocks_run_in_order_and_print_what_the_document_says(path, tmp_path):
    document = path.read_text(encoding="utf-8")

    printed = run_program(document, tmp_path, name=path.stem.lower())

    shown, real = Masking(), Masking()
    for line, said in expected_outputs(document).items():
        assert real.mask(printed[line]) == shown.mask(said), f"{path.name}, line {line + 1}"


def test_every_block_of_the_guide_that_prints_says_what():
    silent = [
        block.line + 1
        for block in fenced_blocks(GUIDE_TEXT)
        if block.language == "python"
        and block.line not in expected_outputs(GUIDE_TEXT)
        and re.search(r"^\s*print\(", block.text, re.MULTILINE)
    ]
    assert silent == []


def test_a_block_keeps_its_line_numbers_in_the_program():
    document = "text\n```python\na = 1\n```\n\n```text\n```\n```python\nprint(a)\n#> 1\n```\n"

    program = as_program(document).split("\n")

    assert (program[2], program[8]) == ("a = 1", "print(a)")
    assert expected_outputs(document) == {1: "", 7: "1"}


def test_masks_keep_apart_what_is_different():
    masking = Masking()

    first, second = "0123456789abcdef", "fedcba9876543210"
    assert masking.mask(f"{first} {second} {first}_step_000001") == "#0 #1 #0_step_000001"
    assert masking.mask("2026-01-02T03:04:05.678901+00:00 0.12345 0.01") == "TIME NUMBER 0.01"


# ---------------------------------------------------------------- nothing is left out
@pytest.mark.parametrize(
    ("cls", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value)
)
def test_the_guide_names_every_public_method(cls, name):
    assert re.search(rf"`{name}`|`{name}[(,]|^{name}\(", GUIDE_TEXT, re.MULTILINE), (
        f"{cls.__name__}.{name}"
    )


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_the_guide_names_every_error_with_its_exit_code_and_its_second_base(error):
    row = next(
        line for line in GUIDE_TEXT.split("\n") if line.startswith(f"| `{error.__name__}` |")
    )
    _, _, also, _, code, _ = (cell.strip() for cell in row.split("|"))
    builtin = [b.__name__ for b in error.__bases__ if b.__module__ == "builtins"]

    assert int(code) == error.exit_code
    assert also == (f"`{builtin[0]}`" if builtin else "")


@pytest.mark.parametrize("name", [n for n in ledgers.__all__ if n[0].islower() and "_" in n])
def test_the_guide_names_every_function_of_the_ledger(name):
    assert f"`{name}" in GUIDE_TEXT


@pytest.mark.parametrize(
    "record",
    [
        HashUpdate,
        Change,
        CheckpointEntry,
        ExperimentEntry,
        ParentLink,
        ExperimentNotes,
        Note,
        TrashEntry,
        Finding,
        LoadReport,
        MetricRecord,
        VerifyReport,
        Provenance,
        CodeState,
        Recipe,
        Usage,
        ExperimentUsage,
        Diagnosis,
        Problem,
    ],
    ids=lambda record: record.__name__,
)
def test_the_guide_names_every_field_of_what_is_returned(record):
    missing = [n for n in record.__dataclass_fields__ if not re.search(rf"`\.?{n}`", GUIDE_TEXT)]
    assert missing == []


@pytest.mark.parametrize("key", DEFAULT_EXCLUDED)
def test_the_guide_names_every_config_key_that_does_not_count(key):
    assert f"`{key}`" in GUIDE_TEXT


# ---------------------------------------------------------------- signatures
def _shown_signatures():
    """Name of each signature in the API reference -> (parameter names, text of their defaults)."""
    found = {}
    for block in fenced_blocks(GUIDE_TEXT):
        if block.language or "(" not in block.text:
            continue
        owner = ""
        for line in block.text.split("\n"):
            call = ast.parse(f"def {line}: pass").body[0]
            owner = call.name if call.name[0].isupper() else owner
            found[owner, "__init__" if call.name == owner else call.name] = call.args
    return found


SHOWN = _shown_signatures()


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, "__init__") for cls in CLASSES] + METHODS,
    ids=lambda value: getattr(value, "__name__", value),
)
def test_signatures_in_the_guide_are_those_of_the_code(cls, name):
    shown = SHOWN[cls.__name__, name]
    real = list(inspect.signature(getattr(cls, name)).parameters.values())[1:]

    positional = [p.name for p in real if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert [a.arg for a in shown.args] == positional
    named = [p.name for p in real if p.kind is p.VAR_KEYWORD]
    assert ([] if shown.kwarg is None else [shown.kwarg.arg]) == named
    assert [a.arg for a in shown.kwonlyargs] == [p.name for p in real if p.kind is p.KEYWORD_ONLY]
    defaults = [d for d in (*shown.defaults, *shown.kw_defaults) if d is not None]
    values = [p.default for p in real if p.default is not p.empty]
    assert len(defaults) == len(values)
    for default, value in zip(defaults, values, strict=True):
        assert ast.literal_eval(default) in (value, ...)  # `...`: a default that is code
