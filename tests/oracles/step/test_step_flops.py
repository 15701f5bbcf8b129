"""Products of a training step against torch's own count over real steps on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from peftbench.estimate.time.flops import step_work
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.recipe import AdapterSpec, TrainingSpec

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False,
        "max_position_embeddings": 512,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 128, "n_layer": 8, "n_head": 4, "vocab_size": 512, "n_positions": 512},
}  # fmt: skip
LORA = AdapterSpec(peft_type="lora", r=8, target_modules=("all-linear",))


PEFT_CONFIGS: dict[str, Any] = {
    "lora": lambda peft: peft.LoraConfig(r=8, target_modules="all-linear"),
    "boft": lambda peft: peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=1, target_modules="all-linear"),
    "prompt_tuning": lambda peft: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=32),
}


def counted(config: dict[str, Any], recipe: TrainingSpec) -> int:
    """FLOPs that FlopCounterMode sees in a forward and backward pass of the real model."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")
    if recipe.adapter:
        import peft

        model = peft.get_peft_model(model, PEFT_CONFIGS[recipe.adapter.peft_type](peft))
    model.train()
    if recipe.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tokens = torch.randint(0, 512, (recipe.micro_batch_size, recipe.sequence_length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_products_are_those_that_torch_counts(name: str, adapter: AdapterSpec | None, checkpointing: bool) -> None:
    """Eager attention multiplies hidden pairs as well, and keeps its scores: twice two products, twice that backward.

    Not counted by formula: LoRA's first layer has no gradient of its input, and an adapter's last product is not
    recomputed. Both are below a twentieth of eight layers.
    """
    recipe = TrainingSpec(
        sequence_length=64, micro_batch_size=2, gradient_checkpointing=checkpointing, adapter=adapter,
    )  # fmt: skip
    model = read_config(CONFIGS[name], name, "test")
    work = step_work(model, recipe)
    attention = work.unfused_flops
    assert counted(CONFIGS[name], recipe) == pytest.approx(work.matmul_flops + attention, rel=0.05)


ALL = ("all-linear",)


@pytest.mark.parametrize(
    ("adapter", "more"),
    [(AdapterSpec(peft_type="boft", target_modules=ALL), 1.5),
     (AdapterSpec(peft_type="prompt_tuning", options=(("num_virtual_tokens", 32),)), 1.3)],
    ids=["boft", "prompt"],
)  # fmt: skip
def test_products_of_adapters_that_do_more_than_their_parameters_say(adapter: AdapterSpec, more: float) -> None:
    """BOFT multiplies square matrices in every pass, and every layer sees a prompt's tokens."""
    recipe = TrainingSpec(sequence_length=64, micro_batch_size=2, gradient_checkpointing=False, adapter=adapter)
    model = read_config(CONFIGS["llama"], "llama", "test")
    work = step_work(model, recipe)
    attention = work.unfused_flops
    assert counted(CONFIGS["llama"], recipe) == pytest.approx(work.matmul_flops + attention, rel=0.05)
    lora = step_work(model, replace(recipe, adapter=LORA))
    assert work.matmul_flops > more * lora.matmul_flops


def test_fused_attention_multiplies_half_of_the_pairs_once_more_in_backward() -> None:
    model = read_config(CONFIGS["llama"], "llama", "test")
    work = step_work(model, TrainingSpec(sequence_length=64, gradient_checkpointing=False))
    unfused = work.unfused_flops
    assert work.attention_flops / unfused == pytest.approx(0.5 * 3.5 / 3)
    longer = step_work(model, replace(TrainingSpec(gradient_checkpointing=False), sequence_length=128))
    assert longer.attention_flops == 4 * work.attention_flops
