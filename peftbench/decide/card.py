"""Make a recipe one that can run: on this model, on this card, as the libraries would really run it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from peftbench.base.errors import SpecError
from peftbench.estimate.peft_forward.virtual_tokens import is_prefix, virtual_tokens
from peftbench.estimate.peft_types.table import METHODS, Method
from peftbench.estimate.peft_types.targets import refused_modules
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.parts import PACKAGES, without_kernels
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weight import Role
from peftbench.inputs.recipe import ALL_LINEAR, DType, InferenceSpec, TrainingSpec, left_out_note

Notes = tuple[str, ...]
Recipe = TypeVar("Recipe", TrainingSpec, InferenceSpec)


def settle(
    model: ModelSpec | OtherModel, recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec | None
) -> tuple[TrainingSpec | InferenceSpec, Notes]:
    """settle_training or settle_inference."""
    if isinstance(recipe, TrainingSpec):
        return settle_training(model, recipe, gpu)
    return settle_inference(model, recipe, gpu)


def settle_training(
    model: ModelSpec | OtherModel, training: TrainingSpec, gpu: GpuSpec | None
) -> tuple[TrainingSpec, Notes]:
    """Return the recipe that will really run, and what had to change to get there.

    Raises SpecError where the model or the card cannot run it.
    """
    _check_trainable(training)
    _check_kernels(training, gpu)
    _check_adapter(training)
    longer = check_length(model, training.sequence_length, "--sequence-length", virtual_tokens(training.adapter))
    longer = (*longer, *_library_notes(model, training))
    training, notes = (training, ()) if gpu is None else adapt_to_card(training, gpu)
    notes = (*notes, *longer)
    if is_prefix(training.adapter) and training.gradient_checkpointing:
        note = "PEFT's prefixes do not work with gradient checkpointing: priced without it."
        return replace(training, gradient_checkpointing=False), (*notes, note)
    if training.use_cache and training.gradient_checkpointing:
        note = "transformers turns the KV cache off under gradient checkpointing: priced with --no-use-cache."
        return replace(training, use_cache=False), (*notes, note)
    return training, notes


def settle_inference(
    model: ModelSpec | OtherModel, inference: InferenceSpec, gpu: GpuSpec | None
) -> tuple[InferenceSpec, Notes]:
    """Return the request that will really run, and what had to change; raises as settle_training."""
    tokens = inference.prompt_tokens + inference.new_tokens
    _check_kernels(inference, gpu)
    _check_adapter(inference)
    longer = check_length(model, tokens, "--prompt-tokens or --new-tokens", virtual_tokens(inference.adapter))
    longer = (*longer, *_library_notes(model, inference))
    if gpu is None or (adapted := _in_half(inference, gpu)) == inference:
        return inference, longer
    return adapted, (_without_bfloat16(gpu), *longer)


def _library_notes(model: ModelSpec | OtherModel, recipe: TrainingSpec | InferenceSpec) -> Notes:
    """What layers with kernels of their own run without, and what all-linear leaves out of them."""
    if isinstance(model, OtherModel):
        return ()
    packages = {name for layer in model.layers if layer.mixer for name in PACKAGES.get(type(layer.mixer), ())}
    adapter, notes = recipe.adapter, (without_kernels(packages),) if packages else ()
    refused = refused_modules(model, adapter) if adapter and adapter.target_modules == (ALL_LINEAR,) else ()
    return (*notes, left_out_note(refused, model.model_type)) if refused else notes


def _check_trainable(training: TrainingSpec) -> None:
    """Raise SpecError for weights on which the libraries train no adapter."""
    scheme = training.quantization.scheme if training.quantization else None
    if scheme is not None and scheme.untrainable:
        raise SpecError(f"{scheme.untrainable}.", _TO_HALF if scheme.dequantizes else "Use --quant-type nf4.")


def _check_kernels(recipe: TrainingSpec | InferenceSpec, gpu: GpuSpec | None) -> None:
    """Raise SpecError for a card that has no kernels for weights that are stored so."""
    scheme, capability = recipe.quantization and recipe.quantization.scheme, gpu and gpu.compute_capability
    if not scheme or not capability or capability >= scheme.capability or gpu is None:
        return
    needed, has = (".".join(map(str, each)) for each in (scheme.capability, capability))
    what = f"{scheme.library} needs compute capability {needed}; {gpu.name} has {has}."
    raise SpecError(what, _TO_HALF if scheme.dequantizes else "Use --quant-type nf4.")


_TO_HALF = "Without q in front of --method it is priced as transformers runs it then: written out in 16 bit."


def _check_adapter(recipe: TrainingSpec | InferenceSpec) -> None:
    """Raise SpecError where PEFT has no layer of the adapter's type for weights that are stored so."""
    adapter, quantization = recipe.adapter, recipe.quantization
    if adapter is None or quantization is None or not quantization.scheme.adapters:
        return
    method = METHODS.get(adapter.peft_type, Method())
    linear = method.each is not None and Role.LINEAR in method.roles
    scheme = quantization.scheme
    dora = adapter.use_dora and not scheme.dora
    if linear and (dora or adapter.peft_type not in scheme.adapters):
        name = "DoRA" if adapter.use_dora else adapter.peft_type
        what = f"PEFT has no {name} for {scheme.library}."
        if scheme.plain_layers:
            what = f"{name} on weights of {scheme.library} is not priced."
        raise SpecError(what, "Use plain LoRA (--method qlora), or --quant-type nf4.")


