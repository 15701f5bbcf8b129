"""The rows and sentences of a ranking of hardware, for every format alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from peftbench.decide.choose import Choice, Question, Ranking
from peftbench.decide.choose_command import plan_command
from peftbench.decide.choose_own import BreakEven, OwnAnswer
from peftbench.estimate.cost import Band
from peftbench.report.table import UNKNOWN, Table
from peftbench.units import human_bytes, human_count

HEADINGS = ("#", "cards", "method", "batch", "time", "USD", "offer", "price of")
HOURS_OF_DAYS = 100
"""From here on a time is told in days."""
COLUMNS = (
    "number", "gpu", "gpus", "nodes", "strategy", "method", "micro_batch_size", "gradient_accumulation_steps",
    "gradient_checkpointing", "hours", "hours_low", "hours_high", "usd", "usd_low", "usd_high", "usd_per_hour",
    "tokens_per_s", "calibrated", "required_bytes", "high_bytes", "usable_bytes", "provider", "instance_type", "kind",
    "region", "date", "source", "on_front",
)  # fmt: skip
"""Of the CSV; new ones come at the end."""


class Answer(NamedTuple):
    """Everything that `choose` found."""

    question: Question
    typed: str
    """The model as it was named."""
    ranking: Ranking
    how: str
    """Where the number of tokens comes from."""
    owned: tuple[OwnAnswer, ...]
    break_evens: tuple[BreakEven, ...]
    usd_per_kwh: float
    today: date


def ranked(answer: Answer, most: int) -> Table:
    """The cheapest, as many as wanted."""
    choices = answer.ranking.choices[:most]
    title = f"Ranking: the cheapest {len(choices)} of {len(answer.ranking.choices)}"
    return _table(title, answer.ranking, choices)


def picks(answer: Answer) -> Table:
    """What a buyer looks at first: cheapest, fastest and best."""
    ranking = answer.ranking
    named = (("cheapest", ranking.cheapest), ("fastest", ranking.fastest), ("best", ranking.best))
    rows = [(name, *_row(ranking, choice)) for name, choice in named]
    return Table(f"Within {limits(answer.question)}", ("", *HEADINGS), rows, "lrllrrrll")


def front(answer: Answer) -> Table:
    """The choices that no other one beats in both price and time."""
    return _table("Nothing is both cheaper and faster than these", answer.ranking, answer.ranking.front)


def limits(question: Question) -> str:
    """Budget and deadline in words."""
    budget = f"${question.budget_usd:,.2f}" if question.budget_usd else "any budget"
    return f"{budget} and {question.deadline_hours:g} h" if question.deadline_hours else f"{budget} and any time"


def _table(title: str, ranking: Ranking, choices: Iterable[Choice]) -> Table:
    return Table(title, HEADINGS, [_row(ranking, choice) for choice in choices], "rllrrrll")


def _row(ranking: Ranking, choice: Choice) -> tuple[str, ...]:
    training, mark = choice.setup.training, "" if choice.setup.step.calibrated else " *"
    recomputed = "" if training.gradient_checkpointing else "¹"
    return (
        str(ranking.number(choice)), cards(choice), choice.method, f"{training.micro_batch_size}{recomputed}",
        f"{duration(choice.hours)}{mark}", f"{choice.usd:,.2f}", offered(choice),
        choice.offer.date or UNKNOWN,
    )  # fmt: skip


def cards(choice: Choice) -> str:
    """Cards and how they share the work: "8 × h100-sxm fsdp"."""
    shape, strategy = choice.setup.shape, choice.setup.training.parallelism.strategy
    if shape.gpus == 1:
        return shape.gpu.name
    nodes = f", {shape.nodes} nodes" if shape.nodes > 1 else ""
    return f"{shape.gpus} × {shape.gpu.name} {strategy}{nodes}"


def offered(choice: Choice) -> str:
    """Whose offer it is, and whether it may be taken away."""
    offer = choice.offer
    return offer.provider if offer.kind == "own" else f"{offer.provider} {offer.kind}"


def duration(hours: float) -> str:
    """Two figures or more, in the unit that keeps them readable: "12 min", "3.4 h", "5.1 d"."""
    if hours < 1:
        return f"{60 * hours:,.0f} min" if hours >= 1 / 6 else f"{60 * hours:,.1f} min"
    return f"{hours:,.1f} h" if hours < HOURS_OF_DAYS else f"{hours / 24:,.1f} d"


def band(each: Band, money: bool = False) -> str:
    """From the low end to the high one: "3.1 h-5.0 h", "$2.10-$4.00"."""
    return f"${each.low:,.2f}-${each.high:,.2f}" if money else f"{duration(each.low)}-{duration(each.high)}"


# ── sentences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def header(answer: Answer) -> str:
    """What was asked, in one line."""
    question = answer.question
    tokens = human_count(round(question.tokens.expected))
    length = question.recipes[0].sequence_length
    return (
        f"{question.model.name} · {tokens} tokens ({answer.how}) · sequences of {length} tokens, packed, "
        f"{question.sequences} a step · {question.framework}"
    )


def notes(answer: Answer) -> list[str]:
    """How far the answer can be trusted."""
    ranking, best = answer.ranking, answer.ranking.best
    found = [f"best is nearest to both the lowest price and the shortest time, on logarithmic scales; it takes "
             f"{band(best.cost.hours)} and {band(best.cost.usd, money=True)}."]
    shown = (ranking.cheapest, ranking.fastest, ranking.best, *ranking.front)
    if not all(choice.setup.step.calibrated for choice in shown):
        found.append("* the speed of this card was never measured: its time is uncalibrated.")
    cards = dict.fromkeys(choice.setup.shape.gpu for choice in shown)
    found += [card.calibration.said for card in cards if card.calibration]
    if not all(choice.setup.training.gradient_checkpointing for choice in shown):
        found.append("¹ without gradient checkpointing.")
    if any(choice.offer.kind == "spot" for choice in shown):
        found.append("spot instances may be taken away at any time; --no-spot leaves them out.")
    found += age_notes(ranking, answer.today)
    if ranking.untimed:
        names = ", ".join(ranking.untimed)
        found.append(f"not ranked, for nothing fits or their speed is not known: {names}.")
    return [*found, "setup, loading, evaluation and checkpoints come on top; --expand N shows the plan of row N."]


def age_notes(ranking: Ranking, today: date) -> list[str]:
    """How old the prices are, and how many have no date."""
    offers = dict.fromkeys(choice.offer for choice in ranking.choices if choice.offer.source != "--price")
    rented = [offer for offer in offers if offer.kind != "own"]
    dated = sorted(offer.date for offer in rented if offer.date)
    found = []
    if dated:
        days = (today - date.fromisoformat(dated[0])).days
        found.append(f"dated prices are up to {max(days, 0)} days old (from {dated[0]}).")
    if undated := len(rented) - len(dated):
        found.append(f"{undated} of {len(rented)} prices have no date: ask before you rent, or give --price.")
    return found


def own_sentences(answer: Answer) -> list[str]:
    """How each of one's own cards can be used, and what to type for its plan."""
    return [_own_sentence(own, answer) for own in answer.owned]


