"""`peftbench recipe`: write a plan as a training script, or as the configuration of another tool."""

from __future__ import annotations

from os.path import abspath, dirname, isfile
from typing import Any

import click

from peftbench.base.errors import SpecError
from peftbench.base.screen import say, tell
from peftbench.cli.ask.format_option import write_file
from peftbench.cli.ask.options import QUESTION, SECTIONS, SectionedCommand
from peftbench.cli.ask.plan_question import cards_of, question_of, recipes_of
from peftbench.decide.card import settle_training
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
    written = export(_name(named), training, tool)
    _check_typed(written.differences, given, tool)
    for change in written.differences:
        tell(f"{tool} does otherwise: {' '.join(change.arguments)}", label="")
    if output is None:
        say(written.text, end="")
    else:
        write_file(output, written.text, "Name another file: -o train.py.")


def _asked(given: dict[str, Any]) -> tuple[Any, Any]:
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
    settled, _ = settle_training(named.other, training, cards_of(question)[0])
    return named, settled


def _name(named: Any) -> str:
    """What from_pretrained takes: the Hub id, or the folder of the config.json."""
    return dirname(abspath(named.source)) if isfile(named.source) else str(named.name)


def _check_typed(differences: tuple[Any, ...], given: dict[str, Any], tool: str) -> None:
    """Raise SpecError for an option that was typed and that the file cannot say."""
    for change in differences:
        name = change.option.lstrip("-").replace("-", "_")
        if given.get(name) is not None and given.get(name) != ():
            what = f"a file for {tool} cannot say {change.option} {change.before}: {tool} has {change.after}."
            raise SpecError(what, f"Leave it out, or write {' '.join(change.arguments)}; --for transformers says more.")
