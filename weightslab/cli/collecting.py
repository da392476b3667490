"""`weightslab gc`: drops checkpoints by what is to be kept."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final, Optional

import typer

from weightslab.cli import render
from weightslab.cli.arguments import DryRunOption, JsonOption, RootOption, YesOption
from weightslab.cli.listing import reference_of
from weightslab.cli.roots import open_root
from weightslab.cli.tables import Column
from weightslab.cli.texts import counted, inert, number, size

if TYPE_CHECKING:
    from weightslab.engine.collecting.report import GcReport
    from weightslab.engine.retention.policies import RetentionPolicy
    from weightslab.engine.retention.rules import Retention

__all__ = ["gc"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGTP]?)(i?)B?", re.IGNORECASE)
_COLUMNS: Final = (
    Column("", rank=0),
    Column("CHECKPOINT", least=8, has_mark=False),
    Column("FREES", is_right=True, rank=1),
    Column("WHY", least=10),
)
_MAX_LINES: Final = 200


def gc(
    latest: Annotated[
        Optional[int],
        typer.Option("--latest", min=1, help="Keep the newest N of each experiment."),
    ] = None,
    best: Annotated[
        Optional[list[str]],
        typer.Option(
            "--best", metavar="METRIC[:max]", help="Keep the best by a metric; may be repeated."
        ),
    ] = None,
    every: Annotated[
        Optional[int],
        typer.Option("--every", min=1, help="Keep one of every N steps."),
    ] = None,
    training: Annotated[
        Optional[int],
        typer.Option(
            "--training", min=0, help="Of what is kept, only the newest N keep optimizers."
        ),
    ] = None,
    max_size: Annotated[
        Optional[str],
        typer.Option("--max-size", metavar="SIZE", help="At most so much an experiment: 20GB."),
    ] = None,
    trash_days: Annotated[
        Optional[float],
        typer.Option("--trash-days", min=0, help="How long what was dropped can be restored."),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop checkpoints that nothing says to keep; they go to the trash.

    Without any option about what to keep, everything is kept, and only the trash is emptied of what has
    been there for 7 days. Never dropped: the newest of each experiment, pinned ones, branch points.

    \b
    Examples:
      weightslab gc --latest 3 --best loss --dry-run
      weightslab gc --latest 3 --best accuracy:max --yes
      weightslab gc --max-size 20GB
      weightslab gc --trash-days 0 --yes
    """
    opened = open_root(root, write=not dry_run)
    policy = _retention(latest, best or [], every, training, max_size, trash_days)
    with render.waiting("looking at what can go"):
        report = opened.gc(policy, dry_run=True)
    if not dry_run:
        question = _question(report)
        if not as_json:
            _show(report)
        if not render.confirm(question, yes=yes):
            raise typer.Exit(1)
        with render.waiting("dropping checkpoints"):
            report = opened.gc(policy)
    if as_json:
        render.show_json("gc", {"root": str(opened.path), **report.to_dict()})
    elif dry_run:
        _show(report)
        render.say(_summary(report))
    else:
        render.say(_summary(report))
    if report.problems and not as_json:
        for problem in report.problems:
            render.warn(problem)


def _retention(
    latest: int | None,
    best: list[str],
    every: int | None,
    training: int | None,
    max_size: str | None,
    trash_days: float | None,
) -> Retention:
    from weightslab.engine.retention.policies import (
        AnyOf,
        BestN,
        ByteBudget,
        EveryNSteps,
        LatestN,
        PreserveAll,
    )
    from weightslab.engine.retention.rules import TRASH_LIFETIME, Retention

    kept: list[RetentionPolicy] = [LatestN(latest)] if latest is not None else []
    for told in best:
        metric, _, mode = (
            told.rpartition(":") if told.endswith((":min", ":max")) else (told, "", "min")
        )
        kept.append(BestN(metric, 1, mode))
    if every is not None:
        kept.append(EveryNSteps(every))
    lifetime = TRASH_LIFETIME if trash_days is None else timedelta(days=trash_days)
    return Retention(
        keep=AnyOf(*kept) if kept else PreserveAll(),
        training=PreserveAll() if training is None else LatestN(max(training, 1)),
        budget=None if max_size is None else ByteBudget(bytes_of(max_size)),
        trash_lifetime=lifetime,
    )


def bytes_of(text: str) -> int:
    """Return the bytes that `20GB`, `1.5 TB` or `512MiB` stand for.

    Raises: ValueError for other texts.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r:.40} is no size such as 20GB, 1.5TB or 512MiB")
    amount, unit, binary = found.groups()
    return int(float(amount) * (1024 if binary else 1000) ** " KMGTP".index(unit.upper() or " "))


def _question(report: GcReport) -> str:
    """Return what has to be agreed to."""
    words = []
    if report.dropped:
        words.append(f"move {counted(len(report.dropped), 'checkpoint')} to the trash")
    if report.thinned:
        words.append(f"delete the training state of {number(len(report.thinned))}")
    if report.emptied:
        words.append(f"delete {number(len(report.emptied))} in the trash for good")
    return f"{' and '.join(words) or 'tidy up'}?"


def _show(report: GcReport) -> None:
    changed = [d for d in report.decisions if d.action in ("drop", "thin")]
    rows = [
        [
            decision.action,
            reference_of(decision.name.exp_hash, decision.name.step, decision.name.revision),
            size(decision.freed_bytes),
            inert(decision.reason),
        ]
        for decision in changed[:_MAX_LINES]
    ]
    if rows:
        render.say_table(_COLUMNS, rows)
    if len(changed) > len(rows):
        render.note(f"and {len(changed) - len(rows):,} more")


def _summary(report: GcReport) -> str:
    would = "would be " if report.dry_run else ""
    words = [
        f"{counted(len(report.dropped), 'checkpoint')} {would}dropped",
        f"{number(len(report.thinned))} thinned",
        f"{number(len(report.kept))} kept",
        f"{size(report.freed_bytes)} {would}freed",
    ]
    if report.emptied:
        words.append(f"{number(len(report.emptied))} {would}deleted from the trash")
    return ", ".join(words)
