"""`peftbench gpus`: the cards that can be named, what torch sees of their memory, and who says so."""

from __future__ import annotations

import click

from peftbench.cli.answer.lists import format_option, write


@click.command("gpus", short_help="List the cards that can be named.")
@format_option
def gpus(format_: str) -> None:
    """List the cards that --gpu knows, with the memory that torch sees; for others there is --gpu-memory."""
    from peftbench.catalog.gpus import list_gpus
    from peftbench.report.lists.catalogue import gpus_data, gpus_table

    known = list_gpus()
    note = (
        f"{len(known)} cards; GiB is what torch sees. "
        "Another one: --gpu-memory 14.5GiB; the one in this machine: --gpu local."
    )
    write(gpus_table(known), gpus_data(known), note, format_)
