"""Which cards to rent or use for a training run: every offer that fits, with its hours and its price, ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from peftbench.base.errors import SpecError
from peftbench.catalog.prices import Offer
from peftbench.decide.asked import Build, from_options
from peftbench.decide.choose.fit import ANY_SHARING, Setup, Shape, Sharing, fastest_setup
from peftbench.estimate.time.cost import Band, Cost, cost_of, human_hours, human_usd
from peftbench.estimate.time.step import unknown_time
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.inputs.recipe.parallelism import GPUS_PER_NODE

CLUSTER_NODES = (1, 2, 4, 8)
"""Only of instances with GPUS_PER_NODE cards: smaller ones are rented without a network between them."""
MARKETPLACES = frozenset(("vast.ai",))
"""Machines of unrelated owners, which no fast network joins."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be trained, how, and on what it may run."""

    model: ModelSpec
    recipes: tuple[TrainingSpec, ...]
    """One a method; micro-batch, checkpointing and parallelism are chosen."""
    tokens: Band
    """Over all epochs."""
    sequences: int
    """In one optimizer step, over all cards: the same everywhere, so that every choice trains alike."""
    offers: tuple[Offer, ...]
    max_gpus: int
    cards: Mapping[str, GpuSpec]
    """The cards of all offers, by name; with what was measured on them, where it was."""
    build: Build = from_options
    """What makes a recipe of options, with the files that were given."""
    framework: str = "transformers"
    sharing: Sharing = ANY_SHARING
    setup_hours: float = 0.0
    """What every rented run takes before its first step."""
    budget_usd: float | None = None
    deadline_hours: float | None = None


class NothingFits(SpecError):
    """No offer has the memory for any of the recipes."""


class Choice(NamedTuple):
    """A recipe on as many instances of an offer as it takes."""

    setup: Setup
    offer: Offer
    cost: Cost

    @property
    def hours(self) -> float:
        """Expected duration."""
        return self.cost.hours.expected

    @property
    def usd(self) -> float:
        """Expected price."""
        return self.cost.usd.expected

    @property
    def method(self) -> str:
        """The name people use."""
        return self.setup.training.method

    @property
    def usd_per_hour(self) -> float:
        """The price of all instances together."""
        return self.offer.usd_per_hour * self.setup.shape.nodes


class Ranking(NamedTuple):
    """All choices from the cheapest on, and which of them a buyer looks at; every choice fits with its band."""

    choices: tuple[Choice, ...]
    cheapest: Choice
    cheapest_measured: Choice | None
    """The cheapest on a card whose speed was measured, where the cheapest of all is on another."""
    rivals: int
    """How many others may be as cheap, for their bands reach into that of the cheapest."""
    fastest: Choice
    best: Choice
    """Within budget and deadline, the best balance of both: see `balanced`."""
    front: tuple[Choice, ...]
    """Those that no other one beats in both price and time, from the cheapest to the fastest."""
    untimed: tuple[str, ...]
    """Cards with an offer that have no choice: too small, or their speed is not known."""

    def number(self, choice: Choice) -> int:
        """The place of one of the choices, from 1 on; found by identity, for equality compares whole recipes."""
        return next(place for place, each in enumerate(self.choices, 1) if each is choice)


def choose(question: Question) -> Ranking:
    """Rank every offer for every method.

    Raises NothingFits where none does, and SpecError where none is within budget and deadline.
    """
    choices = tuple(sorted(_choices(question), key=_by_price))
    if not choices:
        _check_timed(question)
        what = f"no offer fits {question.model.name} with its band on up to {question.max_gpus} GPUs."
        raise NothingFits(what, f"Try {' or '.join(_ways_out(question))}.")
    within = [choice for choice in choices if _is_within(choice, question)]
    if not within:
        raise _impossible(choices, question)
    found = {choice.setup.shape.gpu.name for choice in choices}
    measured = next((choice for choice in within if choice.setup.step.calibrated), None)
    return Ranking(
        choices=choices,
        cheapest=within[0],
        cheapest_measured=None if measured is within[0] else measured,
        rivals=sum(choice.cost.usd.low < within[0].cost.usd.high for choice in within[1:]),
        fastest=min(within, key=_by_time),
        best=balanced(tuple(pareto_front(within))),
        front=tuple(pareto_front(choices)),
        untimed=tuple(sorted({offer.gpu for offer in question.offers} - found)),
    )


def _by_price(choice: Choice) -> tuple[float, float, str, str, str, str]:
    offer = choice.offer
    return choice.usd, choice.hours, offer.gpu, offer.provider, offer.instance_type, choice.method


def _by_time(choice: Choice) -> tuple[float, float, str, str, str, str]:
    usd, hours, *rest = _by_price(choice)
    return (hours, usd, *rest)  # type: ignore[return-value]


def pareto_front(choices: Sequence[Choice]) -> Iterator[Choice]:
    """Each choice that is faster than all cheaper ones; `choices` are sorted by price."""
    fastest = float("inf")
    for choice in choices:
        if choice.hours < fastest:
            fastest = choice.hours
            yield choice


def balanced(front: Sequence[Choice]) -> Choice:
    """The one of a front that is nearest to its lowest price and its shortest time, on logarithmic scales.

    Each scale runs from 0 at the best of the front to 1 at its worst; the smallest sum wins. Price × time would not
    do: twice the cards halve the time at nearly the same price, so it always ends at the largest cluster.
    """
    prices, times = ([math.log(choice.usd) for choice in front], [math.log(choice.hours) for choice in front])
    sums = [price + time for price, time in zip(_scaled(prices), _scaled(times), strict=True)]
    return front[min(range(len(front)), key=sums.__getitem__)]


