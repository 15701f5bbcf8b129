"""What a generation request costs beside memory, as a table, sentences and JSON: times by formula, published losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peftbench.catalog.published_effects import DynamicRatio, QualityRow
from peftbench.decide.plan.effects import Effects
from peftbench.decide.plan.plan import Plan
from peftbench.estimate.time.latency import Latency, PassTime
from peftbench.report.format.sheet import UNKNOWN, Table
from peftbench.report.plan.views import by_room, may_fit, seconds_text


def latency_table(plans: Iterable[Plan]) -> Table | None:
    """Expected times of the plans that may fit, as ordered in the comparison; None for training and without a card."""
    running = [plan for plan in plans if plan.effects and may_fit(plan.final_verdict)]
    if not running:
        return None
    rows = [_row(plan) for plan in by_room(running)]
    headings = ("", "first token", "each token", "tokens/s", "band", "bound by")
    return Table(_title(running), headings, rows, "lrrrrl")


def _title(plans: list[Plan]) -> str:
    known = [plan.effects.latency for plan in plans if plan.effects and plan.effects.latency]
    title = "expected by formula, not measured"
    if plans[0].gpu is None or not known or known[0].calibrated:
        return title
    return f"{title}; uncalibrated, no times of {plans[0].gpu.name} published"


def _row(plan: Plan) -> tuple[str, ...]:
    latency = plan.effects.latency if plan.effects else None
    if latency is None:
        return (plan.method, *[UNKNOWN] * 5)
    low, high = latency.tokens_per_s / latency.band, latency.tokens_per_s * latency.band
    return (
        plan.method,
        seconds_text(latency.prefill.seconds),
        seconds_text(latency.decode.seconds),
        f"{latency.tokens_per_s:.1f}",
        f"{low:.1f}–{high:.1f}",
        latency.decode.bound_by,
    )


def published_notes(plans: Iterable[Plan]) -> list[str]:
    """One sentence for each published figure that the plans rest on, with the model that it was measured on."""
    effects = [plan.effects for plan in plans if plan.effects]
    quality = (quality_text(each.quality) for each in effects if each.quality)
    ratios = (_ratio_text(each.dynamic_ratio) for each in effects if each.dynamic_ratio)
    return list(dict.fromkeys((*quality, *ratios)))


def quality_text(row: QualityRow) -> str:
    """What 4 bit did to one model."""
    history = "QLoRA against LoRA" if row.fine_tuned else "not fine-tuned"
    return f"4-bit quality: {quality_change(row)} published for {row.model}, {history} ({row.dataset}; {row.source})."


def quality_change(row: QualityRow) -> str:
    """ "perplexity × 1.052" or "accuracy 54.32 → 53.40 %"."""
    if row.perplexity_ratio is None:
        return f"accuracy {row.baseline:.2f} → {row.value:.2f} %"
    return f"perplexity × {row.perplexity_ratio:.3f}"


def _ratio_text(ratio: DynamicRatio) -> str:
    """The base model without adapter stands for the merged one, which has the same layers."""
    spread = f" ({ratio.low:.2f}–{ratio.high:.2f})" if ratio.high > ratio.low else ""
    return (
        f"dynamic against merged: × {ratio.median:.2f}{spread} a token published for {ratio.adapter} on {ratio.model}, "
        f"{ratio.gpu} ({ratio.source})."
    )


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────


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
