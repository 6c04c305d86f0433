"""What commands print: tables for people, JSON for programs, progress on stderr when it is a terminal."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def show(rows: Sequence[Mapping[str, Any]], output: str, title: str | None = None) -> None:
    """Print rows as a table, one JSON array, or one JSON object a line."""
    if output == "json":
        print(json.dumps(list(rows), indent=2, default=str))
    elif output == "ndjson":
        for row in rows:
            print(json.dumps(row, default=str))
    else:
        _table(rows, title)


def _table(rows: Sequence[Mapping[str, Any]], title: str | None) -> None:
    table = Table(title=title, title_justify="left", header_style="bold")
    names = list(rows[0]) if rows else ["(none)"]
    for name in names:
        right = bool(rows) and all(isinstance(row.get(name), int) or _numeric(row.get(name)) for row in rows)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _numeric(value: object) -> bool:
    return isinstance(value, str) and value.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(value if isinstance(value, str) else json.dumps(value, default=str))  # a bracket is text, not a style


def say(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(text, file=sys.stderr)


class Bar:
    """Progress with rate and time left; nothing where stderr is not a terminal."""

    def __init__(self, label: str, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}/s"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._progress.add_task(label, total=total, rate="-")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, by: int) -> None:
        """So much more is done."""
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, advance=by, rate=f"{speed:,.0f}" if speed else "-")


