"""What axolotl does of its own accord and no formula prices: told to whoever reads its file.

From axolotl 0.19: utils/schemas/config.py (check_auto_enable_lora_kernels), loaders/model.py
(_configure_embedding_dtypes), utils/schemas/validation.py (FSDP's version).
"""

from __future__ import annotations

from collections.abc import Iterator

from peftbench.inputs.recipe import TrainingSpec
from peftbench.recipes.settings import Settings, Unread

EVALUATES = "evaluates more sequences at a time than it trains"
RECOMPUTES = "recomputes inside fused adapter kernels, which keeps fewer activations"
LORA_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def notes(settings: Settings, recipe: TrainingSpec) -> Iterator[str | Unread]:
    """One sentence for each of its own decisions that this file meets."""
    yield from _packing(settings, recipe)
    yield from _lora_kernels(settings, recipe)
    if isinstance(settings.given("gradient_checkpointing"), str):
        yield Unread("gradient_checkpointing: offload", "keeps the checkpoints on the host or disk")
    sharded = recipe.parallelism.strategy.startswith("fsdp")
    cut = any("CutCross" in name for name in settings.names("plugins") or ())
    if recipe.adapter is None and recipe.attention != "flash_attention_2" and not (sharded or cut):
        yield Unread("axolotl without flash attention", "keeps norms, embeddings and head in float32")
    if sharded and not (settings.given("fsdp_version") or settings.section("fsdp_config").given("version")):
        yield "axolotl takes FSDP 1 where no version is given; it is priced as FSDP 2."
    evaluated = settings.count("eval_batch_size", recipe.micro_batch_size)
    if evaluated > recipe.micro_batch_size:
        yield Unread(f"eval_batch_size {evaluated}", EVALUATES, evaluated)


def _packing(settings: Settings, recipe: TrainingSpec) -> Iterator[str | Unread]:
    if settings.given("sample_packing") and recipe.attention in ("sdpa", "eager"):
        yield Unread("sample_packing without flash attention", "keeps a mask for each pair of tokens")


def _lora_kernels(settings: Settings, recipe: TrainingSpec) -> Iterator[str | Unread]:
    """They are on unless one of them is set, for LoRA on weights of 8 bit, or for remote code."""
    if recipe.adapter is None:
        return
    given = {name: settings.given(name) for name in LORA_KERNELS}
    eight = recipe.quantization is not None and not recipe.quantization.four_bit
    by_itself = all(value is None for value in given.values()) and not eight
    on = [name for name, value in given.items() if value]
    if by_itself and not settings.given("trust_remote_code"):
        yield f"axolotl turns its LoRA kernels on where no {LORA_KERNELS[0]} is set."
        yield Unread(LORA_KERNELS[0], RECOMPUTES)
    elif on:
        yield Unread(", ".join(on), RECOMPUTES)
