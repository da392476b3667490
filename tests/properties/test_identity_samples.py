from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.identity.canonical import encode_canonical
from weightslab.engine.identity.mix import MASK, mix_int, mix_text
from weightslab.engine.identity.samples import SampleSet

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
UIDS = st.lists(st.one_of(INT64, TEXT.map("t".__add__)), max_size=40)
TREES = st.recursive(
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def reference_state(uids):
    lanes = [mix_int(u) if isinstance(u, int) else mix_text(u.encode()) for u in set(uids)]
    return len(lanes), sum(a for a, _ in lanes) & MASK, sum(b for _, b in lanes) & MASK


@settings(max_examples=60, deadline=None)
@given(UIDS)
def test_vectorised_state_equals_the_scalar_definition(uids):
    assert SampleSet.from_uids(uids).state == reference_state(uids)


@settings(max_examples=60, deadline=None)
@given(UIDS, UIDS)
def test_difference_leads_from_one_set_to_the_other(old, new):
    first, second = SampleSet.from_uids(old), SampleSet.from_uids(new)
    added, removed = first.difference(second)
    assert set(first) - set(removed) | set(added) == set(second)
    assert not set(added) & set(first)
    assert (first.digest == second.digest) == (set(old) == set(new))


def test_state_of_many_blocks_equals_the_scalar_definition():
    uids = [*range(-9000, 9000), *(f"sample/{i:0{i % 40}d}.png" for i in range(3000))]
    assert SampleSet.from_uids(uids).state == reference_state(uids)


@settings(max_examples=200, deadline=None)
@given(TREES, TREES)
def test_encoding_is_injective(left, right):
    assert (encode_canonical(left) == encode_canonical(right)) == (left == right)


@settings(max_examples=100, deadline=None)
@given(st.lists(TREES, max_size=4))
def test_no_encoding_is_a_prefix_of_another(trees):
    joined = b"".join(map(encode_canonical, trees))
    assert encode_canonical(trees) == b"l%d:" % len(trees) + joined
