"""The command line in this process, and a root for it whose hashes, times and sizes never change."""

from __future__ import annotations

from typing import NamedTuple

from support.roots import begin, hash_of, save, small_root, ticking_clock
from weightslab.cli.start import main
from weightslab.engine.repository.metric_lines import METRICS_FILE, to_line
from weightslab.engine.storage.journal import LocalJournal
from weightslab.engine.tensors.packing import PackedTensor, pack
from weightslab.engine.values import MetricRecord

EVIL = "base\x1b[31mline\n[bold]x[/bold] \u202eabc"  # colour, a line end, markup, turned letters
INERT = r"base\x1b[31mline\n[bold]x[/bold] \u202eabc"


class Done(NamedTuple):
    code: int
    out: str
    err: str


def make_root(path):
    """Three experiments, free of torch: one with steps and notes, one with samples, one damaged."""
    root = small_root(path, clock=ticking_clock())
    first, _ = begin(root, 1)
    for step in (1, 2, 3):
        save(root, first, step, f"text {step}")
    begin(root, 2, num_samples=20)
    third, _ = begin(root, 3)
    save(root, third, 1, "other")
    (path / "checkpoints" / third / "experiment.json").write_text("{")
    root.notes.name(first, EVIL)
    root.notes.tag(first, "paper", step=2)
    root.notes.add(first, "the loss jumps", step=3)
    root.pin(first, step=1, reason="figure")
    log = LocalJournal(path / METRICS_FILE)
    for step, loss in enumerate((3.0, 2.0, float("nan"), 1.0)):
        metrics = {"loss": loss}
        log.append(
            to_line(
                MetricRecord(exp_hash=first, step=step, created_at=root.clock(), metrics=metrics)
            )
        )
    image = pack({"weight": PackedTensor(dtype="F32", shape=(2,), data=memoryview(bytes(8)))})
    path.with_name(f"{path.name}.safetensors").write_bytes(b"".join(image.buffers))
    return root


FIRST, THIRD = hash_of(1), hash_of(3)


def run(capsys, *words):
    """Call `weightslab WORDS` in this process; returns exit code and both outputs."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return Done(code, *capsys.readouterr())
