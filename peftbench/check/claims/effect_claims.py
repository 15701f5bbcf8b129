"""Common claims about what adapters and 4 bit cost in time and quality, decided by published figures and formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.catalog.published_effects import LatencyRow, QualityRow, latency_rows, quality_rows
from peftbench.check.claims.claims import MEMORY_CLAIMS, Case, Claim, short_name
from peftbench.check.speed.published_latency import FOUR_BIT, is_plain
from peftbench.estimate.time.latency import Latency, estimate_latency
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec, InferenceSpec, QuantizationSpec

NOISE = 1.05
"""Equal models in one published table differ by up to this factor."""
SLIGHT = 1.1
"""Up to so many times the latency is "slightly slower"."""
MUCH = 1.5
"""From so many times the speed on it is "much faster"."""
SMALL_RATIO = 1.05
"""Up to so many times the perplexity is a small loss."""
SMALL_POINTS = 1.0
"""Up to so many points of accuracy is a small loss."""

REQUEST = InferenceSpec()
LORA = AdapterSpec(r=16, target_modules=(ALL_LINEAR,))
QUERY_VALUE = AdapterSpec(r=16, target_modules=("q_proj", "v_proj"))
NF4 = QuantizationSpec()


def _merged() -> Claim:
    merged = [row for row in latency_rows() if row.phase == "task"]
    equal = [row for row in latency_rows() if is_plain(row) and row.slowdown not in (None, 1)]
    return Claim(
        "A merged LoRA adapter costs no latency.",
        "Hu et al. 2021, and introductions to LoRA",
        tuple(_published_slowdown(row, NOISE) for row in (*merged, *equal)),
        "A merged model has the layers and the shapes of its base, as a fully fine-tuned one has, so the same kernels "
        f"run. What published tables show between such models is noise, here taken to be up to × {NOISE}. Merging into "
        "a 4-bit base keeps the latency too, but PEFT quantizes the merged weights again, which changes the outputs.",
    )


def _dynamic() -> Claim:
    published = [row for row in latency_rows() if row.route in ("dynamic", "serial adapter")]
    all_linear, targets = replace(REQUEST, adapter=LORA), replace(REQUEST, adapter=QUERY_VALUE)
    return Claim(
        "A dynamic adapter is only slightly slower than a merged one.",
        "introductions to LoRA and to adapters",
        (
            *(_published_slowdown(row, SLIGHT) for row in published),
            _expected_slowdown("a token, r = 16 on all linear layers", all_linear, _token),
            _expected_slowdown("a token, r = 16 on q_proj and v_proj", targets, _token),
            _expected_slowdown("prefill of 2,048 tokens, r = 16 on all linear layers", all_linear, _prefill),
        ),
        f'"Slightly" is up to × {SLIGHT}. A token of one sequence is bound by launches, and every adapted layer adds '
        "some: the penalty counts adapted layers, hardly their rank. Long prompts and large batches are bound by "
        "arithmetic, of which an adapter adds little.",
    )


def _quality() -> Claim:
    return Claim(
        "4 bit costs little quality.",
        "introductions to QLoRA",
        tuple(map(_quality_case, sorted(quality_rows(), key=lambda row: row.fine_tuned))),
        f"Little is up to × {SMALL_RATIO} the perplexity, or {SMALL_POINTS:.0f} point of accuracy. Of the models that "
        "were not fine-tuned, small ones lose more perplexity than larger ones. bnb-4bit: the source does not say "
        "whether NF4 or FP4.",
    )


def _speed() -> Claim:
    batch = replace(REQUEST, batch_size=16)
    return Claim(
        "4 bit makes inference much faster.",
        "parameters × 0.5 bytes have to be read instead of parameters × 2",
        (
            *_published_speedups(),
            _expected_speedup("a token, batch 1", REQUEST, "a100-80gb", _token),
            _expected_speedup("a token, batch 1", REQUEST, "l4", _token),
            _expected_speedup("a token, batch 16", batch, "l4", _token),
            _expected_speedup("prefill of 2,048 tokens", REQUEST, "l4", _prefill),
        ),
        f'"Much" is × {MUCH} or more. In eager PyTorch on a fast card a token of one sequence is bound by launches, of '
        "which bitsandbytes adds some; in prefill and larger batches the weights are written out in 16 bit before they "
        "are multiplied. It helps where a card of low bandwidth spends its time reading weights. Engines that do not "
        "launch from Python are another matter. What 4 bit saves is memory.",
    )


def claims() -> tuple[Claim, ...]:
    """Every claim, its figures computed now: those about memory, then these."""
    return tuple(make() for make in (*MEMORY_CLAIMS, _merged, _dynamic, _quality, _speed))


# ── published cases ─────────────────────────────────────────────────────────────────────────────────────


def _published_slowdown(row: LatencyRow, most: float) -> Case:
    slowdown = row.slowdown or 0.0
    batch = f"{row.batch_size} × {row.prompt_tokens} tokens" if row.prompt_tokens else ""
    form = (row.adapter or row.notes, "" if row.route == "base" else row.route, row.phase, batch)
    what = ", ".join(filter(None, (*form, _where(row))))
    return Case(what, f"× {slowdown:.2f} of the base model's time", 0 < slowdown <= most)


def _where(row: LatencyRow) -> str:
    return f"{short_name(row.model)} on {row.gpu}, published: {row.source}"


def _published_speedups() -> Iterator[Case]:
    """Every 4-bit row beside the 16-bit row of the same table and model."""
    for row in latency_rows():
        if row.weights not in (*FOUR_BIT, "awq", "gptq"):
            continue
        same = [r for r in latency_rows() if (r.source, r.model, r.phase) == (row.source, row.model, row.phase)]
        plain = next(filter(is_plain, same), None)
        if plain:
            speedup = plain.seconds / row.seconds
            yield Case(f"{row.weights}, {row.phase}, {_where(row)}", f"× {speedup:.2f} the speed", speedup >= MUCH)


def _quality_case(row: QualityRow) -> Case:
    history = "QLoRA against LoRA" if row.fine_tuned else "not fine-tuned"
    what = f"{short_name(row.model)}, {row.weights}, {history}, {row.dataset}, published: {row.source}"
    if row.perplexity_ratio is not None:
        return Case(what, f"perplexity × {row.perplexity_ratio:.3f}", row.perplexity_ratio <= SMALL_RATIO)
    lost = row.baseline - row.value
    return Case(what, f"accuracy {row.baseline:.2f} % → {row.value:.2f} %", lost <= SMALL_POINTS)


# ── expected cases ──────────────────────────────────────────────────────────────────────────────────────


def _expected_slowdown(what: str, request: InferenceSpec, seconds: Callable[[Latency], float]) -> Case:
    ratio = seconds(_expected(request, "a100-80gb")) / seconds(_expected(REQUEST, "a100-80gb"))
    computed = f"× {ratio:.2f} of the base model's time"
    return Case(f"{what}, Llama-3.1-8B on a100-80gb, expected by formula", computed, ratio <= SLIGHT)


def _expected_speedup(what: str, request: InferenceSpec, card: str, seconds: Callable[[Latency], float]) -> Case:
    four_bit = _expected(replace(request, quantization=NF4), card)
    speedup = seconds(_expected(request, card)) / seconds(four_bit)
    case = f"nf4, {what}, Llama-3.1-8B on {card}, expected by formula"
    return Case(case, f"× {speedup:.2f} the speed", speedup >= MUCH)


def _expected(request: InferenceSpec, card: str) -> Latency:
    latency = estimate_latency(find_model("8b"), request, find_gpu(card))
    assert latency is not None
    return latency


def _token(latency: Latency) -> float:
    return latency.decode.seconds


def _prefill(latency: Latency) -> float:
    return latency.prefill.seconds
