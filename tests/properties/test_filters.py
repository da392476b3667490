"""The filter language against an evaluator that takes its definition word by word.

The evaluator looks at entries, configs and notes as the root returns them, and knows nothing of SQL.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searches import age, begin, open_root, save

pytestmark = pytest.mark.slow
METRICS = ("loss", "val/acc", "odd name", "a.b")
KEYS = (("lr",), ("model", "size"), ("model",), ("flag",), ("a.b", "c"), ("list", "1"))
VALUES = (0, 1, 2.5, -1, True, False, None, "1", "true", "adam", "a*b", 1e-3, math.inf, math.nan)
TAGS = ("paper", "draft", "a b", "1")
NUMBERS = ("0", "1", "2.5", "-1", "1e-3", "nan", "inf", "3")
WORDS = ("paper", "1", "true", "null", "adam", "'a b'", '"1"', "a*", "?", "dr")
MISSING = object()


# ---------------------------------------------------------------- roots
def random_config(chance):
    config = {"n": chance.random()}
    if chance.random() < 0.7:
        config["lr"] = chance.choice(VALUES)
    if chance.random() < 0.5:
        config["model"] = chance.choice([{"size": chance.choice(VALUES)}, "tiny", {}])
    if chance.random() < 0.5:
        config["flag"] = chance.choice([True, False, 1, "true"])
    if chance.random() < 0.5:
        config["a.b"] = {"c": chance.choice(VALUES)}
    if chance.random() < 0.5:
        config["list"] = [1, chance.choice(VALUES)]
    return config


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A few roots that cover the values there are; some manifests and records are damaged."""
    found = []
    for seed in range(3):
        chance = random.Random(seed)
        root = open_root(tmp_path_factory.mktemp("filters") / "root")
        for number in range(5):
            facts = {"model_class": f"Net{number % 2}", "num_samples": number}
            exp_hash = begin(root, random_config(chance), **(facts if number else {}))
            for step in sorted(chance.sample(range(4), chance.randrange(4))):
                names = chance.sample(METRICS, chance.randrange(4))
                save(root, exp_hash, step, **{n: chance.choice(METRIC_VALUES) for n in names})
                if chance.random() < 0.4:
                    root.notes.tag(exp_hash, chance.choice(TAGS), step=step)
            if chance.random() < 0.4:
                root.notes.tag(exp_hash, chance.choice(TAGS))
            if chance.random() < 0.3:
                root.pin(exp_hash)
            if chance.random() < 0.4:
                root.notes.name(exp_hash, chance.choice(TAGS))
        harm(root, chance)
        age(root)
        found.append((root, Facts(root)))
    return found


METRIC_VALUES = (0, 1, 2.5, -1, 1e-3, math.inf, math.nan, 3)


def harm(root, chance):
    entry = chance.choice([e for e in root.checkpoints() if e.sequence])
    (root.path / entry.name.manifest_key).write_bytes(b"{}")
    record = root.path / "checkpoints" / root.list_hashes()[-1] / "experiment.json"
    record.write_bytes(b"{}")
    root.refresh()


class Facts:
    """What the evaluator looks at."""

    def __init__(self, root):
        self.experiments = root.experiments()
        self.of = {e.exp_hash: list(root.checkpoints(e.exp_hash)) for e in self.experiments}
        self.notes = {e.exp_hash: root.notes.read(e.exp_hash) for e in self.experiments}
        self.configs = {e.exp_hash: read_config(root, e.exp_hash) for e in self.experiments}


def read_config(root, exp_hash):
    from weightslab.engine.repository.config_file import config_from_bytes
    from weightslab.engine.repository.layout import config_key

    file = root.path / config_key(exp_hash)
    return config_from_bytes(file.read_bytes(), name=file.name)


# ---------------------------------------------------------------- values
def values_of(facts, subject, field):  # noqa: PLR0911, PLR0912 - one branch a field
    """Return the values that a field has: none, one, or several for tags."""
    is_checkpoint = hasattr(subject, "sequence")
    exp_hash = subject.name.exp_hash if is_checkpoint else subject.exp_hash
    entries, notes = facts.of[exp_hash], facts.notes[exp_hash]
    if is_checkpoint:
        checkpoint = subject
    else:
        good = [e for e in entries if e.created_at is not None]
        checkpoint = good[-1] if good else None
    kind, key = field
    if kind == "metric":
        has = checkpoint is not None and key in checkpoint.metrics
        return [checkpoint.metrics[key]] if has else []
    if kind == "config":
        found = facts.configs[exp_hash]
        for part in key:
            if isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, dict) and part in found:
                found = found[part]
            else:
                return []
        return [found]
    if kind == "step":
        return [] if checkpoint is None else [checkpoint.name.step]
    if kind == "checkpoints":
        return [len(entries)]
    if kind == "samples":
        record = next(e.record for e in facts.experiments if e.exp_hash == exp_hash)
        return (
            []
            if record is None or "num_samples" not in record.facts
            else [record.facts["num_samples"]]
        )
    if kind == "name":
        return [] if notes.name is None else [notes.name]
    if kind == "tag":
        return [t.text for t in notes.tags if not is_checkpoint or about(t, subject)]
    if kind == "pinned":
        return [any(not is_checkpoint or about(p, subject) for p in notes.pins)]
    assert kind == "damaged"
    if is_checkpoint:
        return [subject.damaged is not None]
    return [subject.damaged is not None or any(e.damaged for e in entries)]


def about(note, entry):
    return note.is_about(entry.name.step, entry.name.revision)


