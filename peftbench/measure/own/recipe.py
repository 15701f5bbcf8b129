"""What recipe a user's own Trainer runs: read from its model, its arguments and the batches that it sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from peftbench.inputs.case import TRACKED_STEPS, Case
from peftbench.inputs.recipe import AdapterSpec, DType, QuantizationSpec, TrainingSpec
from peftbench.libraries.model import causal_lm_of

ReadAdapter = Callable[[Mapping[str, object]], AdapterSpec]
"""From the fields of PEFT's configuration, as in adapter_config.json; raises SpecError for what a spec cannot hold."""


class SeenBatches:
    """The largest batch so far, and whether any was padded."""

    def __init__(self) -> None:
        self.sequences = self.length = 0
        self.padded = False

    def see(self, batch: Mapping[str, Any]) -> None:
        """One micro-batch, as the model is given it."""
        tokens, mask = batch.get("input_ids"), batch.get("attention_mask")
        if isinstance(tokens, torch.Tensor) and tokens.dim() == 2:
            self.sequences, self.length = max(self.sequences, tokens.shape[0]), max(self.length, tokens.shape[1])
        if isinstance(mask, torch.Tensor) and not self.padded:
            self.padded = not bool(mask.all())


def case_of(model: Any, arguments: Any, batches: SeenBatches, steps: int, read_adapter: ReadAdapter) -> Case:
    """The case that such a run is; `steps` are those that were timed. Raises SpecError where no spec says it."""
    config = causal_lm_of(model).config.to_dict()
    return Case(
        id="own", model=str(config.get("_name_or_path") or "own model"),
        config=json.dumps(config, sort_keys=True, default=str),
        recipe=recipe_of(model, arguments, batches, read_adapter), steps=max(steps, 1), warmup_steps=TRACKED_STEPS,
        learning_rate=arguments.learning_rate, seed=arguments.seed,
        device="cuda" if arguments.device.type == "cuda" else "cpu",
    )  # fmt: skip


def recipe_of(model: Any, arguments: Any, batches: SeenBatches, read_adapter: ReadAdapter) -> TrainingSpec:
    """Every field of the spec that the live objects show."""
    causal_lm = causal_lm_of(model)
    adapters = getattr(model, "peft_config", None) or {}
    adapter = read_adapter(_plain(next(iter(adapters.values())).to_dict())) if adapters else None
    kwargs = getattr(arguments, "gradient_checkpointing_kwargs", None) or {}
    dtype = DType(str(causal_lm.get_input_embeddings().weight.dtype).removeprefix("torch."))
    quantization = _quantization(causal_lm)
    if quantization and quantization.upcast_unquantized:
        dtype = quantization.compute_dtype
    return TrainingSpec(
        sequence_length=batches.length,
        padded=batches.padded,
        micro_batch_size=batches.sequences,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        gradient_checkpointing=_checkpoints(causal_lm),
        use_reentrant=bool(kwargs.get("use_reentrant", False)),
        dtype=dtype,
        autocast=arguments.bf16 or arguments.fp16,
        optimizer=str(getattr(arguments.optim, "value", arguments.optim)),
        attention=_attention(causal_lm.config),
        loss="liger" if arguments.use_liger_kernel else "transformers",
        fused_kernels="liger" if arguments.use_liger_kernel else "none",
        use_cache=bool(causal_lm.config.use_cache),
        adapter=adapter,
        quantization=quantization,
    )


def _plain(config: Mapping[str, Any]) -> dict[str, object]:
    """The configuration as PEFT writes it to a file: names for enumerations, lists for sets."""
    return {
        name: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for name, value in config.items()
    }  # fmt: skip


def _checkpoints(causal_lm: Any) -> bool:
    """transformers 5.23 renamed it, and warns of the old name."""
    name = "is_activation_checkpointing"
    return bool(getattr(causal_lm, name if hasattr(type(causal_lm), name) else "is_gradient_checkpointing", False))


def _attention(config: Any) -> str:
    chosen = getattr(config, "_attn_implementation", None)
    return chosen if chosen in ("eager", "flash_attention_2") else "sdpa"


def _quantization(causal_lm: Any) -> QuantizationSpec | None:
    """What the model's configuration says, and whether prepare_model_for_kbit_training cast the rest to float32.

    Raises SpecError for a scheme without a row.
    """
    config = getattr(causal_lm.config, "quantization_config", None)
    if config is None:
        return None
    given = config if isinstance(config, Mapping) else config.to_dict()
    method = given.get("quant_method") or "bitsandbytes"
    method = str(getattr(method, "value", method))
    if method != "bitsandbytes":
        return QuantizationSpec(quant_type=method, blocksize=given.get("group_size"))
    upcast = causal_lm.get_input_embeddings().weight.dtype is torch.float32
    if given.get("load_in_8bit"):
        return QuantizationSpec(quant_type="int8", upcast_unquantized=upcast)
    compute = str(given.get("bnb_4bit_compute_dtype", "float32")).removeprefix("torch.")
    return QuantizationSpec(
        quant_type=str(given.get("bnb_4bit_quant_type", "fp4")),
        double_quant=bool(given.get("bnb_4bit_use_double_quant")),
        compute_dtype=DType(compute),
        upcast_unquantized=upcast and compute != DType.FLOAT32.value,
    )
