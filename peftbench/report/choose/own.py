"""How one's own cards can be used, and what to type for the plan of it."""

from __future__ import annotations

from typing import NamedTuple

from peftbench.base.units import human_bytes
from peftbench.base.visible import quoted
from peftbench.decide.asked import Asked, arguments_of
from peftbench.decide.choose.own import OwnAnswer
from peftbench.decide.choose.ranking import Choice, Question
from peftbench.estimate.time.constants import FRAMEWORKS
from peftbench.estimate.time.cost import SECONDS_PER_HOUR, Band, human_hours, human_usd
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.records.calibration import OFF


class Typed(NamedTuple):
    """What a command repeats as it was typed."""

    model: str
    calibration: str | None = None
    adapter_config: str | None = None


def command_of(training: TrainingSpec, gpu: GpuSpec, question: Question, typed: Typed) -> str:
    """What prices a recipe again, on one line."""
    return " ".join(("peftbench plan", *plan_words(training, gpu, question, typed)))


def plan_words(training: TrainingSpec, gpu: GpuSpec, question: Question, typed: Typed) -> list[str]:
    """The model as it was named, the card, the method, and all that is not a default; quoted for a shell."""
    options = Asked(training.method, {}, question.build).leading_to(training, question.model, gpu)
    assert options is not None, "every recipe of a ranking is made of options"
    words = ["--model", typed.model, "--gpu", gpu.name, "--method", training.method]
    words += ["--adapter-config", typed.adapter_config] if typed.adapter_config else []
    words += arguments_of(options)
    words += ["--framework", question.framework] if question.framework != FRAMEWORKS[0] else []
    if typed.calibration:  # of one card: the others were ranked without
        words += ["--calibration", typed.calibration if gpu.calibration else OFF]
    return [quoted(word) for word in words]


def own_sentences(own: OwnAnswer, question: Question, typed: Typed) -> list[str]:
    """Whether they can do it as they are, by which smallest change, with the host's memory, or not at all."""
    count = f"{own.shape.gpus} × " if own.shape.gpus > 1 else ""
    name = f"your {count}{own.shape.gpu.name}"
    ways = _ways(own, question)
    if ways:
        plans = (command_of(training, own.shape.gpu, question, typed) for _, training in ways)
        return [f"{name} can do it {said}. Its plan: {plan}" for (said, _), plan in zip(ways, plans, strict=True)]
    if own.start and own.start_fits:
        return [f"{name} has the memory for {_named(own.start)}, but its speed is not known."]
    return [f"{name} cannot train {question.model.name}: no change that we know makes it fit."]


def _ways(own: OwnAnswer, question: Question) -> list[tuple[str, TrainingSpec]]:
    """What each way takes, and its recipe."""
    if own.choice:
        return [(_chosen(own.choice), own.choice.setup.training)]
    ways = []
    change, setup = own.change, own.offloaded
    if own.start and change and not change.training.parallelism.cpu_offload:
        words = " ".join(word for each in change.differences for word in each.arguments)
        said = f"with the smallest change to {_named(own.start)}: {words} ({change.price})"
        ways.append((f"{said}; that needs {human_bytes(change.profile.needed_bytes)}", change.training))
    if setup:
        hours = human_hours(question.tokens.expected / setup.step.tokens_per_s / SECONDS_PER_HOUR)
        said = f"with --cpu-offload: {setup.training.method} in {hours}"
        ways.append((f"{said}, where the host has more than {human_bytes(setup.host_bytes)}", setup.training))
    return ways


def _chosen(choice: Choice) -> str:
    hours = choice.cost.hours
    return (
        f"as it is: {choice.method}, micro-batch {choice.setup.training.micro_batch_size}, "
        f"{human_hours(hours.expected)} ({hours_band(hours)}) and ${human_usd(choice.usd)} of electricity"
    )


def _named(start: TrainingSpec) -> str:
    strategy = start.parallelism.strategy
    return start.method if strategy == "none" else f"{start.method} with {strategy}"


def hours_band(each: Band) -> str:
    """From the low end to the high one: "3.1-5.0 h", "45 min-1.2 h"."""
    low, high = human_hours(each.low), human_hours(each.high)
    number, unit = low.split(" ")
    return f"{number if high.endswith(unit) else low}-{high}"


def usd_band(each: Band) -> str:
    """From the low end to the high one, in US dollars: "2.10-4.00"."""
    return f"{human_usd(each.low)}-{human_usd(each.high)}"
