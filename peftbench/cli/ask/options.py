"""The options of `peftbench plan`, in the sections in which its help shows them.

An option that was not given is None, so that the specs' own defaults apply and an option that belongs to none
of the chosen methods can be refused rather than ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from peftbench.base.units import LONGEST_S, SHORTEST_S
from peftbench.cli.ask.calibration_option import CALIBRATION
from peftbench.cli.ask.format_option import FORMAT
from peftbench.estimate.time.constants import FRAMEWORKS
from peftbench.inputs.recipe import AdapterSpec, InferenceSpec, ParallelismSpec, QuantizationSpec, TrainingSpec
from peftbench.inputs.recipe.inference import ADAPTER_KIND
from peftbench.inputs.recipe.option import MOST, Option, in_order, options_of
from peftbench.inputs.recipe.parallelism import MAX_GPUS
from peftbench.inputs.recipe.training import TASK_TYPES

MAXIMA = ("sequence-length", "micro-batch-size")


class Number(click.ParamType):  # type: ignore[type-arg]
    """A finite number from `least` to `most`."""

    name = "FLOAT"
    kind: type[int] | type[float] = float
    wanted = "a number"
    otherwise = ""
    """What may be given instead of a number."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number, or say which ones are meant."""
        try:
            number = self.kind(value)
        except ValueError:
            number = math.nan
        if not self.least <= number <= self.most:
            wanted = f"{self.wanted} from {self.least:,} to {self.most:,}{self.otherwise}"
            self.fail(f"{str(value)[:40]!r} is not {wanted}.", param, ctx)
        return number


class Count(Number):
    """A whole number; help shows it as N."""

    name = "N"
    kind = int
    wanted = "a whole number"

    def __init__(self, least: int = 1, most: int = MOST) -> None:
        super().__init__(least, most)


class Seconds(Number):
    """A time limit."""

    name = "SECONDS"
    wanted = "a number of seconds"
    otherwise = ", a week"

    def __init__(self) -> None:
        super().__init__(SHORTEST_S, LONGEST_S)


LINE = 76
"""Characters that a list of choices has beside its option in help."""
COUNT = Count()
SECONDS = Seconds()


class GpuCount(Count):
    """A whole number, or `auto`, which is None of them until the card is known."""

    name = "N|auto"
    otherwise = ", or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number or the word."""
        return value if value == "auto" else super().convert(value, param, ctx)


def _option(name: str, type_: Any, text: str, default: object = None) -> click.Option:
    """An option with a value; `default` is only shown, the spec applies it."""
    return click.Option([name], type=type_, help=_with_default(text, default))


def _choice(name: str, values: tuple[str, ...], text: str, default: object = None) -> click.Option:
    return click.Option([name], type=click.Choice(values), help=_with_default(text, default))


def _many(name: str, text: str, metavar: str) -> click.Option:
    return click.Option([name], multiple=True, metavar=metavar, help=f"{text}; may be repeated.")


def _with_default(text: str, default: object) -> str:
    return text if default is None else f"{text}  [default: {default}]"


QUESTION = (
    click.Option(["--model"], metavar="NAME", help="Catalogue name, size (8b), Hub id, or the path of a config.json."),
    click.Option(
        ["--from", "from_files"], multiple=True, metavar="FILE",
        help="An axolotl, LLaMA-Factory, TRL or Trainer configuration, and the files that go with it; may be repeated.",
    ),
    _many("--gpu", "Card, or `local` for the one in this machine; without it, all cards are compared", "NAME"),
    click.Option(["--gpu-memory"], metavar="SIZE", help="A card of this size, as torch sees it: 14.5GiB."),
    click.Option(["--no-gpu"], is_flag=True, help="Show the memory alone, without a verdict."),
    CALIBRATION,
    _many("--method", "full, lora, qlora, or another PEFT type, with q in front for a quantized base; "
                      "without it, full, lora and qlora are compared", "NAME"),
    click.Option(["--task"], type=click.Choice(("training", "inference")), default="training", show_default=True,
                 help="What runs on the card."),
)  # fmt: skip


def _param(option: Option) -> click.Option:
    """A recipe's option. It has no default for click: the spec applies it, and help shows it."""
    pair = option.kind is bool and not option.alone and not option.choices
    switch = f"{option.flag}/{option.flag.replace('--', '--no-', 1)}" if pair else option.flag
    return click.Option([switch], help=_help(option), **_value(option))


def _value(option: Option) -> dict[str, Any]:
    """What click needs to know of the values."""
    if option.kind is dict:
        return {"multiple": True, "metavar": "NAME=VALUE"}
    if option.kind is bool and not option.choices:
        return {"default": None, "is_flag": True}
    if option.name == "gpus":
        return {"type": GpuCount(most=MAX_GPUS)}
    if option.kind is int:
        return {"type": Count(1 if option.least is None else option.least, option.most or MOST)}
    if option.kind is float:
        return {"type": Number(option.least or 0, option.below or option.most or MOST)}
    if option.choices and option.kind is not tuple:
        words = [word for word in option.choices if word != option.unset]
        listed = len("|".join(words)) < LINE  # else click would write them all in one line
        return {"type": click.Choice(words), "metavar": None if listed else "NAME"}
    return {"type": click.STRING}


