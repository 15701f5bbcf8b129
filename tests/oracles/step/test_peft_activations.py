"""The bytes that layers with each PEFT type keep for backward, compared with what autograd really saves.

A small Llama on the CPU with eager attention, in float32 and in bfloat16 under float32 adapters.
"""

from __future__ import annotations

import weakref

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

from peftbench.base.errors import SpecError  # noqa: E402
from peftbench.estimate.forward.kernels import Kernels  # noqa: E402
from peftbench.estimate.forward.moments import _layers  # noqa: E402
from peftbench.estimate.forward.step import step_of  # noqa: E402
from peftbench.estimate.peft_forward.dispatch import FORWARDS, WITHOUT_LINEAR, activations_modelled  # noqa: E402
from peftbench.estimate.peft_forward.virtual_tokens import stream_length, stream_tokens  # noqa: E402
from peftbench.estimate.training import estimate_training  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.recipe import AdapterSpec, DType, TrainingSpec  # noqa: E402
from peftbench.memory import MemoryProfile, Part, Phase  # noqa: E402

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 80, "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}  # fmt: skip
MODEL = read_config(CONFIG, "tiny", "test")
BATCH, SEQUENCE = 2, 24
TOLERANCE = 0.01
TARGETS = ("q_proj", "v_proj", "gate_proj", "down_proj")
PROMPT = {"num_virtual_tokens": 5}
OPTIONS: dict[str, dict[str, int]] = {
    "lora": {"r": 4}, "adalora": {"init_r": 6}, "loha": {"r": 4}, "lokr": {"r": 2}, "vera": {"r": 16},
    "pvera": {"r": 16}, "hira": {"r": 4}, "hra": {"r": 3}, "oft": {"oft_block_size": 16},
    "boft": {"boft_block_size": 4},
    "randlora": {"r": 8}, "fourierft": {"n_frequency": 20}, "miss": {"r": 8}, "road": {"group_size": 16},
    "c3a": {"block_size": 16}, "delora": {"r": 4}, "gralora": {"r": 8}, "deft": {"r": 4}, "lily": {"r": 4},
    "vblora": {"r": 4, "num_vectors": 12, "vector_length": 16}, "prompt_tuning": PROMPT, "prefix_tuning": PROMPT,
    "p_tuning": {**PROMPT, "encoder_hidden_size": 32}, "psoft": {"r": 4}, "osf": {"effective_rank": 8},
    "unilora": {"r": 4, "theta_d_length": 16}, "tinylora": {"r": 2, "u": 4}, "poly": {"r": 4},
    "waveft": {"n_frequency": 20}, "glora": {"r": 4}, "shira": {"r": 4}, "supertuning": {"sparsity": 0.9},
    "peanut": {"r": 4},
}  # fmt: skip
EXTRA = {"adalora": {"total_step": 99, "tinit": 1, "tfinal": 1}, "ia3": {"feedforward_modules": ["down_proj"]}}
UNTESTED = {"multitask_prompt_tuning", "cpt", "cartridge", "poly", "trainable_tokens", "shira", "supertuning"}
"""Dry runs judge them: they need tokens' ids, tasks or a first run, or keep what is no plain tensor of numbers."""
TYPES = sorted({*FORWARDS, *WITHOUT_LINEAR} - UNTESTED)
SMALL_MODEL = {"road": 0.035, "lora": 0.015}
"""Vectors made of theta and alpha, and of DoRA's magnitude, are left out: they matter only to so small a model."""


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16])
@pytest.mark.parametrize("kind", TYPES)
def test_layers_keep_what_autograd_saves(kind: str, dtype: DType) -> None:
    compare(spec_of(kind), dtype)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.BFLOAT16])