def _own_sentence(own: OwnAnswer, answer: Answer) -> str:
    count = f"{own.shape.gpus} × " if own.shape.gpus > 1 else ""
    name = f"your {count}{own.shape.gpu.name}"
    if own.choice:
        training = own.choice.setup.training
        said = (
            f"{name} can do it as it is: {own.choice.method}, micro-batch {training.micro_batch_size}, "
            f"{duration(own.choice.hours)} ({band(own.choice.cost.hours)}) and ${own.choice.usd:,.2f} of electricity"
        )
    elif own.start and own.change:
        training = own.change.training
        said = (
            f"{name} can do it with the smallest change to {own.start.method}: {' '.join(own.change.arguments)} "
            f"({own.change.price}); that needs {human_bytes(own.change.device_bytes)}"
        )
    else:
        return f"{name} cannot train {answer.question.model.name}: no change that we know makes it fit."
    return f"{said}. Its plan: {plan_command(answer.typed, answer.question.model, training, own.shape.gpu)}"


def break_even_table(answer: Answer) -> Table:
    """A line a card that can be rented or bought."""
    rows = [
        (each.gpu, f"{each.purchase_usd:,.0f}", f"{each.rent.usd_per_gpu_hour:.3f}", each.rent.provider,
         f"{each.power_usd_per_hour:.3f}", UNKNOWN if each.hours is None else f"{each.hours:,.0f}")
        for each in answer.break_evens
    ]  # fmt: skip
    headings = ("card", "to buy, USD", "to rent, USD/h", "from", "power, USD/h", "even after, h")
    return Table(f"Rent or buy, at ${answer.usd_per_kwh:g} a kWh", headings, rows, "lrrlrr")


def row_data(ranking: Ranking, choice: Choice) -> dict[str, object]:
    """A choice for a program, under the names of COLUMNS."""
    setup, offer, cost = choice.setup, choice.offer, choice.cost
    training, verdict, step = setup.training, setup.verdict, setup.step
    return {
        "number": ranking.number(choice), "gpu": setup.shape.gpu.name, "gpus": setup.shape.gpus,
        "nodes": setup.shape.nodes, "strategy": training.parallelism.strategy, "method": choice.method,
        "micro_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "hours": cost.hours.expected, "hours_low": cost.hours.low, "hours_high": cost.hours.high,
        "usd": cost.usd.expected, "usd_low": cost.usd.low, "usd_high": cost.usd.high,
        "usd_per_hour": choice.usd_per_hour, "tokens_per_s": step.tokens_per_s, "calibrated": step.calibrated,
        "required_bytes": verdict.required_bytes, "high_bytes": verdict.high_bytes,
        "usable_bytes": verdict.usable_bytes, "provider": offer.provider, "instance_type": offer.instance_type,
        "kind": offer.kind, "region": offer.region, "date": offer.date, "source": offer.source,
        "on_front": choice in ranking.front,
    }  # fmt: skip
