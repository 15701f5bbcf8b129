"""Common claims about fine-tuning, each beside the cases that decide how true it is; here those about memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model
from peftbench.decide.plan.plan import Plan, make_plan
from peftbench.decide.verdict import Fit
from peftbench.estimate.parts.base_weights import checkpoint_bytes, weight_bytes
from peftbench.estimate.peft_types.tensors import trainable_parameters as adapter_parameters
from peftbench.inputs.model.weights import num_parameters, weights_of
from peftbench.inputs.recipe import ALL_LINEAR, AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.memory import Part

GB = 10**9
"""The unit in which these claims are made; peftbench itself speaks of GiB."""
ABOUT = 0.1
"""How far a figure may be off to count as "about"."""


class Truth(str, Enum):
    """The verdict on a claim: what its cases say together."""

    TRUE = "true"
    PARTLY = "partly"
    FALSE = "false"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Case:
    """One way to read a claim: the assumptions, the figure they give, and whether it agrees."""

    assumptions: str
    computed: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A common claim, where it is heard, the cases that decide it, and the reason why it holds or not."""

    said: str
    heard: str
    cases: tuple[Case, ...]
    why: str

    @property
    def truth(self) -> Truth:
        """True when it holds in every case, partly when in some."""
        holding = [case.holds for case in self.cases]
        if all(holding):
            return Truth.TRUE
        return Truth.PARTLY if any(holding) else Truth.FALSE


def _full_8b() -> Claim:
    plans = {
        "bfloat16 weights, fused AdamW": _plan("8b", TrainingSpec(optimizer="adamw_torch_fused")),
        "the same with the foreach AdamW": _plan("8b", TrainingSpec(optimizer="adamw_torch")),
        "float32 weights under autocast, fused AdamW": _plan("8b", TrainingSpec(dtype=DType.FLOAT32)),
    }
    return Claim(
        "Full fine-tuning of an 8B model needs about 72 GB.",
        "rules of thumb of 8 to 9 bytes a parameter",
        tuple(_case(name, plan, _about(plan.profile.device_bytes, 72 * GB)) for name, plan in plans.items()),
        "Weights, gradients and two moments in bfloat16 are 8 bytes a parameter. The foreach optimizer adds "
        "2 in its step, and float32 weights double everything.",
    )


def _base_8b_in_4_bit() -> Claim:
    held = weight_bytes(find_model("8b"), DType.BFLOAT16, QuantizationSpec())
    computed = (
        f"{_gb(held.total_bytes)}: {_gb(held.quantized_bytes)} codes, {_gb(held.constants_bytes)} constants, "
        f"{_gb(held.unquantized_bytes)} embeddings, head and norms in 16 bit"
    )
    return Claim(
        "An 8B model in 4 bit is 4 GB.",
        "parameters × 0.5 bytes, in most introductions to quantization",
        (Case("Llama 3.1 8B, NF4, double quantization", computed, _about(held.total_bytes, 4 * GB)),),
        "bitsandbytes quantizes linear layers only: the embeddings and the head of a vocabulary of 128,256 "
        "stay in 16 bit.",
    )


def _qlora_8b_on_a_t4() -> Claim:
    lengths = (512, 1024, 2048)
    plans = {tokens: _plan("8b", _qlora(16, tokens, "paged_adamw_8bit"), "t4") for tokens in lengths}
    return Claim(
        "QLoRA of an 8B model fits a T4 and takes 7 to 8 GB.",
        "notebooks that train short sequences",
        tuple(
            _case(f"r = 16 on all linear layers, one sequence of {tokens:,} tokens", plan,
                  _fits(plan) and 7 * GB <= plan.profile.device_bytes <= 8 * GB)
            for tokens, plan in plans.items()
        ),
        "The figure is that of short sequences: a T4 has no flash attention, so a model with grouped queries "
        "keeps scores of every pair of tokens.",
    )  # fmt: skip


def _qlora_65b_on_48_gb() -> Claim:
    recipes = {tokens: _qlora(64, tokens, "paged_adamw_32bit") for tokens in (512, 2048)}
    plans = {tokens: _plan("huggyllama/llama-65b", recipe, "a6000") for tokens, recipe in recipes.items()}
    return Claim(
        "QLoRA of a 65B model fits one 48 GB card.",
        "Dettmers et al. 2023, the abstract of QLoRA",
        tuple(
            _case(f"r = 64 on all linear layers, {tokens:,} tokens, RTX A6000", plan, _fits(plan))
            for tokens, plan in plans.items()
        ),
        "With double quantization, a paged optimizer and checkpointing, one sequence at a time.",
    )


def _full_70b() -> Claim:
    plans = {
        "float32 weights under autocast": _plan("70b", TrainingSpec(dtype=DType.FLOAT32)),
        "bfloat16 weights and moments": _plan("70b", TrainingSpec()),
    }
    return Claim(
        "Full fine-tuning of a 70B model needs 800 GB or more.",
        "rules of thumb of 12 bytes a parameter; Dettmers et al. 2023 say more than 780 GB for 65B",
        tuple(_case(name, plan, plan.profile.device_bytes >= 800 * GB) for name, plan in plans.items()),
        "It takes 16 bytes a parameter when weights and moments are float32, 8 when all are bfloat16: before "
        "activations, and summed over all cards.",
    )


