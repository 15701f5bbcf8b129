"""Mixtures before transformers 5, against published runs of Mixtral-8x7B and against the step that frees an expert."""

from dataclasses import replace

import pytest

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.estimate.tape.autograd import Storage, Tape
from peftbench.estimate.tape.ledger import Ledger, SharedLedger
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.memory import Part, Phase

MIXTRAL = find_model("mistralai/Mixtral-8x7B-v0.1")
NF4 = QuantizationSpec()
UPCAST = QuantizationSpec(upcast_norms=True)
GPTQ = QuantizationSpec(quant_type="gptq", blocksize=-1, compute_dtype=DType.FLOAT16)
RECIPE = TrainingSpec(
    sequence_length=4096, gradient_checkpointing=True, use_reentrant=True, optimizer="adamw_torch",
    attention="flash_attention_2", loss="transformers-4", transformers="4.48",
    adapter=AdapterSpec(r=16, target_modules=("q_proj", "k_proj", "v_proj", "o_proj"), dropout=0.05),
)  # fmt: skip
FOAK = {"loss": "fused", "fused_kernels": "norm-rope"}
MEASURED = {
    "fms-061": (42_794_268_000, 4, {"quantization": UPCAST}),
    "fms-063": (60_545_921_000, 8, {"quantization": UPCAST}),
    "fms-085": (36_731_843_000, 4, {"quantization": NF4}),
    "fms-087": (48_770_184_000, 8, {"quantization": NF4}),
    "fms-089": (34_473_341_000, 4, {"quantization": NF4, **FOAK}),
    "fms-109": (36_041_913_000, 4, {"quantization": GPTQ, "dtype": DType.FLOAT16}),
    "fms-115": (43_590_513_000, 8, {"quantization": GPTQ, "dtype": DType.FLOAT16, **FOAK}),
}
"""Allocated peaks and micro-batches: foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv."""


@pytest.mark.parametrize("run", MEASURED)
def test_published_runs_of_mixtral(run: str) -> None:
    measured_bytes, micro_batch_size, options = MEASURED[run]
    recipe = replace(RECIPE, micro_batch_size=micro_batch_size, **options)
    estimated = estimate_training(MIXTRAL, recipe, find_gpu("a100-80gb")).allocated_bytes
    assert estimated == pytest.approx(measured_bytes, rel=0.01)


def test_experts_of_4_bit_are_at_rest_what_their_codes_take() -> None:
    load = estimate_training(MIXTRAL, replace(RECIPE, quantization=NF4)).allocated_in(Phase.LOAD)
    assert load < 24 * 2**30
    assert estimate_training(MIXTRAL, replace(RECIPE, quantization=NF4, transformers="5")).device_bytes > 80 * 2**30


def test_gpt_oss_had_fused_experts_from_the_first() -> None:
    model = find_model("openai/gpt-oss-20b")
    older, now = (estimate_training(model, replace(RECIPE, quantization=NF4, transformers=v)) for v in ("4.48", "5"))
    assert older.allocated_in(Phase.LOAD) == now.allocated_in(Phase.LOAD)


def test_a_share_of_the_tokens_is_given_back_as_it_was_taken() -> None:
    ledger = Ledger()
    tape = Tape(ledger)
    tape.counts = SharedLedger(ledger, 2, 3)
    storage = Storage(tape.counts, Part.ACTIVATIONS, 10, 7)
    assert (ledger.per_token, ledger.fixed) == (6, 7)
    del storage
    assert (ledger.per_token, ledger.fixed) == (0, 0)