def _help(option: Option) -> str:
    """The text, and what applies where the option is left out."""
    if option.kind is dict:
        return f"{option.help.rstrip('.')}; may be repeated."
    if option.kind is bool and option.alone:
        return option.help
    switched = "on" if option.default else "off"
    shown = switched if option.kind is bool and not option.choices else option.flat(option.default)
    return _with_default(option.help, shown if option.default_text is None else option.default_text)


def _params(*options: Option) -> tuple[click.Option, ...]:
    """In the order of their declarations, save for those that say which one they follow."""
    return tuple(_param(option) for option in in_order(options) if option.typed)


RECIPE = _params(*options_of(TrainingSpec))
SEVERAL_GPUS = _params(*options_of(ParallelismSpec))
ADAPTER = (
    *_params(*options_of(AdapterSpec)),
    click.Option(["--adapter-config"], metavar="FILE", help="The adapter_config.json that PEFT wrote."),
)
QUANTIZATION = _params(*options_of(QuantizationSpec))
_SHARED = {option.name for option in options_of(TrainingSpec)}
INFERENCE = _params(*(each for each in options_of(InferenceSpec) if each.name not in _SHARED), ADAPTER_KIND)

DRY_RUN = (
    click.Option(
        ["--dry-run"], is_flag=True,
        help="Also run the real step on fake tensors: needs peftbench[bench], takes seconds.",
    ),
    click.Option(["--batch-lengths"], metavar="N,N,…", help="Length of each step's batch: 696,610,…"),
    _option("--torch-empty-cache-steps", COUNT, "Call torch.cuda.empty_cache() every N steps.", "never"),
    click.Option(["--alloc-conf"], metavar="TEXT", help="PYTORCH_ALLOC_CONF, as in expandable_segments:True."),
    click.Option(["--extrapolate"], is_flag=True, help="Run a few layers and extrapolate: allocated memory only."),
    click.Option(
        ["--dry-run-device"], type=click.Choice(("cuda", "cpu")), default="cuda", show_default=True,
        help="Device of the fake tensors; cpu where fake CUDA fails.",
    ),
    _option("--timeout", SECONDS, "End a run that gives no sign of life for so long.", "600"),
    click.Option(["--no-cache"], is_flag=True, help="Run again instead of using an earlier result."),
)  # fmt: skip

TASK = (
    click.Option(["--task-type"], type=click.Choice(TASK_TYPES), metavar="NAME",
                 help=f"PEFT's task_type: {', '.join(TASK_TYPES)}.  [default: as the config.json's architectures]"),
    _option("--num-labels", COUNT, "Classes of seq-cls and token-cls.", "2"),
    _option("--target-length", COUNT, "Tokens of the target of seq-2-seq-lm.", "--sequence-length"),
    _option("--audio-seconds", Number(0, 86400), "Length of each sample's recording, where a model hears.", "30"),
)  # fmt: skip
"""Options of models that are dry-run: no formula has them."""

CHECKED = ("fits", "tight", "risky")
"""Words that --check accepts; without one, those of runs that more likely come through than not."""

ANSWER = (
    _choice("--max", MAXIMA, "Find the largest value of this option that fits."),
    click.Option(["--explain"], metavar="PART", help='Show how a part is worked out: "logits and loss", time …'),
    _choice("--framework", FRAMEWORKS, "Whose kernels and launch times a step has.", FRAMEWORKS[0]),
    click.Option(
        ["--check"], type=click.Choice(CHECKED), is_flag=False, flag_value=CHECKED[1], metavar="[WORD]",
        help=f"Exit with 1 unless a plan has this word or a better one: {', '.join(CHECKED)}.  [without a word: "
             f"{CHECKED[1]}]",
    ),
    FORMAT,
)

SECTIONS = {
    "Question": QUESTION, "Training recipe": RECIPE, "Several GPUs": SEVERAL_GPUS, "Adapter": ADAPTER,
    "Quantization": QUANTIZATION, "Inference": INFERENCE, "Task": TASK, "Dry run": DRY_RUN, "Answer": ANSWER,
}  # fmt: skip


class SectionedCommand(click.Command):
    """A command with the options of some sections, whose help groups them under their headings."""

    def __init__(
        self, name: str, *, sections: Mapping[str, tuple[click.Option, ...]], params: None = None, **settings: Any
    ) -> None:  # fmt: skip
        super().__init__(name, params=[option for options in sections.values() for option in options], **settings)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section, and the options of none (--help) at the end."""
        shown = {id(option) for options in self.sections.values() for option in options}
        rest = tuple(p for p in self.get_params(ctx) if id(p) not in shown)
        for heading, options in {**self.sections, "Other": rest}.items():
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(heading):
                formatter.write_dl(records)
