"""Records of comparisons, made by hand for tests: the true effects are known."""

from __future__ import annotations

import json
import random

from run_records import TINY, environment

from peftbench.inputs.comparison import LatencyCase, QualityCase, Variant
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec
from peftbench.records.comparison import ComparisonRecord, LatencyResult, LayerError, QualityResult
from peftbench.records.environment import Outcome

NF4 = QuantizationSpec(compute_dtype=DType.FLOAT32)
LORA = AdapterSpec(r=8, target_modules=("all-linear",))
BLOCKS, ROUNDS = 24, 30
LOSS = 0.05
"""Nats that NF4 costs."""
SLOWER = 1.25
"""Times that a dynamic adapter takes."""

QUALITY = QualityCase(
    id="quality", model="small-llama", by_layer="nf4",
    variants=(
        Variant(name="bf16", dtype=DType.BFLOAT16),
        Variant(name="nf4", quantization=NF4),
        Variant(name="nf4-dynamic", quantization=NF4, route="dynamic", adapter=LORA),
        Variant(name="nf4-merged", quantization=NF4, route="merged", adapter=LORA, against="nf4-dynamic"),
    ),
)  # fmt: skip

LATENCY = LatencyCase(
    id="latency", model="tiny", config=json.dumps(TINY, sort_keys=True), device="cpu",
    variants=(
        Variant(name="base"), Variant(name="dynamic", route="dynamic", adapter=LORA),
        Variant(name="merged", route="merged", adapter=LORA), Variant(name="nf4", quantization=NF4),
        Variant(name="nf4-dynamic", quantization=NF4, route="dynamic", adapter=LORA),
    ),
)  # fmt: skip


def quality_record(**fields: object) -> ComparisonRecord:
    """Blocks differ far more from each other than variants do."""
    draw = random.Random(0)
    hard = [draw.gauss(3.5, 0.5) for _ in range(BLOCKS)]

    def result(name: str, loss: float, kl: float, **more: object) -> QualityResult:
        nll = tuple(block + loss + draw.gauss(0, loss / 10) for block in hard)
        near = tuple(kl * draw.uniform(0.9, 1.1) for _ in range(BLOCKS)) if kl else ()
        return QualityResult(variant=name, nll=nll, kl=near, top1=tuple(1 - x for x in near), **more)  # type: ignore[arg-type]

    layers = tuple(LayerError(name=f"model.layers.{n}.mlp.down_proj", relative_rmse=0.09 + n / 100, sqnr_db=20.0 - n)
                   for n in range(8))  # fmt: skip
    results = (
        result("reference", 0.0, 0.0), result("bf16", 0.0005, 0.0004),
        result("nf4", LOSS, 0.06, layers=layers, kl_by_layer=(("model.layers.0", 0.03), ("model.layers.1", 0.02)),
               share_16_bit=0.2, bits_per_parameter=4.127, logit_rmse=0.1, logit_max=2.5),
        result("reference+adapter", 0.0, 0.0), result("nf4-dynamic", LOSS, 0.05), result("nf4-merged", LOSS, 0.01),
    )  # fmt: skip
    return ComparisonRecord(**{
        "suite": "quality-smoke", "case": QUALITY, "environment": environment(), "outcome": Outcome.OK,
        "results": results, "facts": {"tokens": 6144, "caveat": "its weights were 4-bit before"}, **fields,
    })  # type: ignore[arg-type]  # fmt: skip


def latency_record(**fields: object) -> ComparisonRecord:
    """Rounds of a machine that is busy now and then."""
    draw = random.Random(1)
    busy = [draw.choice((1.0, 1.0, 1.7)) for _ in range(ROUNDS)]

    def result(name: str, factor: float, **more: object) -> LatencyResult:
        times = [tuple(base * factor * moment * draw.uniform(0.98, 1.02) for moment in busy) for base in (0.08, 0.02)]
        return LatencyResult(variant=name, prefill_s=times[0], decode_s=times[1], prefill_cpu_s=times[0],
                             decode_cpu_s=times[1], weights_bytes=1 << 27, load_s=0.5, **more)  # type: ignore[arg-type]  # fmt: skip

    results = (
        result("base", 1.0), result("dynamic", SLOWER, operations=(("set_adapter", (0.002, 0.003)),)),
        result("merged", 1.0, merge_s=0.1, max_logit_difference=1e-6), result("nf4", 2.0), result("nf4-dynamic", 2.4),
    )  # fmt: skip
    return ComparisonRecord(**{
        "suite": "adapters-latency-smoke", "case": LATENCY, "environment": environment(), "outcome": Outcome.OK,
        "results": results, "facts": {}, **fields,
    })  # type: ignore[arg-type]  # fmt: skip
