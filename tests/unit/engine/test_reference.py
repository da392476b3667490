"""References: `3f2a@100` and its kin."""

import pytest

from weightslab.engine.reference import Reference, parse_reference


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3f2a", Reference(exp_hash="3f2a", is_experiment=True)),
        ("3f2a@100", Reference(exp_hash="3f2a", step=100)),
        ("3f2a@000100", Reference(exp_hash="3f2a", step=100)),
        ("3f2a@100.r2", Reference(exp_hash="3f2a", step=100, revision=2)),
        ("3f2a@latest", Reference(exp_hash="3f2a")),
        ("3f2a@best:loss", Reference(exp_hash="3f2a", metric="loss")),
        ("3f2a@best:val:acc:max", Reference(exp_hash="3f2a", metric="val:acc", mode="max")),
        ("latest", Reference(exp_hash=None)),
        ("best:loss", Reference(exp_hash=None, metric="loss")),
    ],
)
def test_each_form_says_what_it_says(text, told):
    assert parse_reference(text) == told


@pytest.mark.parametrize("text", ["", "@100", "3f2a@", "3f2a@newest", "3f2a@1.5", "3f2a@best:"])
def test_other_texts_are_refused_with_the_forms_there_are(text):
    with pytest.raises(ValueError, match=r"the forms are HASH, HASH@STEP"):
        parse_reference(text)


def test_a_number_is_no_reference():
    with pytest.raises(TypeError, match="a reference is a str"):
        parse_reference(100)
