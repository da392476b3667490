import pytest

from weightslab.engine.errors import IdentityError
from weightslab.engine.identity.explain import diff_samples
from weightslab.engine.identity.samples import SampleSet


def digest(uids, **facets):
    return SampleSet.from_uids(uids, **facets).digest


@pytest.mark.parametrize(
    ("facets", "digits"),
    [
        ({"tags": {}}, "7e1337ba63ae83980c9835ec5d53764c2d7501994e3e2995068f8e9e0e5796a8"),
        (
            {"tags": {1: ["x", "y"]}},
            "1f298925561b6d24cb428cff8a55a918854c9127288b474e04dbb3ee8497b33f",
        ),
        (
            {"labels": {1: 0, 2: "cat"}},
            "c786b3ffa3a6356194cc402a420ad9b438506c11624cfb7c4af4e5f1deecf1b7",
        ),
        (
            {"tags": {"2": ["x"]}, "labels": {1: [0.5, None]}},
            "96d9d3ed520422d38251a237a6ccefa956aeeb3ce31badda1802291ccda72714",
        ),
    ],
    ids=["no tag", "tags", "labels", "both"],
)
def test_facets_golden(facets, digits):
    assert digest([1, 2], **facets) == f"wl1:sha256:{digits}"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"tags": {1: ["x"]}}, {"tags": {1: ["y"]}}),
        ({"tags": {1: ["x"]}}, {"tags": {2: ["x"]}}),
        ({"tags": {1: ["x,y"]}}, {"tags": {1: ["x", "y"]}}),
        ({"tags": {1: ["x"]}}, {"tags": {}}),
        ({"tags": {}}, {}),
        ({"labels": {1: 0, 2: 1}}, {"labels": {1: 1, 2: 1}}),
        ({"labels": {1: 0, 2: 1}}, {"labels": {1: 1, 2: 0}}),
        ({"labels": {1: "0"}}, {"labels": {1: 0}}),
        ({"labels": {1: True}}, {"labels": {1: 1}}),
        ({"labels": {1: "x"}}, {"tags": {1: ["x"]}}),
    ],
)
def test_facets_that_differ_make_another_digest(left, right):
    assert digest([1, 2], **left) != digest([1, 2], **right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"tags": {1: ["x", "y"]}}, {"tags": {1: ("y", "x", "x")}}),
        ({"tags": {1: {"x"}, 2: []}}, {"tags": {"1": ["x"]}}),
        ({"labels": {1: 0, 2: 1}}, {"labels": {2: 1, 1: 0}}),
    ],
    ids=["order", "spelling", "order of the dict"],
)
def test_facets_that_say_the_same_have_one_digest(left, right):
    assert digest([1, 2], **left) == digest([1, 2], **right)


def test_values_of_discarded_samples_do_not_count():
    samples = SampleSet.from_uids([1, 2, 3], discarded=[3], labels={1: 0, 3: 5})
    assert samples.digest == digest([1, 2], labels={1: 0})
    samples.restore([3])
    assert samples.digest == digest([1, 2, 3], labels={1: 0, 3: 5})


def test_facets_follow_changes():
    samples = SampleSet.from_uids(["a", "b"], tags={"a": ["x"]})
    samples.add(["c"], tags={"c": ["y"]})
    samples.discard(["a"])
    assert samples.digest == digest(["b", "c"], tags={"c": ["y"]})
    assert samples.facets == ("tags",)


def test_added_values_of_one_copy_are_not_those_of_another():
    first = SampleSet.from_uids([1], labels={1: 0})
    second = first.copy()
    first.add([2], labels={2: "a"})
    second.add([2], labels={2: "b"})
    first.discard([2])
    assert first.digest == digest([1], labels={1: 0})


@pytest.mark.parametrize(
    ("facets", "words"),
    [
        ({"tags": {9: ["x"]}}, "tags has a value for 9, which is not in the set"),
        ({"tags": {1: "xy"}}, r"tags\[1\] is 'xy'"),
        ({"tags": {1: [1]}}, "list of texts"),
        ({"tags": {None: ["x"]}}, "tags: .*NoneType"),
        ({"tags": [1, 2]}, "tags is a list"),
        ({"labels": {1: 0, "1": 0}}, "names one sample twice"),
        ({"labels": {1: object()}}, r"labels\[1\]"),
    ],
)
def test_facets_that_cannot_be_are_refused(facets, words):
    with pytest.raises(IdentityError, match=words):
        SampleSet.from_uids([1, 2], **facets)


def test_a_facet_is_not_switched_on_by_adding():
    with pytest.raises(ValueError, match="without these facets"):
        SampleSet.from_uids([1]).add([2], labels={2: 0})


def test_changed_labels_are_told_as_a_change_of_the_data():
    old, new = (SampleSet.from_uids([1, 2], labels={1: n}) for n in (0, 1))
    assert [change.text for change in diff_samples(old, new)] == [
        "the same samples, but other labels"
    ]
    assert diff_samples(old, old.copy()) == []
