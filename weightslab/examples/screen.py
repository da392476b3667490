"""What the example shows, drawn with rich: rules, sentences, tables, trees, small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from rich.tree import Tree

    from weightslab.engine.values import HashUpdate

__all__ = ["Screen", "percent", "short"]

WIDTH = 100  # columns; wider lines are hard to read
SHADES = " .:-=+*#%@"  # from white to black, legible in any terminal and in a file


def short(exp_hash: str) -> str:
    """Return as many digits of a hash as people look at; loads accept them too."""
    return exp_hash[:8]


def percent(share: float) -> str:
    """Return a share as people read it: 0.9812 -> 98.1 %."""
    return f"{100 * share:.1f} %"


class Screen:
    """A terminal of at most 100 columns, or a file.

    Raises: MissingExtraError without rich.
    """

    def __init__(self) -> None:
        try:
            from rich.console import Console
        except ImportError as error:
            raise MissingExtraError(
                "the example needs rich", hint="pip install 'weightslab[example]'"
            ) from error
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._console.width = min(self._console.width, WIDTH)

    def scene(self, number: int, title: str, sentence: str) -> None:
        """Begin a scene: a rule with its title, and what is about to happen."""
        from rich.text import Text

        self._console.print()
        name = Text(f"{number}  {title}", style="bold cyan")
        self._console.rule(name, align="left", style="cyan")
        self.say(sentence, style="italic")
        self._console.print()

    def say(self, text: str, *, style: str = "") -> None:
        """Print a sentence in a rich style such as `bold`."""
        self._console.print(text, style=style)

    def experiment(self, update: HashUpdate) -> None:
        """Say which experiment is current now, and what makes it differ from the one before."""
        from rich.text import Text

        line = Text.assemble("Experiment ", (update.exp_hash, "bold"), "  ")
        line.append(*(("new", "green") if update.is_new else ("known already", "yellow")))
        if update.compared_with and update.changes:
            line.append(f", compared with {short(update.compared_with)}:")
        self._console.print(line)
        for change in update.changes:
            self.say(f"  * {change.text}")

    def progress(
        self, steps: Iterator[tuple[int, float]], *, start: int, stop: int, keep: bool = False
    ) -> Iterator[tuple[int, float]]:
        """Yield from `steps` under a progress bar.

        Args:
            steps: yields (step, loss).
            start: step where training begins.
            stop: step where it ends.
            keep: leave the full bar on the screen.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("training"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        hidden = not keep and not self._console.is_terminal  # in a file it would leave empty lines
        with Progress(*columns, console=self._console, transient=not keep, disable=hidden) as bar:
            task = bar.add_task("", total=stop, completed=start, loss="")
            for step, loss in steps:
                bar.update(task, completed=step, loss=f"loss {loss:.3f}")
                yield step, loss

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Sequence[int] = ()
    ) -> None:
        """Print a table.

        Args:
            columns: titles; a column whose title begins with `>` is aligned to the right.
            rows: a text per column.
            strong: numbers of the rows that stand out.
        """
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for title in columns:
            justify: Any = "right" if title.startswith(">") else "left"
            drawn.add_column(title.lstrip(">"), justify=justify, overflow="fold")
        for number, row in enumerate(rows):
            style = "bold green" if number in strong else ""
            drawn.add_row(*(Text(cell) for cell in row), style=style)
        self._console.print(drawn)

    def config(self, config: Mapping[str, Any], indent: str = "  ") -> None:
        """Print a config, a line each."""
        for key, value in config.items():
            if isinstance(value, dict):
                self.say(f"{indent}{key}:")
                self.config(value, indent + "  ")
            else:
                self.say(f"{indent}{key}: {value}")

    def images(self, images: torch.Tensor, captions: Sequence[str]) -> None:
        """Print small grey images, float32 [n, 1, height, width], side by side with captions."""
        from rich.table import Table
        from rich.text import Text

        drawn = Table.grid(padding=(0, 4, 0, 0))
        drawn.add_row(*(Text(_picture(image[0]), style="bold") for image in images))
        drawn.add_row(*captions)
        self._console.print(drawn)

    def tree(
        self, title: str, children: Mapping[str, Sequence[str]], labels: Mapping[str, str]
    ) -> None:
        """Print what grows from the key "" of `children`; the first line of a label is its name."""
        from rich.tree import Tree

        drawn = Tree(title, guide_style="cyan")
        _grow(drawn, "", children, labels)
        self._console.print(drawn)


def _picture(pixels: torch.Tensor) -> str:
    rows = ((pixels * (len(SHADES) - 1)).round().int()).tolist()
    return "\n".join("".join(SHADES[shade] * 2 for shade in row) for row in rows)


def _grow(
    tree: Tree, node: str, children: Mapping[str, Sequence[str]], labels: Mapping[str, str]
) -> None:
    from rich.text import Text

    for child in children.get(node, ()):
        name, _, notes = labels[child].partition("\n")
        text = Text(name, style="bold")
        if notes:
            text.append(f"\n{notes}", style="not bold")
        _grow(tree.add(text), child, children, labels)
