"""`peftbench models`: the checkpoints that can be named, and where their sizes come from."""

from __future__ import annotations

import click

from peftbench.cli.ask.format_option import format_option, show


@click.command("models", short_help="List the models that can be named.")
@format_option
def models(format_: str) -> None:
    """List the models that --model knows by name; the path of any supported config.json works too."""
    from peftbench.catalog.models import list_models
    from peftbench.inputs.model.architectures.families import FAMILIES
    from peftbench.report.lists.known import models_sheet

    known = list_models()
    note = (
        f"{len(known)} checkpoints, each from the config.json at https://huggingface.co/<model>; "
        "--format csv has the other Hub ids that mean the same. "
        f"--model also takes the path of a config.json of {', '.join(FAMILIES)}."
    )
    show(models_sheet(known, note), format_)
