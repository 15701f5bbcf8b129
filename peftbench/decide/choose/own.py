"""What it takes to use the cards one owns, and when a card that is rented would be cheaper to buy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from peftbench.base.errors import CatalogError, SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.prices import Offer, purchase_usd
from peftbench.decide.asked import Asked
from peftbench.decide.card import settle_training
from peftbench.decide.choose.fit import SHARDED, Setup, Shape, Sharing
from peftbench.decide.choose.ranking import Choice, Question, setups_on
from peftbench.decide.plan.advice import Change, suggest
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.time.cost import break_even_hours, power_usd_per_hour
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec

OWN = "your own"


class OwnAnswer(NamedTuple):
    """How an owned card can be used: as it is, by a change, or not at all."""

    shape: Shape
    choice: Choice | None
    """The fastest that fits as asked."""
    start: TrainingSpec | None
    """Where nothing fits: the recipe that is nearest to it."""
    change: Change | None
    """… and the smallest change that makes it fit; None where there is none."""
    offloaded: Setup | None = None
    """… and the fastest with the host's memory, which leaves the result as it is."""
    start_fits: bool = False
    """It has the memory, and only the speed of the card is not known."""


class BreakEven(NamedTuple):
    """A card to rent or to buy."""

    gpu: str
    purchase_usd: float
    rent: Offer
    """The cheapest offer of it."""
    power_usd_per_hour: float
    hours: float | None
    """Hours of use after which it would have been cheaper to buy; None: never."""


def own_offer(gpu: str, count: int, usd_per_kwh: float) -> Offer:
    """Cards that cost their electricity; raises CatalogError where nothing says how much they draw."""
    watts = find_gpu(gpu).power_w
    if watts is None:
        raise CatalogError(f"how much power a {gpu} draws is not known.", "Name its price by --gpu and --price.")
    return Offer(
        provider=OWN, gpu=gpu, gpu_count=count, instance_type="own", kind="own",
        usd_per_hour=power_usd_per_hour(count * watts, usd_per_kwh),
        source=f"{watts:g} W a card, ${usd_per_kwh:g} a kWh",
    )  # fmt: skip


def own_answer(question: Question, own: Offer, choices: Sequence[Choice]) -> OwnAnswer:
    """The fastest choice on these cards; where there is none, what the recipe nearest to fitting has to change."""
    shape = Shape(question.cards[own.gpu], own.gpu_count, 1)
    fitting = [choice for choice in choices if choice.offer == own]
    if fitting:
        return OwnAnswer(shape, min(fitting, key=lambda choice: choice.hours), None, None)
    start = min(_starts(question.recipes, shape, question), key=lambda each: each[0], default=None)
    with_host = setups_on(shape, question, Sharing(question.sharing.strategy, cpu_offload=True))
    offloaded = max(with_host, key=lambda setup: setup.step.tokens_per_s, default=None)
    if start is None:
        return OwnAnswer(shape, None, None, None, offloaded)
    _, _, recipe, fits = start
    changes = suggest(question.model, recipe, shape.gpu, Asked(recipe.method, {}, question.build))
    return OwnAnswer(shape, None, recipe, next((c for c in changes if c.fit is Fit.FITS), None), offloaded, fits)


def _starts(
    recipes: Iterable[TrainingSpec], shape: Shape, question: Question
) -> Iterable[tuple[int, int, TrainingSpec, bool]]:
    """Each method in the way that needs the least: one sequence at a time, checkpointed, and shared among the cards."""
    shared = ParallelismSpec(gpus=shape.gpus, strategy=SHARDED if shape.gpus > 1 else "none")
    for number, recipe in enumerate(recipes):
        passes = max(1, question.sequences // shape.gpus)
        small = replace(
            recipe, micro_batch_size=1, gradient_accumulation_steps=passes, gradient_checkpointing=True,
            parallelism=shared,
        )  # fmt: skip
        try:
            settled, _ = settle_training(question.model, small, shape.gpu)
            verdict = judge(estimate_training(question.model, settled, shape.gpu), shape.gpu)
        except SpecError:
            continue
        yield verdict.high_bytes, number, settled, verdict.fit is Fit.FITS


def break_evens(choices: Iterable[Choice], usd_per_kwh: float, paid_usd: float | None = None) -> list[BreakEven]:
    """One a card that can be both rented on demand and bought; `paid_usd` is what the user would pay for one."""
    rents: dict[str, Offer] = {}
    for offer in (choice.offer for choice in choices if choice.offer.kind == "on-demand"):
        known = rents.setdefault(offer.gpu, offer)
        rents[offer.gpu] = min(known, offer, key=lambda each: each.usd_per_gpu_hour)
    found = (_break_even(offer, usd_per_kwh, paid_usd) for offer in rents.values())
    return sorted((each for each in found if each), key=lambda each: each.gpu)


def _break_even(rent: Offer, usd_per_kwh: float, paid_usd: float | None) -> BreakEven | None:
    bought, watts = paid_usd or purchase_usd(rent.gpu), find_gpu(rent.gpu).power_w
    if bought is None or watts is None:
        return None
    power = power_usd_per_hour(watts, usd_per_kwh)
    return BreakEven(rent.gpu, bought, rent, power, break_even_hours(bought, rent.usd_per_gpu_hour, power))
