"""`peftbench models`, `gpus`, `doctor` and `claims`: the verbs that list what is known, and ask for nothing else."""

from __future__ import annotations

import click

from peftbench.base.errors import CatalogError
from peftbench.base.screen import say
from peftbench.cli.ask.format_option import format_option, show


@click.command("models")
@click.argument("words", nargs=-1)
@format_option
def models(words: tuple[str, ...], format_: str) -> None:
    """List the models that --model knows by name, by family; the path of any supported config.json works too.

    WORDS list those that have all of them in their names, architecture or kind: `peftbench models qwen 8b`.
    """
    from peftbench.catalog.models import list_models
    from peftbench.inputs.model.family import known_families
    from peftbench.report.lists.known import models_sheet

    known = [model for model in list_models() if all(map(model.is_called, words))]
    if not known:
        raise CatalogError(f"no model is called {' '.join(words)[:80]!r}.", "`peftbench models` lists all.")
    note = (
        f"{len(known)} checkpoints, each from the config.json at https://huggingface.co/<model>; "
        "--format csv has the other Hub ids that mean the same."
    )
    if not words:
        note += " `peftbench models qwen 8b` lists the models that have both words."
        note += f" --model also takes the path of a config.json of {', '.join(known_families())}."
    show(models_sheet(known, note, by_family=not words), format_)


@click.command("gpus")
@click.argument("words", nargs=-1)
@format_option
def gpus(words: tuple[str, ...], format_: str) -> None:
    """List the cards that --gpu knows, with the memory that torch sees; for others there is --gpu-memory.

    WORDS keep those that have all of them in their names: `peftbench gpus rtx laptop`.
    """
    from peftbench.catalog.gpus import list_gpus
    from peftbench.report.lists.known import gpus_sheet

    known = [gpu for gpu in list_gpus() if all(word.lower() in f"{gpu.name} {gpu.product}".lower() for word in words)]
    if not known:
        raise CatalogError(f"no card is called {' '.join(words)[:80]!r}.", "`peftbench gpus` lists all.")
    note = (
        f"{len(known)} cards; GiB is what torch sees. "
        "Another one: --gpu-memory 14.5GiB; the one in this machine: --gpu local."
    )
    show(gpus_sheet(known, note), format_)


@click.command("doctor")
@format_option
def doctor(format_: str) -> None:
    """Look at the libraries, the cards and this machine: what works, what is limited, what mends it.

    It changes nothing, and what is missing is no failure: the exit code is 0.
    """
    from peftbench.measure.doctor import diagnose
    from peftbench.report.lists.known import doctor_sheet

    show(doctor_sheet(diagnose()), format_)


@click.command("claims")
def claims() -> None:
    """Print common claims about memory, speed and quality as a Markdown page, with figures and a verdict on each."""
    from peftbench.check.claims.effect_claims import claims as all_claims
    from peftbench.check.speed.published_latency import leave_one_out, price_rows
    from peftbench.report.lists.claims import claims_page

    say(claims_page(all_claims(), price_rows(), leave_one_out()))
