"""Explaining any two descriptions: never silent, never too long, the same told of the same."""

import copy
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.explain import diff_configs, diff_excluded, diff_models
from weightslab.engine.screen import MAX_COLUMNS, MAX_LINES
from weightslab.engine.values import Change, Explanation, HashUpdate

# keys that differ only in kind or in dots are the hard ones
KEYS = st.one_of(st.sampled_from(["a", "b", "a.b", "a[0]", "", "1", "$x"]), st.integers(0, 2))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, -0.0, 1.0, 0.5]), st.text()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
CONFIGS = st.dictionaries(st.sampled_from(["a", "b", "a.b", "lr"]), VALUES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(CONFIGS, CONFIGS)
def test_configs_have_changes_exactly_if_their_digests_differ(left, right):
    old, new = describe_config(left), describe_config(right)
    assert bool(diff_configs(old.plain, new.plain)) == (old.digest != new.digest)


@settings(max_examples=200, deadline=None)
@given(CONFIGS, CONFIGS, st.sampled_from([(), ("a",), ("a.b",), ("a.b", "lr")]))
def test_excluded_keys_change_nothing_and_are_told_apart(left, right, exclude):
    old, new = (describe_config(config, exclude=exclude) for config in (left, right))
    counted = diff_configs(old.plain, new.plain, exclude)
    assert bool(counted) == (old.digest != new.digest)
    everything = describe_config(left).digest != describe_config(right).digest
    assert bool(counted + diff_excluded(old.plain, new.plain, exclude)) == everything


@settings(max_examples=100, deadline=None)
@given(CONFIGS, CONFIGS, st.sampled_from([(), ("a",)]), st.sampled_from([("lr",), ("a", "b")]))
def test_configs_with_other_exclusions_are_compared_as_they_count(left, right, mine, yours):
    old, new = describe_config(left, exclude=mine), describe_config(right, exclude=yours)
    found = diff_configs(old.plain, new.plain, yours, old_exclude=mine)
    assert bool(found) == (old.digest != new.digest)


# ---------------------------------------------------------------- models
CLASSES = st.sampled_from(["torch.nn.Linear", "torch.nn.ReLU", "torch.nn.Sequential"])
SHAPES = st.lists(st.integers(1, 3), max_size=2)
NAMES = st.sampled_from(["0", "1", "2", "3", "fc", "act", "parametrizations"])
PARAMETERS = st.dictionaries(
    st.sampled_from(["weight", "bias", "weight_orig"]),
    st.tuples(st.sampled_from(["float32", "float16"]), SHAPES).map(list),
    max_size=2,
).map(lambda specs: [[name, spec] for name, spec in specs.items()])


@st.composite
def modules(draw, path=""):
    """Entries of a module and of what is below it."""
    depth = path.count(".") + bool(path)
    if path and draw(st.integers(0, 9)) == 0:
        return [{"path": path, "class": None}]
    entry = {"path": path, "kind": "library", "class": draw(CLASSES), "attributes": {}}
    if draw(st.booleans()):
        entry |= {"kind": "user", "class": draw(st.sampled_from(["Net", "Block"]))}
        method = f"{entry['class']}.forward"
        entry |= {"code": [[entry["class"], {"forward": {"$function": method}}]], "bases": []}
    entry["attributes"] = draw(st.dictionaries(st.sampled_from(["n", "p"]), LEAVES, max_size=2))
    parameters = draw(PARAMETERS)
    entries = [entry | ({"parameters": parameters} if parameters else {})]
    names = draw(st.lists(NAMES, unique=True, max_size=3)) if depth < 3 else []
    for name in names:
        entries += draw(modules(f"{path}.{name}" if path else name))
    return entries


SOURCES = st.lists(st.text(max_size=120), max_size=60).map("\n".join)


@st.composite
def documents(draw):
    """An architecture document, as it is read back from JSON."""
    entries = draw(modules())
    labels = sorted({label for e in entries for label in _labels(e)} | draw(st.sets(NAMES)))
    code = {label: draw(st.sampled_from("xyz")) for label in labels}
    owned = [
        f"{e['path']}.{name}".lstrip(".") for e in entries for name, _ in e.get("parameters", ())
    ]
    frozen = [name for name in owned if draw(st.booleans())]
    model = {"modules": entries, "code": code, "frozen": frozen}
    values = {
        label: {"constants": draw(st.dictionaries(NAMES, VALUES, max_size=2))} for label in code
    }
    document = {
        "identity": {"scheme": "model-1", "models": [["", model]]},
        "sources": {"": {label: draw(SOURCES) for label in code}},
        "values": {"": values},
    }
    return json.loads(json.dumps(document))


def _labels(entry):
    return [m["$function"] for _, members in entry.get("code", ()) for m in members.values()]


@settings(max_examples=40, deadline=None)  # drawing two documents takes 0.1 s
@given(documents(), documents())
def test_models_have_changes_exactly_if_they_differ(old, new):
    changes = diff_models(old, new)
    same = json.dumps(old["identity"]) == json.dumps(new["identity"])
    assert bool(changes) == (not same)
    assert diff_models(copy.deepcopy(new), new) == []


@settings(max_examples=30, deadline=None)
@given(documents(), documents(), CONFIGS, CONFIGS)
def test_whatever_changed_fits_on_a_screen_and_is_complete_as_json(old, new, left, right):
    changes = (*diff_models(old, new), *diff_configs(left, right))
    told = Explanation(old="a" * 16, new="b" * 16, changes=changes, not_counted=changes)
    assert fits(str(told))
    assert fits(str(HashUpdate(exp_hash="a", is_new=True, changes=changes, compared_with="b")))
    assert [c["text"] for c in told.to_dict()["changes"]] == [c.text for c in changes]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text(), st.lists(st.text(), max_size=90)), max_size=120),
    st.lists(st.text(), max_size=20),
)
def test_any_texts_fit_on_a_screen(rows, problems):
    changes = tuple(
        Change(component="model", kind="changed", path="", text=text, detail=tuple(detail))
        for text, detail in rows
    )
    assert fits(str(Explanation(old="a", new="b", changes=changes, problems=tuple(problems))))


def fits(text):
    lines = text.split("\n")
    return (
        len(lines) <= MAX_LINES == 40
        and all(len(line) <= MAX_COLUMNS == 100 for line in lines)
        and all(line.isprintable() for line in lines)
    )