def _scaled(values: Sequence[float]) -> list[float]:
    least, most = min(values), max(values)
    return [(value - least) / (most - least) if most > least else 0.0 for value in values]


# ── all choices ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _choices(question: Question) -> Iterator[Choice]:
    """The fastest recipe of each method on each offer; offers of the same cards share the search."""
    setups: dict[tuple[str, int, int], list[Setup]] = {}
    for offer in question.offers:
        for nodes in _nodes(offer, question.max_gpus):
            key = (offer.gpu, offer.gpu_count * nodes, nodes)
            if key not in setups:
                setups[key] = list(setups_on(Shape(question.cards[offer.gpu], *key[1:]), question, question.sharing))
            yield from (_choice(question, setup, offer) for setup in setups[key])


def _nodes(offer: Offer, max_gpus: int) -> Iterable[int]:
    if offer.kind == "own":
        return (1,)
    joined = offer.gpu_count == GPUS_PER_NODE and offer.provider not in MARKETPLACES
    counts = CLUSTER_NODES if joined else (1,)
    return [nodes for nodes in counts if nodes * offer.gpu_count <= max_gpus]


def setups_on(shape: Shape, question: Question, sharing: Sharing) -> Iterator[Setup]:
    """The fastest setup of each recipe on these cards, of those that fit."""
    for recipe in question.recipes:
        try:
            setup = fastest_setup(question.model, recipe, shape, question.sequences, question.framework, sharing)
        except SpecError:  # flash attention on a T4, or a strategy that cannot offload
            continue
        if setup:
            yield setup


def _choice(question: Question, setup: Setup, offer: Offer) -> Choice:
    step = setup.step
    rate = Band(step.tokens_per_s, step.tokens_per_s_low, step.tokens_per_s_high)
    waits = 0.0 if offer.kind == "own" else question.setup_hours
    return Choice(setup, offer, cost_of(question.tokens, rate, offer.usd_per_hour * setup.shape.nodes, waits))


# ── budget and deadline ─────────────────────────────────────────────────────────────────────────────────────────────


def _is_within(choice: Choice, question: Question) -> bool:
    affordable = question.budget_usd is None or choice.usd <= question.budget_usd
    return affordable and (question.deadline_hours is None or choice.hours <= question.deadline_hours)


def _check_timed(question: Question) -> None:
    """Raise SpecError where no step is timed, whatever it needs."""
    why = [unknown_time(recipe, card) for card in question.cards.values() for recipe in question.recipes]
    if why and all(why):
        raise SpecError(f"how long a step takes is not known: {why[0]}.", "Choose other cards, or another --dtype.")


def _ways_out(question: Question) -> Iterator[str]:
    """What to type where nothing fits."""
    largest = GPUS_PER_NODE * CLUSTER_NODES[-1]
    if question.max_gpus < largest:
        yield f"--max-gpus {largest}"
    if not any(recipe.quantization for recipe in question.recipes):
        yield "--method qlora"
    if not question.sharing.cpu_offload:
        yield "--cpu-offload"
    if any(question.sequences % offer.gpu_count for offer in question.offers):
        yield f"a --batch-size that {max(offer.gpu_count for offer in question.offers)} GPUs can share"
    yield "a shorter --sequence-length"


OTHERS = "allow other cards and methods"


def _impossible(choices: Sequence[Choice], question: Question) -> SpecError:
    """What is the nearest possible: the cheapest in time, or the fastest for the money."""
    budget, deadline = question.budget_usd, question.deadline_hours
    affordable = [c for c in choices if budget is None or c.usd <= budget]
    in_time = [c for c in choices if deadline is None or c.hours <= deadline]
    if not affordable:
        what = f"nothing is within ${human_usd(budget or 0)}: the cheapest is {_worded(choices[0])}."
        return SpecError(what, f"Raise {_limits(choices[0], choices[0] not in in_time)}, or {OTHERS}.")
    if not in_time:
        fastest = min(affordable, key=_by_time)
        where = "the fastest" if budget is None else "within the budget, the fastest"
        what = f"nothing is within {human_hours(deadline or 0)}: {where} is {_worded(fastest)}."
        return SpecError(what, f"Raise {_deadline(fastest)}, or {OTHERS}.")
    cheapest, fastest = in_time[0], min(affordable, key=_by_time)
    return SpecError(
        f"nothing is within ${human_usd(budget or 0)} and {human_hours(deadline or 0)}: in time, the cheapest is "
        f"{_worded(cheapest)}; within the budget, the fastest is {_worded(fastest)}.",
        f"Raise {_budget(cheapest)} or {_deadline(fastest)}.",
    )


def _limits(choice: Choice, too_slow: bool) -> str:
    return f"{_budget(choice)} and {_deadline(choice)}" if too_slow else _budget(choice)


def _budget(choice: Choice) -> str:
    """The least budget in cents that the choice is within."""
    return f"--budget to {math.ceil(100 * choice.usd) / 100:.2f}"


def _deadline(choice: Choice) -> str:
    """The least deadline in minutes that the choice is within."""
    return f"--deadline to {math.ceil(60 * choice.hours)}min"


def _worded(choice: Choice) -> str:
    shape = choice.setup.shape
    cards = f"{shape.gpus} × {shape.gpu.name}" if shape.gpus > 1 else shape.gpu.name
    cost = f"${human_usd(choice.usd)} and {human_hours(choice.hours)}"
    return f"{cost} ({choice.method} on {cards}, {choice.offer.provider})"
