"""How `models` and `gpus` write a list: the option --format and the four ways to answer it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from peftbench.cli.ask.options import FORMATS

if TYPE_CHECKING:
    from peftbench.report.format.table import Table

format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="terminal",
    show_default=True,
    help="How to write the list.",
)


def write(table: Table, data: list[dict[str, object]], note: str, format_: str) -> None:
    """Print a list; `note` is a last line for the terminal."""
    if format_ == "json":
        import json

        click.echo(json.dumps(data, indent=2))
    elif format_ == "csv":
        from peftbench.report.format.csv import render_table

        click.echo(render_table(table))
    elif format_ == "markdown":
        from peftbench.report.format.markdown import render as render_markdown

        click.echo(render_markdown(table))
    else:
        from peftbench.report.format.terminal import encodable, labelled, render, terminal_width

        width = terminal_width()
        text = f"{render(table, width, indent='')}\n\n{labelled('note', note, width)}"
        click.echo(encodable(text, getattr(sys.stdout, "encoding", None)))
