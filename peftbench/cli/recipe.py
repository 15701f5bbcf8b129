"""`peftbench recipe`: write a plan as a training script, or as the configuration of another tool."""

from __future__ import annotations

from contextlib import suppress
from os.path import abspath, basename, dirname, isfile
from typing import Any

import click

from peftbench.base.errors import NoFormula, SpecError
from peftbench.base.screen import say, tell
from peftbench.catalog.models import NamedConfig
from peftbench.cli.ask.format_option import write_file
from peftbench.cli.ask.options import QUESTION, SECTIONS, SectionedCommand
from peftbench.cli.ask.plan_question import cards_of, question_of, recipes_of
from peftbench.decide.card import settle_training
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import TrainingSpec
from peftbench.recipes.export import TOOLS, export

_ASKED = ("model", "method", "gpu", "from_files")
_WRITE = (
    click.Option(
        ["--for", "tool"], type=click.Choice(TOOLS), default="transformers", show_default=True,
        help="Whose file to write: a script for transformers, a configuration for the others.",
    ),
    click.Option(["-o", "--output"], metavar="FILE", help="Where to write it; to the terminal if left out."),
)  # fmt: skip
_OPTIONS = {
    "Question": tuple(option for option in QUESTION if option.name in _ASKED),
    **{name: SECTIONS[name] for name in ("Training recipe", "Several GPUs", "Adapter", "Quantization")},
    "File": _WRITE,
}


@click.command("recipe", cls=SectionedCommand, sections=_OPTIONS)
def recipe(tool: str, output: str | None, **given: Any) -> None:
    """Write a plan as a script that trains with transformers and PEFT, or as another tool's configuration.

    \b
      peftbench recipe --model 8b --method qlora -o train.py
      peftbench recipe --model 8b --method qlora --for axolotl -o axolotl.yml
      peftbench plan --from axolotl.yml --gpu rtx4090      reads it back
      peftbench recipe --from axolotl.yml --for trl        the same in another tool's words

    Where the tool does something else than the plan, an option that was typed is refused; one that was not is taken
    from the tool, and the file says so.
    """
    named, training = _asked(given)
    written = export(_name(named), training, tool, output)
    _check_typed(written.differences, given, tool)
    for change in written.differences:
        tell(f"{tool} does otherwise: {' '.join(change.arguments)}", label="")
    if output is None:
        say(written.text, end="")
    else:
        write_file(output, written.text, "Name another file: -o train.py.")


def _asked(given: dict[str, Any]) -> tuple[NamedConfig, TrainingSpec]:
    """The model and the one recipe, settled for the card where one is named."""
    question = {**given, "task": "training", "dry_run": False, "gpu_memory": None, "no_gpu": not given["gpu"]}
    question |= {"explain": None, "calibration": "none", "reading": None}
    if not (question["method"] or question["from_files"] or question["adapter_config"]):
        question["method"] = ("lora",)
    if given["gpus"] == "auto" or len(given["method"]) > 1 or len(given["gpu"]) > 1:
        raise SpecError("a recipe is one method on one card.", "Name one --method, one --gpu, a number of --gpus.")
    named, question = question_of(question)
    (training,) = recipes_of(named.other, question)
    assert isinstance(training, TrainingSpec)
    card = cards_of(question)[0]
    settled, notes = settle_training(named.other, training, card)
    for note in (*(question["reading"].notes if question["reading"] else ()), *notes):
        tell(note, label="")
    with suppress(NoFormula):  # what the libraries refuse is refused here, not by whoever runs the file
        estimate_training(named.spec, settled, card)
    return named, settled


def _name(named: NamedConfig) -> str:
    """What from_pretrained takes: the Hub id, or the folder of the config.json. Raises SpecError for another file."""
    if not isfile(named.source):
        return named.name
    if basename(named.source) != "config.json":
        what = f"{named.source} is not named config.json, and libraries load no other file."
        raise SpecError(what, "Put it into a folder of its own as config.json, and name that.")
    return dirname(abspath(named.source))


def _check_typed(differences: tuple[Any, ...], given: dict[str, Any], tool: str) -> None:
    """Raise SpecError for an option that was typed and that the file cannot say."""
    for change in differences:
        name = change.option.lstrip("-").replace("-", "_")
        if given.get(name) is not None and given.get(name) != ():
            what = f"a file for {tool} cannot say {change.option} {change.before}: {tool} has {change.after}."
            more = "" if tool == "transformers" else "; --for transformers says more"
            raise SpecError(what, f"Leave it out, or write {' '.join(change.arguments)}{more}.")