def test_dora(dtype: DType, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def cuda_dropout(x: torch.Tensor, p: float, training: bool, inplace: bool = False) -> torch.Tensor:
        return torch.native_dropout(x, p, training)[0] if p else x

    monkeypatch.setattr("torch.nn.functional.dropout", cuda_dropout)
    compare(AdapterSpec(r=4, use_dora=True, target_modules=TARGETS, dropout=dropout), dtype)


def test_prefixes_refuse_checkpointing() -> None:
    with pytest.raises(SpecError, match="checkpointing"):
        estimate_training(MODEL, TrainingSpec(adapter=spec_of("prefix_tuning")))


def test_other_types_are_a_guess_with_a_wide_band() -> None:
    adapter = AdapterSpec(peft_type="adaption_prompt")
    assert not activations_modelled(adapter)
    assert relative_band(estimate_training(MODEL, TrainingSpec(adapter=adapter))) > 0.5
    assert relative_band(estimate_training(MODEL, TrainingSpec(adapter=spec_of("ia3")))) < 0.05


def relative_band(profile: MemoryProfile) -> float:
    found = [c for c in profile.alive_in(Phase.BACKWARD) if c.part is Part.ACTIVATIONS]
    return sum(c.high_bytes - c.bytes for c in found) / sum(c.bytes for c in found)


def spec_of(kind: str) -> AdapterSpec:
    options = tuple(sorted(OPTIONS.get(kind, {}).items()))
    return AdapterSpec(peft_type=kind, target_modules=None if kind in WITHOUT_LINEAR else TARGETS, options=options)


def compare(adapter: AdapterSpec, dtype: DType) -> None:
    """All layers but the first, whose input has no gradient where the embedding is frozen."""
    model = real_model(adapter, dtype)
    layers = next(m for key, m in model.named_modules() if key.endswith("layers"))
    saved = saved_bytes(model, layers, 3) - saved_bytes(model, layers, 1)
    assert kept_bytes(adapter, dtype) == pytest.approx(saved, rel=SMALL_MODEL.get(adapter.peft_type, TOLERANCE))


def kept_bytes(adapter: AdapterSpec, dtype: DType) -> int:
    """What the tape's layers keep, from the second on."""
    training = TrainingSpec(
        sequence_length=SEQUENCE, micro_batch_size=BATCH, gradient_checkpointing=False, dtype=dtype,
        autocast=False, attention="eager", adapter=adapter,
    )  # fmt: skip
    kinds, segments, _ = _layers(step_of(MODEL, training, Kernels("eager")))
    sizes = [size for kind in kinds[1:] for size in segments[kind].kept.values()]
    length = stream_length(training)
    return sum((token + pair * length) * stream_tokens(training) + fixed for token, pair, fixed in sizes)


def real_model(adapter: AdapterSpec, dtype: DType) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})
    config._attn_implementation = "eager"
    config.use_cache = False
    base = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype.value)).train()
    model = peft.get_peft_model(base, peft_config(adapter)).train()
    for key, parameter in model.named_parameters():
        if ".ranknum." in key:  # as on a card, where moving it makes it trainable
            parameter.requires_grad_(True)
    return model


def peft_config(adapter: AdapterSpec) -> peft.PeftConfig:
    kind = adapter.peft_type
    values = {**dict(adapter.options), **EXTRA.get(kind, {}), "task_type": "CAUSAL_LM"}
    if adapter.target_modules:
        values["target_modules"] = list(adapter.target_modules)
    if kind == "lora" and adapter.use_dora:
        values |= {"r": adapter.r, "use_dora": True, "lora_dropout": adapter.dropout}
    return PEFT_TYPE_TO_CONFIG_MAPPING[kind.upper()](**values)


class Held:
    """A saved tensor, for as long as the graph holds it: DoRA makes a graph that it throws away."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def saved_bytes(model: torch.nn.Module, layers: torch.nn.ModuleList, depth: int) -> int:
    """Bytes of the distinct storages that a forward pass through so many layers saves; parameters, buffers and
    tables of cos and sin aside."""
    saved: list[weakref.ref[Held]] = []
    shared: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    rotary = next(m for key, m in model.named_modules() if key.endswith("rotary_emb"))
    hook = rotary.register_forward_hook(lambda _, __, tables: shared.extend(tables))
    removed = [layers.pop(len(layers) - 1) for _ in range(len(layers) - depth)]
    tokens = torch.randint(1, 80, (BATCH, SEQUENCE))

    def pack(tensor: torch.Tensor) -> Held:
        held = Held(tensor)
        saved.append(weakref.ref(held))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        outputs = model(tokens)
    layers.extend(reversed(removed))
    hook.remove()
    kept = [held.tensor for held in (reference() for reference in saved) if held is not None]
    assert outputs.logits.requires_grad
    numbers = [x for x in kept if x.is_floating_point() or x.is_complex() or x.dtype is torch.bool]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in numbers}
    for tensor in shared:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())
