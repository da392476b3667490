"""What it costs to take the identity of the larger model, and to notice that nothing changed."""

from __future__ import annotations

from benchmarks.save_load import build
from benchmarks.timing import Candidate, interleave, table
from weightslab.engine.identity.architecture import describe_model, outline
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet


def main(*, rounds: int = 9) -> list[str]:
    """Measure and return the table."""
    model, _ = build("25M")
    config = {f"key{i}": {"value": i / 7, "name": str(i)} for i in range(50)}
    rows = interleave(
        [
            Candidate("describe the model", lambda _: describe_model(model)),
            Candidate("outline of the model (at every save)", lambda _: outline(model)),
            Candidate("describe a config of 100 keys", lambda _: describe_config(config)),
            Candidate("100,000 sample UIDs", lambda _: SampleSet.from_uids(range(100_000)).digest),
        ],
        rounds=rounds,
    )
    return [table("Identity of the 25M-parameter model", rows, relative_to="describe the model")]
