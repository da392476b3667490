"""Sample sets against a model of Python sets: any changes in any order equal a full rebuild."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from weightslab.engine.identity.base import State
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.identity.uids import read_uids
from weightslab.engine.repository.sample_file import (
    base_to_bytes,
    delta_to_bytes,
    samples_from_bytes,
    samples_to_bytes,
)

UID = st.one_of(
    st.integers(-20, 20),
    st.integers(-(2**63), 2**63 - 1),
    st.text("ab\0\u00e9", max_size=4).map("t".__add__),
    st.sampled_from(["x" * 8, "x" * 9, "x" * 16, "x" * 300]),
)
UIDS = st.sets(UID, max_size=30)


class Changes(RuleBasedStateMachine):
    @initialize(uids=UIDS)
    def build(self, uids):
        self.samples = SampleSet.from_uids(uids)
        self.active, self.gone = set(uids), set()
        self.first, self.at_first = self.samples.frozen(), set(uids)

    @rule(data=st.data())
    def discard(self, data):
        chosen = (
            data.draw(st.sets(st.sampled_from(sorted(self.active, key=str))))
            if self.active
            else set()
        )
        self.samples.discard(chosen)
        self.active -= chosen
        self.gone |= chosen

    @rule(data=st.data())
    def restore(self, data):
        chosen = (
            data.draw(st.sets(st.sampled_from(sorted(self.gone, key=str)))) if self.gone else set()
        )
        self.samples.restore(chosen)
        self.gone -= chosen
        self.active |= chosen

    @rule(uids=UIDS)
    def add(self, uids):
        new = uids - self.active - self.gone
        self.samples.add(new)
        self.active |= new

    @rule(uids=UIDS)
    def refuse(self, uids):
        for method, fine in (("discard", self.active), ("restore", self.gone)):
            if not uids <= fine:
                try:
                    getattr(self.samples, method)(uids)
                except ValueError:
                    continue
                raise AssertionError(f"{method} took {uids - fine}")

    @rule()
    def make_a_new_base(self):
        self.samples = SampleSet(_on_a_new_base(self.samples.overlay()))

    @rule()
    def store_and_read(self):
        base = samples_from_bytes(base_to_bytes(self.samples.overlay().base), what="base")
        token = base.overlay().base
        again = samples_from_bytes(delta_to_bytes(self.samples), what="delta", base=token)
        whole = samples_from_bytes(samples_to_bytes(self.samples), what="whole")
        for read in (again, whole):
            assert set(read) == self.active
            assert set(read.discarded) == self.gone
        self.samples = again.copy()

    @invariant()
    def equals_a_rebuild(self):
        assert self.samples.state == SampleSet.from_uids(self.active).state
        assert set(self.samples) == self.active
        assert set(self.samples.discarded) == self.gone

    @invariant()
    def difference_names_what_changed(self):
        added, removed = self.first.difference(self.samples)
        assert set(added) == self.active - self.at_first
        assert set(removed) == self.at_first - self.active


def _on_a_new_base(overlay):
    overlay._merge(read_uids([]), State())
    return overlay


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
