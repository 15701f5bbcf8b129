"""Recipes and cards for the tests of decisions."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from peftbench.base.units import GIB
from peftbench.catalog.gpus import find_gpu, gpu_of_size
from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.inputs.recipe import DType, TrainingSpec
from peftbench.inputs.recipe.training import DEVICE_MAPS, LOOPS, LOSSES

SMALL = find_model("Qwen/Qwen2.5-0.5B")
LLAMA_8B = find_model("8b")
T4, A100 = find_gpu("t4"), find_gpu("a100-80gb")

FULL = TrainingSpec()
LORA_16 = TrainingSpec(adapter=LORA)
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))

RECIPES = st.builds(
    lambda method, r, **fields: replace(
        method, **fields, adapter=method.adapter and replace(method.adapter, r=r)
    ),
    st.sampled_from((FULL, LORA_16, QLORA)),
    st.sampled_from((4, 16, 64)),
    sequence_length=st.integers(1, 4096),
    micro_batch_size=st.integers(1, 9),
    gradient_checkpointing=st.booleans(),
    autocast=st.booleans(),
    use_cache=st.booleans(),
    zero_grad_keeps=st.booleans(),
    optimizer=st.sampled_from(("adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor")),
    attention=st.sampled_from(("sdpa", "eager")),
    loss=st.sampled_from(LOSSES),
    loop=st.sampled_from(LOOPS),
    device_map=st.sampled_from(DEVICE_MAPS),
)
"""Recipes of the small model, good and bad."""

CARDS = st.one_of(
    st.sampled_from((T4, find_gpu("l4"), A100)),
    st.integers(1, 200).map(lambda quarters: gpu_of_size(GIB + quarters * GIB // 4)),
)
