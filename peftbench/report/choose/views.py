"""The rows and sentences of a ranking of hardware, for every format alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from peftbench.base.units import human_bytes, human_count
from peftbench.decide.choose.own import BreakEven, OwnAnswer
from peftbench.decide.choose.ranking import Choice, Question, Ranking
from peftbench.estimate.time.cost import human_hours, human_usd
from peftbench.report.choose.own import Typed, command_of, hours_band, usd_band
from peftbench.report.choose.own import own_sentences as sentences_of
from peftbench.report.format.sheet import UNKNOWN, Column, Table, tabled

BAND = "from-to"
PICKED = ("", "#", "what", "time", BAND, "USD", BAND, "offer")
ROOM_FOR_BANDS = 75
"""Columns of a terminal in which the bands stand beside their figures."""


class Answer(NamedTuple):
    """Everything that `choose` found."""

    question: Question
    typed: Typed
    ranking: Ranking
    how: str
    """Where the number of tokens comes from."""
    owned: tuple[OwnAnswer, ...]
    break_evens: tuple[BreakEven, ...]
    usd_per_kwh: float
    today: date
    naming: tuple[str, ...] = ()
    """What is to be known of the name of the model."""


def ranked(answer: Answer, most: int) -> Table:
    """The cheapest, as many as wanted."""
    choices = answer.ranking.choices
    title = f"Ranking: the cheapest {len(choices[:most])} of {len(choices)}"
    return _table(title, answer.ranking, choices[:most])


def picks(answer: Answer) -> Table:
    """What a buyer looks at first: cheapest, fastest and best, with their bands where there is room."""
    ranking = answer.ranking
    named = (
        ("cheapest", ranking.cheapest), ("…measured", ranking.cheapest_measured), ("best", ranking.best),
        ("fastest", ranking.fastest),
    )  # fmt: skip
    rows = [(name, *_picked(ranking, choice)) for name, choice in named if choice]
    return Table(f"Within {limits(answer.question)}", PICKED, rows, "lrlrrrrl", {BAND: ROOM_FOR_BANDS})


def _picked(ranking: Ranking, choice: Choice) -> tuple[str, ...]:
    return (
        str(ranking.number(choice)), f"{choice.method} on {cards(choice)}", _time(choice),
        hours_band(choice.cost.hours), human_usd(choice.usd), usd_band(choice.cost.usd), offered(choice),
    )  # fmt: skip


def _time(choice: Choice) -> str:
    return human_hours(choice.hours) + ("" if choice.setup.step.calibrated else " *")


def front(answer: Answer) -> Table:
    """The choices that no other one beats in both price and time."""
    return _table("Nothing is both cheaper and faster than these", answer.ranking, answer.ranking.front)


def limits(question: Question) -> str:
    """Budget and deadline in words."""
    budget = f"${human_usd(question.budget_usd)}" if question.budget_usd else "any budget"
    return f"{budget} and {human_hours(question.deadline_hours) if question.deadline_hours else 'any time'}"


def _table(title: str, ranking: Ranking, choices: Iterable[Choice]) -> Table:
    columns = (
        Column("#", ranking.number, side="r"), Column("cards", cards), Column("method", lambda choice: choice.method),
        Column("batch", _batch, side="r"), Column("time", _time, side="r"),
        Column("USD", lambda choice: choice.usd, human_usd, "r"), Column("offer", offered),
        Column("price of", lambda choice: choice.offer.date or UNKNOWN),
    )  # fmt: skip
    return tabled(columns, choices, title)


def _batch(choice: Choice) -> str:
    training = choice.setup.training
    return f"{training.micro_batch_size}{'' if training.gradient_checkpointing else '¹'}"


def cards(choice: Choice) -> str:
    """Cards and how they share the work: "8 × h100-sxm fsdp"."""
    shape, parallelism = choice.setup.shape, choice.setup.training.parallelism
    strategy = f"{parallelism.strategy} offload" if parallelism.cpu_offload else parallelism.strategy
    if shape.gpus == 1:
        return shape.gpu.name if strategy == "none" else f"{shape.gpu.name} {strategy}"
    nodes = f", {shape.nodes} nodes" if shape.nodes > 1 else ""
    return f"{shape.gpus} × {shape.gpu.name} {strategy}{nodes}"


def offered(choice: Choice) -> str:
    """Whose offer it is, and whether it may be taken away."""
    offer = choice.offer
    return offer.provider if offer.kind == "own" else f"{offer.provider} {offer.kind}"


# ── sentences ───────────────────────────────────────────────────────────────────────────────────────────────────────


def first_line(answer: Answer) -> str:
    """The word, the need and what is left of the cheapest choice, with its time and price."""
    choice = answer.ranking.cheapest
    line = choice.setup.verdict.line(f"{choice.method} on {cards(choice)}")
    return f"{line}; the cheapest, {human_hours(choice.hours)} and ${human_usd(choice.usd)}"


def header(answer: Answer) -> str:
    """What was asked, in one line."""
    question = answer.question
    tokens = human_count(round(question.tokens.expected))
    length = question.recipes[0].sequence_length
    return (
        f"{question.model.name} · {tokens} tokens ({answer.how}) · sequences of {length} tokens, packed, "
        f"{question.sequences} a step · {question.framework} · {human_hours(question.setup_hours)} of setup"
    )


def notes(answer: Answer) -> list[str]:
    """How far the answer can be trusted."""
    ranking = answer.ranking
    found = [
        *answer.naming,
        "best is nearest to both the lowest price and the shortest time, on logarithmic scales.",
        *_rivals_and_limits(answer),
    ]
    shown = (ranking.cheapest, ranking.fastest, ranking.best, *ranking.front)
    if doubts := dict.fromkeys(choice.setup.step.doubt for choice in shown if choice.setup.step.doubt):
        found.append(f"* uncalibrated: {'; '.join(doubts)}.")
    cards = dict.fromkeys(choice.setup.shape.gpu for choice in shown)
    found += [card.calibration.said for card in cards if card.calibration]
    if not all(choice.setup.training.gradient_checkpointing for choice in shown):
        found.append("¹ without gradient checkpointing.")
    if any(choice.setup.training.parallelism.cpu_offload for choice in shown):
        most = max(choice.setup.host_bytes for choice in shown)
        found.append(f"offload keeps up to {human_bytes(most)} in the memory of each host: ask how much it has.")
    if any(choice.offer.kind == "spot" for choice in shown):
        found.append("spot instances may be taken away at any time; --no-spot leaves them out.")
    found += age_notes(ranking, answer.today)
    if ranking.untimed:
        names = ", ".join(ranking.untimed)
        found.append(f"not ranked, for nothing fits or their speed is not known: {names}.")
    return [*found, "evaluation and checkpoints come on top; --expand N shows the plan of row N."]


def _rivals_and_limits(answer: Answer) -> Iterable[str]:
    """Where the bands leave open which is the cheapest, and whether the limits hold."""
    question = answer.question
    if answer.ranking.rivals:
        yield f"by their bands, {answer.ranking.rivals:,} more may turn out cheaper than the cheapest."
    best = answer.ranking.best.cost
    if question.budget_usd and best.usd.high > question.budget_usd:
        yield f"by its band, the best may cost more than the budget: up to ${human_usd(best.usd.high)}."
    if question.deadline_hours and best.hours.high > question.deadline_hours:
        yield f"by its band, the best may take longer than the deadline: up to {human_hours(best.hours.high)}."


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
    return [sentence for own in answer.owned for sentence in sentences_of(own, answer.question, answer.typed)]


BREAK_EVEN = (
    Column("card", lambda each: each.gpu), Column("to buy, USD", lambda each: each.purchase_usd, "{:,.0f}".format, "r"),
    Column("to rent, USD/h", lambda each: each.rent.usd_per_gpu_hour, "{:.3f}".format, "r"),
    Column("from", lambda each: each.rent.provider),
    Column("power, USD/h", lambda each: each.power_usd_per_hour, "{:.3f}".format, "r"),
    Column("even after, h", lambda each: each.hours, "{:,.0f}".format, "r"),
)  # fmt: skip


def break_even_table(answer: Answer) -> Table:
    """A line a card that can be rented or bought."""
    return tabled(BREAK_EVEN, answer.break_evens, f"Rent or buy, at ${answer.usd_per_kwh:g} a kWh")


def row_data(answer: Answer, choice: Choice) -> dict[str, object]:
    """A choice for a program. The names are frozen: new ones come at the end, as columns of the CSV do."""
    ranking, setup, offer, cost = answer.ranking, choice.setup, choice.offer, choice.cost
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
        "on_front": any(choice is each for each in ranking.front), "cpu_offload": training.parallelism.cpu_offload,
        "host_bytes": setup.host_bytes,
        "command": command_of(training, setup.shape.gpu, answer.question, answer.typed),
    }  # fmt: skip