def _rank_16_on_a_square_matrix() -> Claim:
    model = find_model("8b")
    adapter = AdapterSpec(r=16, target_modules=("q_proj",))
    weight = next(w for w in weights_of(model) if w.module == "q_proj")
    trained = adapter_parameters(model, adapter) // weight.count
    return Claim(
        "r = 16 on a 4096 × 4096 matrix is 131,072 parameters instead of 16.8 million.",
        "introductions to LoRA",
        (Case("q_proj of Llama 3.1 8B", f"{trained:,} of {weight.numel:,} ({trained / weight.numel:.2%})",
              trained == 131_072 and weight.numel == 16_777_216),),
        "A is 16 × 4096 and B is 4096 × 16.",
    )  # fmt: skip


def _adapters_under_1_percent() -> Claim:
    given = (("8b", 16), ("70b", 16), ("8b", 64), ("0.6b", 16))
    cases = []
    for name, rank in given:
        model = find_model(name)
        trained = adapter_parameters(model, AdapterSpec(r=rank, target_modules=(ALL_LINEAR,)))
        share = trained / num_parameters(model)
        what = f"{short_name(model.name)}, r = {rank} on all linear layers"
        cases.append(Case(what, f"{trained:,} parameters, {share:.2%}", share < 0.01))
    return Claim(
        "A LoRA adapter is less than 1 % of the parameters.",
        "introductions to LoRA",
        tuple(cases),
        "The share grows with r and is larger for small models, whose matrices are narrow.",
    )


def _checkpoint_of_70b() -> Claim:
    size = checkpoint_bytes(find_model("70b"), DType.BFLOAT16)
    return Claim(
        "A checkpoint of a 70B model is 140 GB.",
        "parameters × 2 bytes",
        (Case("Llama 3.1 70B, bfloat16 safetensors", _gb(size), _about(size, 140 * GB)),),
        "70.6 billion parameters of 2 bytes each, and a small header.",
    )


def _optimizer_saving() -> Claim:
    adapter = AdapterSpec(r=16, target_modules=(ALL_LINEAR,))
    qlora = _optimizer_bytes(TrainingSpec(adapter=adapter, quantization=QuantizationSpec()))
    cases = []
    for dtype in (DType.BFLOAT16, DType.FLOAT32):
        full = _optimizer_bytes(TrainingSpec(dtype=dtype))
        computed = f"{_gb(full)} - {_gb(qlora)} = {_gb(full - qlora)}"
        what = f"AdamW, full fine-tuning in {dtype} against r = 16"
        cases.append(Case(what, computed, full - qlora >= 30 * GB))
    return Claim(
        "QLoRA saves 30 GB or more of optimizer states on an 8B model.",
        "comparisons of QLoRA with full fine-tuning",
        tuple(cases),
        "Two moments for each of 8 billion parameters, against two for each of 42 million.",
    )


MEMORY_CLAIMS: tuple[Callable[[], Claim], ...] = (
    _full_8b, _base_8b_in_4_bit, _qlora_8b_on_a_t4, _qlora_65b_on_48_gb, _full_70b,
    _rank_16_on_a_square_matrix, _adapters_under_1_percent, _checkpoint_of_70b, _optimizer_saving,
)  # fmt: skip


def _qlora(rank: int, sequence_length: int, optimizer: str) -> TrainingSpec:
    adapter = AdapterSpec(r=rank, target_modules=(ALL_LINEAR,))
    return TrainingSpec(
        sequence_length=sequence_length, optimizer=optimizer, adapter=adapter, quantization=QuantizationSpec()
    )


def _plan(model: str, training: TrainingSpec, gpu: str | None = None) -> Plan:
    return make_plan(find_model(model), training, find_gpu(gpu) if gpu else None, with_changes=False)


def _optimizer_bytes(training: TrainingSpec) -> int:
    return _plan("8b", training).profile.bytes_of(Part.OPTIMIZER)


def _case(assumptions: str, plan: Plan, holds: bool) -> Case:
    """The device peak of a plan, and its verdict where it has a card."""
    verdict = f", {plan.verdict.fit.text}" if plan.verdict else ""
    return Case(assumptions, _gb(plan.profile.device_bytes) + verdict, holds)


def _fits(plan: Plan) -> bool:
    return plan.verdict is not None and plan.verdict.fit is Fit.FITS


def _about(size_bytes: int, claimed_bytes: int) -> bool:
    return abs(size_bytes - claimed_bytes) <= ABOUT * claimed_bytes


def _gb(size_bytes: int) -> str:
    digits = 0 if size_bytes >= 100 * GB else 1 if size_bytes >= 10 * GB else 2
    return f"{size_bytes / GB:,.{digits}f} GB"


def short_name(name: str) -> str:
    """A model without its owner."""
    return name.rpartition("/")[2]