def compares(kind, value, operator, word):  # noqa: PLR0911 - one branch a kind
    """Tell whether one value fits; the word is as in the filter."""
    is_quoted = word[0] in "'\""
    text = word[1:-1] if is_quoted else word
    number = None if is_quoted else to_number(text)
    if kind in ("metric", "step", "checkpoints", "samples"):
        return by_number(value, operator, number)
    if kind in ("name", "tag"):
        return by_text(value, operator, text)
    if isinstance(value, str):
        is_text = is_quoted or operator in ("=", "~") or number is None
        return is_text and by_text(value, operator, text)
    if is_quoted or operator == "~" or isinstance(value, (dict, list)):
        return False
    if isinstance(value, bool):
        return operator == "=" and text == str(value).lower()
    if value is None:
        return operator == "=" and text in ("null", "none")
    return number is not None and by_number(value, operator, number)


def to_number(text):
    try:
        return float(text)
    except ValueError:
        return None


def by_number(value, operator, number):
    if operator == "=" and math.isnan(number):
        return math.isnan(value)
    return {
        "=": value == number,
        "<": value < number,
        "<=": value <= number,
        ">": value > number,
        ">=": value >= number,
    }[operator]


def by_text(value, operator, text):
    if operator == "~":
        return fits(text.lower(), value.lower())
    return {
        "=": value == text,
        "<": value < text,
        "<=": value <= text,
        ">": value > text,
        ">=": value >= text,
    }[operator]


def fits(pattern, text):
    if "*" not in pattern and "?" not in pattern:
        return pattern in text
    return fits_whole(pattern, text)


def fits_whole(pattern, text):
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits_whole(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and fits_whole(pattern[1:], text[1:])


# ---------------------------------------------------------------- filters
@dataclass
class Leaf:
    field: tuple
    operator: str
    words: tuple = ()

    def text(self):
        name = written(self.field)
        if self.operator in ("exists", "missing", ""):
            return f"{self.operator} {name}".strip()
        if "in" in self.operator:
            return f"{name} {self.operator} ({', '.join(self.words)})"
        return f"{name} {self.operator} {self.words[0]}"

    def holds(self, facts, subject):
        values = values_of(facts, subject, self.field)
        kind = self.field[0]
        if self.operator in ("exists", "missing"):
            return bool(values) == (self.operator == "exists")
        if self.operator == "":
            return values == [True] and values[0] is True
        positive = {"!=": "=", "!~": "~", "in": "=", "not in": "="}.get(
            self.operator, self.operator
        )
        words = self.words if "in" in self.operator else self.words[:1]
        some = any(compares(kind, v, positive, w) for v in values for w in words)
        if self.operator in ("!=", "!~", "not in"):
            return bool(values) and not some
        return some


@dataclass
class Tree:
    word: str
    parts: tuple

    def text(self):
        if self.word == "not":
            return f"not ({self.parts[0].text()})"
        return f" {self.word} ".join(f"({part.text()})" for part in self.parts)

    def holds(self, facts, subject):
        found = [part.holds(facts, subject) for part in self.parts]
        return not found[0] if self.word == "not" else (all if self.word == "and" else any)(found)


def written(field):
    kind, key = field
    if kind == "metric":
        return f'metric."{key}"'
    if kind == "config":
        return "config." + ".".join(f'"{part}"' if "." in part else part for part in key)
    return kind


def leaf(field, operators, words):
    several = st.lists(st.sampled_from(words), min_size=1, max_size=3).map(tuple)
    return st.builds(Leaf, st.just(field), st.sampled_from(operators), several)


COMPARE = ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "exists", "missing")
LEAVES = st.one_of(
    [leaf(("metric", name), COMPARE, NUMBERS) for name in METRICS]
    + [leaf(("config", key), (*COMPARE, "~", "!~", ""), (*NUMBERS, *WORDS)) for key in KEYS]
    + [leaf((name, None), COMPARE, NUMBERS[:5]) for name in ("step", "checkpoints", "samples")]
    + [leaf((name, None), (*COMPARE, "~", "!~"), WORDS) for name in ("name", "tag")]
    + [leaf((name, None), ("", "exists"), ("x",)) for name in ("pinned", "damaged")]
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Tree, st.just("not"), st.tuples(inner)),
        st.builds(
            Tree, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=4).map(tuple)
        ),
    ),
    max_leaves=6,
)


@given(tree=FILTERS)
@settings(max_examples=100, deadline=None)
def test_a_filter_finds_what_its_definition_says(roots, tree):
    from weightslab.engine.errors import FilterError

    where = tree.text()
    for root, facts in roots:
        entries = [entry for found in facts.of.values() for entry in found]
        try:
            checkpoints = root.checkpoints(where=where)
            experiments = root.experiments(where=where)
        except FilterError as error:  # a key that this root happens not to have
            assert "nothing in the root has" in str(error), where  # noqa: PT017 - only if
            continue
        expected = [e.name for e in entries if tree.holds(facts, e)]  # entries with NaN are unequal
        assert [e.name for e in checkpoints] == expected, where
        assert list(experiments) == [e for e in facts.experiments if tree.holds(facts, e)], where


@given(tree=FILTERS, limit=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_best_and_limit_are_those_of_everything_that_is_found(roots, tree, limit):
    from weightslab.engine.errors import FilterError

    where = tree.text()
    for root, _ in roots:
        try:
            found = root.checkpoints(where=where)
        except FilterError:
            continue
        limited = root.checkpoints(where=where, limit=limit)
        assert [e.name for e in limited] == [e.name for e in found][:limit]
        with_loss = [e for e in found if not math.isnan(e.metrics.get("loss", math.nan))]
        lowest = min((e.metrics["loss"] for e in with_loss), default=None)
        best = root.best("loss", where=where)
        assert (best and best.metrics["loss"]) == lowest
