"""Filters, orders and limits over a root; best and latest of a filter; listings."""

import json
import math
from datetime import timedelta

import pytest
from support.searches import START, age, begin, open_root, save

from weightslab.engine.errors import ExperimentNotFoundError, FilterError
from weightslab.engine.repository.catalog import CheckpointEntry, ExperimentEntry
from weightslab.engine.repository.layout import CheckpointName


class Story:
    """Three experiments: `base`, `wide` and `bare`, which has no metrics, facts or notes."""

    def __init__(self, path):
        root = self.root = open_root(path)
        config = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "amp": True, "a.b": {"c": 1}}
        self.base = begin(root, config, model_class="Net", num_parameters=100, num_samples=50)
        self.wide = begin(
            root,
            {"optimizer": {"lr": 0.01}, "amp": False, "tag": None, "name": "1e-3"},
            model_class="Wide",
            num_parameters=5_000_000,
            num_samples=40,
        )
        self.bare = begin(root, {"optimizer": "sgd"})
        save(root, self.base, 1, loss=0.9)
        save(root, self.base, 2, loss=0.5, acc=math.nan)
        save(root, self.wide, 1, size_bytes=5000, loss=0.3, acc=1)
        save(root, self.wide, 5, loss=0.4)
        save(root, self.bare, 7)
        root.notes.name(self.base, "base line")
        root.notes.tag(self.base, "paper", step=2)
        root.notes.tag(self.wide, "draft")
        root.notes.add(self.wide, "unstable <b>after</b> step 3")
        root.pin(self.wide, step=5)
        age(root)
        root.clock = lambda: START + timedelta(hours=30)

    def steps(self, where, **more):
        """Return experiment and step of what a filter finds, as `base2`."""
        names = {self.base: "base", self.wide: "wide", self.bare: "bare"}
        found = self.root.checkpoints(where=where, **more)
        return " ".join(f"{names[e.name.exp_hash]}{e.name.step}" for e in found)

    def names(self, where, **more):
        names = {self.base: "base", self.wide: "wide", self.bare: "bare"}
        found = self.root.experiments(where=where, **more)
        return " ".join(names[e.exp_hash] for e in found)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Nobody changes it."""
    return Story(tmp_path_factory.mktemp("story") / "root")


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("metric.loss < 0.5", "wide1 wide5"),
        ("metrics.loss <= 0.5 and step > 1", "base2 wide5"),
        ("not metric.loss < 0.5", "base1 base2 bare7"),
        ("metric.loss != 0.5", "base1 wide1 wide5"),
        ("metric.loss in (0.9, 0.3)", "base1 wide1"),
        ("metric.loss not in (0.9, 0.3)", "base2 wide5"),
        ("not metric.loss in (0.9, 0.3)", "base2 wide5 bare7"),
        ("exists metric.acc", "base2 wide1"),
        ("missing metric.acc", "base1 wide5 bare7"),
        ("metric.acc = nan", "base2"),
        ("metric.acc >= 0", "wide1"),
        ("metric.acc != 1", "base2"),
        ("config.optimizer.lr < 0.05", "wide1 wide5"),
        ("config.optimizer.lr = 0.10", "base1 base2"),
        ("config.optimizer.betas.1 = 0.99", "base1 base2"),
        ("exists config.optimizer", "base1 base2 wide1 wide5 bare7"),
        ("config.optimizer = sgd", "bare7"),
        ("config.optimizer != sgd", "base1 base2 wide1 wide5"),
        ("config.amp", "base1 base2"),
        ("config.amp = false", "wide1 wide5"),
        ("config.amp = 1", ""),
        ("config.tag = null", "wide1 wide5"),
        ('config."a.b".c = 1', "base1 base2"),
        ("config.name = 1e-3", "wide1 wide5"),
        ('config.name = "1e-3"', "wide1 wide5"),
        ("config.name < 1", ""),
        ("config.optimizer.lr = '0.1'", ""),
        ("tag = paper", "base2"),
        ("tag = draft", "wide1 wide5"),
        ("tag != paper", "wide1 wide5"),
        ("not tag = paper", "base1 wide1 wide5 bare7"),
        ("note ~ 'UNSTABLE*step ?'", "wide1 wide5"),
        ("name ~ base", "base1 base2"),
        ("name = 'base line'", "base1 base2"),
        ("missing name and not pinned", "wide1 bare7"),
        ("pinned", "wide5"),
        ("pinned = false and metric.loss < 0.4", "wide1"),
        ("damaged", ""),
        ("size > 4k", "wide1"),
        ("size < 4KiB and checkpoints >= 2 and samples = 40", "wide5"),
        ("model.class = Wide or model.parameters < 0.001M", "base1 base2 wide1 wide5"),
        ("model.parameters >= 5M", "wide1 wide5"),
        ("created < 2026-01-01T06:00", "base1"),
        ("created = 2026-01-01", "base1 base2 wide1 wide5 bare7"),
        ("created > 2026-01-01", ""),
        ("created >= 1d and step = 7", "bare7"),
        ("revision = 1 and sequence = 2", "base2 wide5"),
        ("model.digest = sha256:3a3a and missing model.class", ""),
        ("model.digest = 3A3A and step = 1", "base1 wide1"),
        ("exists model.digest and step = 7", ""),
    ],
)
def test_filters_of_checkpoints(story, where, found):
    assert story.steps(where) == found


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("metric.loss < 0.5", "wide"),
        ("metric.loss = 0.3", ""),  # not of the newest checkpoint
        ("step = 5", "wide"),
        ("size > 5000", "wide"),
        ("tag = paper", "base"),
        ("pinned", "wide"),
        ("checkpoints = 1", "bare"),
        ("exists metric.loss", "base wide"),
        ("missing tag", "bare"),
        ("created < 2026-01-01T01:30", "base"),
        ("samples in (40, 50) and not config.amp", "wide"),
        ("name = nobody or hash = zzz", ""),
    ],
)
def test_filters_of_experiments(story, where, found):
    assert story.names(where) == found


def test_digests_and_hashes_are_found_by_their_beginning(story):
    record = story.root.get_experiment(story.wide).record
    digits = record.components.config.rpartition(":")[2]
    assert story.names(f"config.digest = {digits[:6]} and hash = {story.wide[:5]}") == "wide"
    assert story.names(f"hash in ({story.wide}, {story.base[:8]})") == "base wide"
    assert story.names(f"hash != {story.wide[:6]}") == "base bare"


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("metric.loss", "wide1 wide5 base2 base1 bare7"),
        ("-metric.loss", "base1 base2 wide5 wide1 bare7"),
        ("config.optimizer.lr, -step", "wide5 wide1 base2 base1 bare7"),
        ("-created", "bare7 wide5 wide1 base2 base1"),
        ("name, -metric.loss", "base1 base2 wide5 wide1 bare7"),
        ("-pinned, step", "wide5 wide1 base1 base2 bare7"),
        ("model.class, size", "base2 base1 wide5 wide1 bare7"),
    ],
)
def test_order_with_what_is_missing_last(story, order, found):
    assert story.steps(None, order=order) == found


def test_limit_counts_from_the_front(story):
    assert story.steps(None, limit=2) == "base1 base2"
    assert story.steps("metric.loss > 0", order="metric.loss", limit=1) == "wide1"
    assert story.names(None, order="-created", limit=2) == "bare wide"
    assert story.names(None, limit=0) == ""
    assert story.steps("step > 0", exp_hash=story.wide[:6], limit=1) == "wide1"


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), (True, TypeError), ("3", TypeError)]
)
def test_a_limit_is_a_count(story, limit, error):
    with pytest.raises(error, match="limit is"):
        story.root.checkpoints(limit=limit)


def test_best_and_latest_of_a_filter(story):
    root = story.root
    assert root.best("loss", where="config.amp").name.step == 2
    assert root.best("loss", mode="max", where="step > 1").name.exp_hash == story.base
    assert root.best("loss", where="step > 100") is None
    assert root.best("acc").name == CheckpointName(exp_hash=story.wide, step=1)
    assert root.latest(where="exists metric.acc").name.exp_hash == story.wide
    assert root.latest(story.base, where="step < 2").name.step == 1
    assert root.latest(where="step > 100") is None


@pytest.mark.parametrize(
    ("where", "message", "hint"),
    [
        ("stepp > 1", "no field 'stepp'", "nearest: step"),
        ("metric > 1", "no field 'metric'", "metric.NAME"),
        ("metric.los < 1", "nothing in the root has the metric 'los'", "nearest: metric.loss"),
        ("config.lr < 1", "config key 'lr'", "nearest: config.optimizer.lr"),
        ("exists config.optimizer.eps", "config key 'optimizer.eps'", None),
        ('config."step" = 1', "config key 'step'", None),
        ('"step" > 1', "no field 'step'", None),
        ("model.klass = Net", "no field 'model.klass'", "nearest: model.class"),
        ("created > soon", "compared with a time", "2026-01-15"),
        ("step > many", "step is compared with a number", None),
        ("metric.loss = '1'", "compared with a number", None),
        ("step ~ 3", "'~' is for texts", None),
        ("step", "step is no flag", None),
        ("damaged = maybe", "true or false", None),
        ("damaged < true", "true or false", None),
        ("hash = ''", "first digits", None),
    ],
)
def test_what_cannot_be_asked_is_said_with_the_nearest(story, where, message, hint):
    with pytest.raises(FilterError, match=message) as caught:
        story.root.checkpoints(where=where)
    assert hint is None or hint in caught.value.hint
    assert str(caught.value).endswith("^")


def test_an_unknown_key_in_an_order_or_in_one_experiment_is_said(story):
    with pytest.raises(FilterError, match="order, character 2: nothing in the root"):
        story.root.experiments(order="-metric.los")
    with pytest.raises(FilterError, match="nothing can be ordered by tag"):
        story.root.experiments(order="tag")
    assert story.steps("exists metric.acc", exp_hash=story.bare) == ""  # another one has it
    with pytest.raises(FilterError, match="nothing in the root"):
        story.root.checkpoints(story.bare, where="metric.nobody > 1")
    with pytest.raises(ExperimentNotFoundError):
        story.root.checkpoints("0000", where="step > 1")


EVIL = [
    "x'; DROP TABLE facts; --",
    '"; DELETE FROM checkpoints; --',
    "' OR 1=1 --",
    "{0} {} %s ?1 :a @b $c",
    "\0",
    "\ud800",
    ") OR (1=1",
]


@pytest.mark.parametrize("text", EVIL, ids=repr)
def test_text_of_a_filter_is_a_value_and_nothing_else(story, text):
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert story.steps(f"name = {quoted}") == ""
    assert story.steps(f"config.optimizer = {quoted} or tag ~ {quoted} or note > {quoted}") in (
        "",
        "wide1 wide5",
    )
    for where in (f"config.{quoted} = 1", f"metric.{quoted} = 1", f"{quoted} = 1"):
        with pytest.raises(FilterError):
            story.root.experiments(where=where)
    assert story.steps("step > 0") == "base1 base2 wide1 wide5 bare7"


def test_a_filter_of_ten_thousand_characters_is_answered(story):
    where = " or ".join(f"metric.loss = 0.{n:03}" for n in range(1, 420))
    assert len(where) > 9000
    assert story.steps(where) == "wide1 wide5"
    assert story.steps(f"step in ({','.join(map(str, range(2, 1500)))})") == "base2 wide5 bare7"
    assert story.steps("not " * 99 + "pinned") == "base1 base2 wide1 bare7"


def test_parentheses_in_parentheses_are_answered_or_refused(story):
    nested = "step = 5"
    for _ in range(6):
        nested = f"not (step = 7 or (step > 0 and {nested}))"
    assert story.steps(nested) in ("base1 base2 wide1 wide5", "wide5", "base1 base2 wide1")
    deep = "pinned"
    for _ in range(90):
        deep = f"step > 99 or not ({deep})"
    with pytest.raises(FilterError, match="nested too deeply"):
        story.steps(deep)
    assert story.steps("pinned") == "wide5"


# ---------------------------------------------------------------- listings
def test_results_are_lists_of_the_entries_there_are(story):
    found = story.root.experiments(where="step > 0")
    assert isinstance(found, list)
    assert isinstance(found[0], ExperimentEntry)
    assert isinstance(story.root.checkpoints(limit=1)[0], CheckpointEntry)
    assert story.root.experiments() == found


def test_rows_of_experiments_hold_what_a_listing_shows(story):
    row = story.root.experiments(where="model.class = Wide").rows()[0]
    assert row == {
        "hash": story.wide,
        "name": None,
        "tags": ["draft"],
        "created_at": "2026-01-01T02:00:00+00:00",
        "num_checkpoints": 2,
        "last_step": 5,
        "size_bytes": 5056,
        "metrics": {"loss": 0.4},
        "model_class": "Wide",
        "num_parameters": 5_000_000,
        "num_samples": 40,
        "pinned": True,
        "damaged": None,
    }
    assert tuple(row) == story.root.experiments().columns


def test_rows_of_checkpoints_hold_what_is_said_about_their_step(story):
    rows = story.root.checkpoints(story.base).rows()
    assert [(r["step"], r["tags"], r["name"]) for r in rows] == [
        (1, [], "base line"),
        (2, ["paper"], "base line"),
    ]
    assert rows[1]["metrics"] == {"acc": "nan", "loss": 0.5}
    assert tuple(rows[0]) == story.root.checkpoints().columns
    json.dumps(rows, allow_nan=False)


def test_pandas_has_a_column_for_each_metric(story):
    table = story.root.checkpoints(where="exists metric.loss").to_pandas()
    assert list(table["metrics.loss"]) == [0.9, 0.5, 0.3, 0.4]
    assert table["metrics.acc"].isna().tolist() == [True, True, False, True]
    assert str(table["created_at"].dt.tz) == "UTC"
    assert len(story.root.experiments(where="step > 99").to_pandas()) == 0


def test_html_shows_text_and_obeys_none(tmp_path):
    root = open_root(tmp_path / "root")
    exp_hash = begin(root, {"n": 1}, model_class="<script>Net")
    save(root, exp_hash, 1, **{"<i>loss</i>": 0.5, "big": 10**25})
    root.notes.name(exp_hash, "<img src=x onerror=alert(1)>\x1b[31m\u202e")
    root.notes.tag(exp_hash, "a" * 300)
    for listing in (root.experiments(), root.checkpoints()):
        html = listing._repr_html_()
        assert "&lt;img src=x onerror=alert(1)&gt;\\x1b[31m\\u202e" in html
        assert "&lt;i&gt;loss&lt;/i&gt;: 0.5" in html
        assert "<script>" not in html
        assert "a" * 78 not in html


def test_long_html_is_cut_and_says_so(story, monkeypatch):
    monkeypatch.setattr("weightslab.engine.query.listing._MAX_HTML_ROWS", 2)
    assert "and 3 more" in story.root.checkpoints()._repr_html_()


def test_reading_the_clock_tells_what_is_young(story):
    assert story.names("created > 1h") == ""
    assert story.names("created < 1h") == "base wide bare"