def check_length(model: ModelSpec | OtherModel, tokens: int, option: str, virtual: int) -> Notes:
    """Say where there are more tokens, with those of a prompt or prefix, than the model has positions.

    transformers rotates by any position. Raises SpecError for a table of learned positions, which has no more rows.
    """
    if tokens + virtual <= model.max_position_embeddings:
        return ()
    plus = f" and {virtual} virtual" if virtual else ""
    beyond = (
        f"{tokens}{plus} tokens are beyond the {model.max_position_embeddings} positions of {model.name} "
        "(max_position_embeddings)"
    )
    if model.learned_positions:
        raise SpecError(f"{beyond}.", f"Use a smaller {option}{' or --num-virtual-tokens' if virtual else ''}.")
    return (f"{beyond}: transformers runs them, but the model is of use there with scaled positions (RoPE) only.",)


@lru_cache(maxsize=1024)
def adapt_to_card(training: TrainingSpec, gpu: GpuSpec) -> tuple[TrainingSpec, Notes]:
    """Replace bfloat16 by float16 on a card without it; raises SpecError for flash attention on old ones."""
    adapted = _in_half(training, gpu)
    if adapted == training:
        return training, ()
    notes = [_without_bfloat16(gpu)]
    if adapted.adapter is None or adapted.adapter.dtype is DType.FLOAT16:
        notes.append(
            "torch's GradScaler refuses float16 gradients: train float32 weights under autocast, "
            "or without loss scaling."
        )
    return adapted, tuple(notes)


def _in_half(recipe: Recipe, gpu: GpuSpec) -> Recipe:
    """The recipe without bfloat16 where the card has none; raises SpecError for flash attention on old ones."""
    _check_attention(recipe.attention, gpu)
    if gpu.has_bfloat16:
        return recipe
    adapter, quantization = recipe.adapter, recipe.quantization
    return replace(
        recipe,
        dtype=_half(recipe.dtype),
        adapter=adapter and replace(adapter, dtype=_half(adapter.dtype)),
        quantization=quantization and replace(quantization, compute_dtype=_half(quantization.compute_dtype)),
    )


def _check_attention(attention: str, gpu: GpuSpec) -> None:
    if attention != "flash_attention_2" or gpu.kernels.flash_attention_2:
        return
    what = f"flash_attention_2 has no kernels for {gpu.name}."
    if gpu.compute_capability is not None:
        major, minor = gpu.compute_capability
        what = f"flash_attention_2 needs compute capability 8.0 (Ampere); {gpu.name} has {major}.{minor}."
    raise SpecError(what, "Use --attention sdpa.")


def _without_bfloat16(gpu: GpuSpec) -> str:
    return f"{gpu.name} has no bfloat16: priced in float16."


def _half(dtype: DType) -> DType:
    return DType.FLOAT16 if dtype is DType.BFLOAT16 else dtype
