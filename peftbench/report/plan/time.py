"""How long a step or a generation is expected to take, and published losses: tables, sentences and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from peftbench.decide.plan.plan import Plan
from peftbench.estimate.time.step import StepTime, unknown_time
from peftbench.inputs.recipe import TrainingSpec
from peftbench.report.format.sheet import Column, Table, tabled
from peftbench.report.plan.views import by_room, may_fit, seconds_text

if TYPE_CHECKING:
    from peftbench.catalog.published_effects import DynamicRatio, QualityRow
    from peftbench.decide.plan.effects import Effects
    from peftbench.estimate.time.latency import Latency, PassTime

STEPS = (
    Column("", lambda plan: plan.method), Column("a step", lambda plan: plan.time.step_s, seconds_text, "r"),
    Column("tokens/s", lambda plan: plan.time.tokens_per_s, "{:,.0f}".format, "r"),
    Column("band", lambda plan: f"{plan.time.tokens_per_s_low:,.0f}–{plan.time.tokens_per_s_high:,.0f}", side="r"),
    Column("most of it", lambda plan: max(plan.time.terms, key=lambda term: term.seconds).name),
)  # fmt: skip


def _known(of: Callable[[Latency], object]) -> Callable[[Plan], object]:
    """The same of a plan, whose times may be unknown."""
    return lambda plan: of(plan.effects.latency) if plan.effects and plan.effects.latency else None


GENERATIONS = (
    Column("", lambda plan: plan.method),
    Column("first token", _known(lambda of: of.prefill.seconds), seconds_text, "r"),
    Column("each token", _known(lambda of: of.decode.seconds), seconds_text, "r"),
    Column("tokens/s", _known(lambda of: of.tokens_per_s), "{:.1f}".format, "r"),
    Column("band", _known(lambda of: f"{of.tokens_per_s / of.band:.1f}–{of.tokens_per_s * of.band:.1f}"), side="r"),
    Column("bound by", _known(lambda of: of.decode.bound_by)),
)  # fmt: skip


def time_table(plans: Iterable[Plan]) -> Table | None:
    """The expected times of the plans that may fit, as ordered in the comparison; None where there are none."""
    running = [plan for plan in plans if (plan.time or plan.effects) and may_fit(plan.judged)]
    if not running:
        return None
    columns, doubt = (GENERATIONS, _unpublished) if running[0].effects else (STEPS, _uncalibrated)
    return tabled(columns, by_room(running), f"expected by formula, not measured{doubt(running)}")


def _unpublished(plans: list[Plan]) -> str:
    known = [plan.effects.latency for plan in plans if plan.effects and plan.effects.latency]
    if plans[0].gpu is None or not known or known[0].calibrated:
        return ""
    return f"; uncalibrated, no times of {plans[0].gpu.name} published"


def _uncalibrated(plans: list[Plan]) -> str:
    """Which of the times are uncalibrated and why."""
    doubts = {plan.method: plan.time.doubt for plan in plans if plan.time and plan.time.doubt}
    if not doubts:
        return ""
    some = "," if len(doubts) == len({plan.method for plan in plans}) else f" for {', '.join(doubts)}:"
    return f"; uncalibrated{some} {next(iter(doubts.values()))}"


def time_notes(plans: Iterable[Plan]) -> list[str]:
    """Why training plans have no time, once each; whoever gave a size for a card did not ask for one."""
    named = [plan for plan in plans if plan.gpu and plan.gpu.name != "given"]
    timeless = [plan for plan in named if plan.time is None and may_fit(plan.judged)]
    reasons = (why_timeless(plan) for plan in timeless if isinstance(plan.recipe, TrainingSpec))
    return [f"no time of a step: {reason}." for reason in dict.fromkeys(reasons)]


def why_timeless(plan: Plan) -> str:
    """Why a training plan has no time."""
    known = plan.by_formula and isinstance(plan.recipe, TrainingSpec) and plan.gpu is not None
    reason = unknown_time(plan.recipe, plan.gpu) if known else ""  # type: ignore[arg-type]
    return reason or f"no formula covers {plan.model.model_type}"


def published_notes(plans: Iterable[Plan]) -> list[str]:
    """One sentence for each published figure that the plans rest on, with the model that it was measured on."""
    effects = [plan.effects for plan in plans if plan.effects]
    quality = (_quality_text(each.quality) for each in effects if each.quality)
    ratios = (_ratio_text(each.dynamic_ratio) for each in effects if each.dynamic_ratio)
    return list(dict.fromkeys((*quality, *ratios)))


def _quality_text(row: QualityRow) -> str:
    """What 4 bit did to one model: "perplexity × 1.052" or "accuracy 54.32 → 53.40 %", and where that is from."""
    ratio = row.perplexity_ratio
    change = f"accuracy {row.baseline:.2f} → {row.value:.2f} %" if ratio is None else f"perplexity × {ratio:.3f}"
    history = "QLoRA against LoRA" if row.fine_tuned else "not fine-tuned"
    return f"4-bit quality: {change} published for {row.model}, {history} ({row.dataset}; {row.source})."


def _ratio_text(ratio: DynamicRatio) -> str:
    """The base model without adapter stands for the merged one, which has the same layers."""
    spread = f" ({ratio.low:.2f}–{ratio.high:.2f})" if ratio.high > ratio.low else ""
    return (
        f"dynamic against merged: × {ratio.median:.2f}{spread} a token published for {ratio.adapter} on {ratio.model}, "
        f"{ratio.gpu} ({ratio.source})."
    )


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────


def time_document(step: StepTime | None) -> dict[str, Any] | None:
    """The key "time" of a training plan; seconds of the terms add up to those of the step. null where unknown."""
    if step is None:
        return None
    return {
        "step_s": step.step_s, "step_low_s": step.low_s, "step_high_s": step.high_s,
        "tokens_per_s": step.tokens_per_s, "tokens_per_s_low": step.tokens_per_s_low,
        "tokens_per_s_high": step.tokens_per_s_high, "calibrated": step.calibrated, "framework": step.framework,
        "terms": {term.name.replace(" ", "_") + "_s": term.seconds for term in step.terms},
    }  # fmt: skip


def effects_document(effects: Effects) -> dict[str, Any]:
    """Keys "latency" and "published"; null where nothing is known."""
    quality, ratio = effects.quality, effects.dynamic_ratio
    return {
        "latency": _latency(effects.latency) if effects.latency else None,
        "published": {
            "quality": {**quality._asdict(), "perplexity_ratio": quality.perplexity_ratio} if quality else None,
            "dynamic_ratio": ratio._asdict() if ratio else None,
        },
    }


def _latency(latency: Latency) -> dict[str, Any]:
    """Times of one pass; "low" and "high" are the ends of the band."""
    figures = {
        "prefill{}_s": latency.prefill.seconds, "decode{}_s_per_token": latency.decode.seconds,
        "tokens_per_s{}": latency.tokens_per_s,
    }  # fmt: skip
    band = latency.band
    return {
        **{name.format(end): figure for name, value in figures.items()
           for end, figure in (("", value), ("_low", value / band), ("_high", value * band))},
        "calibrated": latency.calibrated,
        "terms": {"prefill": _terms(latency.prefill), "decode": _terms(latency.decode)},
    }  # fmt: skip


def _terms(time: PassTime) -> dict[str, Any]:
    """Seconds by cause, of which the slower of host and card decides."""
    return {**time._asdict(), "bound_by": time.bound_by}
