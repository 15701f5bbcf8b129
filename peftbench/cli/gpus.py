"""`peftbench gpus`: the cards that can be named, what torch sees of their memory, and who says so."""

from __future__ import annotations

import click

from peftbench.cli.ask.format_option import format_option, show


@click.command("gpus", short_help="List the cards that can be named.")
@format_option
def gpus(format_: str) -> None:
    """List the cards that --gpu knows, with the memory that torch sees; for others there is --gpu-memory."""
    from peftbench.catalog.gpus import list_gpus
    from peftbench.report.lists.known import gpus_sheet

    known = list_gpus()
    note = (
        f"{len(known)} cards; GiB is what torch sees. "
        "Another one: --gpu-memory 14.5GiB; the one in this machine: --gpu local."
    )
    show(gpus_sheet(known, note), format_)
