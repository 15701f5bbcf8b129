"""The options of `peftbench choose`, and how it reads tokens, hours and money."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import click

from peftbench.cli.ask.calibration_option import CALIBRATION
from peftbench.cli.ask.format_option import FORMAT
from peftbench.cli.ask.options import ADAPTER, COUNT, QUANTIZATION, RECIPE
from peftbench.estimate.time.constants import FRAMEWORKS
from peftbench.inputs.recipe.parallelism import STRATEGIES

SEQUENCES = 64
SETUP_TIME = "10min"
"""To start an instance, install and fetch the model. Assumed; without any, the best for a short run would be the
largest cluster, for a minute."""
_TOKENS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_HOURS = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1, "d": 24, "w": 7 * 24}
_NUMBER = re.compile(r"\$?\s*([0-9][0-9_,]*\.?[0-9]*)\s*([a-z]*)", re.IGNORECASE)


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A number above 0, or from `least` on, with one of the units; `example` is shown where it cannot be read."""

    def __init__(
        self, name: str, units: Mapping[str, float], example: str, most: float, least: float | None = None
    ) -> None:  # fmt: skip
        self.name = name
        self.units = units
        self.example = example
        self.least, self.most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the amount, or say how it is written."""
        match = _NUMBER.fullmatch(str(value).strip())
        unit = self.units.get(match[2].lower()) if match else None
        amount = float(re.sub("[_,]", "", match[1])) * unit if match and unit else math.nan
        if not (amount > 0 if self.least is None else amount >= self.least) or amount > self.most:
            lowest = "above 0" if self.least is None else f"from {self.least:g} on"
            wanted = f"{lowest}, at most {self.most:,}"
            self.fail(f"{str(value)[:40]!r} is not an amount {wanted}. Write it as in {self.example}.", param, ctx)
        return amount


MOST_HOURS = 100 * 365 * 24
TOKENS = Amount("N", _TOKENS, "50M or 1.5B", most=10**15, least=1)
HOURS = Amount("TIME", _HOURS, "12h, 90min or 2d", most=MOST_HOURS)
SETUP = Amount("TIME", {"": 1, **_HOURS}, "10min or 0", most=MOST_HOURS, least=0)
DOLLARS = Amount("USD", {"": 1, "usd": 1}, "40: US dollars, no other currency", most=10**12)


def _option(name: str, type_: Any, text: str, default: object = None) -> click.Option:
    return click.Option([name], type=type_, help=text, default=default, show_default=default is not None)


def _many(name: str, metavar: str, text: str) -> click.Option:
    return click.Option([name], multiple=True, metavar=metavar, help=f"{text}; may be repeated.")


WORK = (
    click.Option(["--model"], required=True, metavar="NAME", help="Catalogue name, size, Hub id or a config.json."),
    _option("--tokens", TOKENS, "Tokens to train on: 50M."),
    click.Option(["--dataset"], metavar="FILE", help="Count the tokens of a jsonl or text file instead."),
    _option("--epochs", COUNT, "Passes over the data.", 1),
    _many("--method", "NAME", "full, lora, qlora or another PEFT type; without it, these three are compared"),
    _option("--batch-size", COUNT, "Sequences per optimizer step, over all GPUs.", SEQUENCES),
    click.Option(["--framework"], type=click.Choice(FRAMEWORKS), default="transformers", show_default=True,
                 help="Whose kernels and launch times."),
)  # fmt: skip
HARDWARE = (
    _many("--gpu", "NAME", "Only this card"),
    _many("--own", "[Nx]NAME", "A card you own, at the price of its electricity: rtx4090, 2xrtx3090"),
    CALIBRATION,
    _option("--max-gpus", COUNT, "At most this many GPUs.", 64),
    click.Option(["--parallel"], type=click.Choice(STRATEGIES[1:-1]),
                 help="How the GPUs share the model.  [default: the fastest]"),
    click.Option(["--cpu-offload"], is_flag=True,
                 help="Keep what is sharded in the host's memory, whose size offers do not state."),
    click.Option(["--spot/--no-spot"], default=True, show_default=True, help="Include offers that can be interrupted."),
)
MONEY = (
    click.Option(["--setup"], type=SETUP, default=SETUP_TIME, show_default=True,
                 help="Time before the first step of a rented run: start, install, download."),
    _option("--budget", DOLLARS, "Spend at most this many US dollars."),
    _option("--deadline", HOURS, "Finish within this time: 12h, 2d."),
    _many("--provider", "NAME", "Only offers from this provider"),
    _option("--price", DOLLARS, "Your own price for an hour of one --gpu."),
    click.Option(["--prices"], metavar="FILE", help="Your own offers: a CSV with at least gpu,usd_per_hour."),
    click.Option(["--live-prices"], is_flag=True, help="Today's offers, from gpuhunt: needs peftbench[prices]."),
    _option("--power-price", DOLLARS, "US dollars a kWh, for cards you own.", 0.15),
    _option("--purchase-price", DOLLARS, "Price of buying one --gpu, for the break-even; list prices otherwise."),
)
ANSWER = (
    _option("--top", COUNT, "Rows of the ranking to show.", 10),
    _option("--expand", COUNT, "Show the plan and the command of this row instead of the ranking."),
    FORMAT,
)  # fmt: skip
SEARCHED = ("micro_batch_size", "gradient_accumulation_steps", "sync_each_batch", "gradient_checkpointing")
"""Options of a recipe that the answer decides."""
RECIPES = {
    "Training recipe (micro-batch, accumulation and checkpointing are chosen)": tuple(
        option for option in RECIPE if option.name not in SEARCHED
    ),
    "Adapter": ADAPTER,
    "Quantization": QUANTIZATION,
}
"""Those of `plan`."""
SECTIONS = {"What to train": WORK, "On what": HARDWARE, "For how much": MONEY, "Answer": ANSWER, **RECIPES}
