"""The config file: what is written is what is read."""

import math

import pytest
import yaml

from weightslab.engine.errors import DigestMismatchError, InvalidManifestError, TruncatedError
from weightslab.engine.jsonform import seal_text
from weightslab.engine.repository import config_file

PLAIN = {
    "lr": 1e-05,
    "steps": 10**20,
    "text": "1e-3",
    "word": "yes",
    "none": None,
    "flag": True,
    "inf": math.inf,
    "negative_zero": -0.0,
    "nested": {"betas": [0.9, 0.999], "empty": {}, "list": []},
    "unicode": "gr\u00fc\u00dfe \U0001f600 \x85 tab\t end ",
    "multi": "a\n  b\n# sha256:not a digest\n",
}


NAME = "0123456789abcdef_config.yaml"


def read(data):
    return config_file.config_from_bytes(data, name=NAME)


def config_to_bytes(plain):
    return config_file.config_to_bytes(plain, name=NAME)


def test_file_that_was_exchanged_for_another_is_refused():
    with pytest.raises(InvalidManifestError, match="says it is"):
        config_file.config_from_bytes(config_to_bytes({"lr": 0.1}), name="other_config.yaml")


def test_every_plain_value_survives():
    assert repr(read(config_to_bytes(PLAIN))) == repr(
        {
            k: PLAIN[k] if k != "nested" else dict(sorted(PLAIN["nested"].items()))
            for k in sorted(PLAIN)
        }
    )


def test_text_that_looks_like_a_number_is_quoted_for_readers_of_yaml_1_2():
    assert b"lr: '1e-3'" in config_to_bytes({"lr": "1e-3"})


def test_other_yaml_readers_see_the_same_values():
    assert yaml.safe_load(config_to_bytes({"a": {"b": [1, "x"]}})) == {"a": {"b": [1, "x"]}}


def test_values_used_twice_are_written_twice():
    shared = [1, 2]
    assert read(config_to_bytes({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}


def test_every_flipped_bit_is_noticed():
    data = config_to_bytes({"lr": 0.1, "name": "x"})
    for position in range(len(data) * 8):
        broken = bytearray(data)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises((DigestMismatchError, TruncatedError)):
            read(bytes(broken))


def test_edited_config_is_refused():
    with pytest.raises(DigestMismatchError, match="edited"):
        read(config_to_bytes({"lr": 0.1}).replace(b"0.1", b"0.2"))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: !!python/object/apply:os.system ['true']",
        "a: 1\na: 2",
        "- 1",
        "a: [1",
        "a: " + "[" * 5000,
        "? {a: 1}\n: 2",
    ],
)
@pytest.mark.slow
def test_sealed_yaml_that_is_no_config_is_refused(text):
    with pytest.raises(InvalidManifestError):
        read(seal_text(f"# {NAME}\n{text}"))
