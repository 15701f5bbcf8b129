"""In which order the weights of a quantized model come to the card."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

from peftbench.catalog.models import list_models
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.workload import workload_of
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec, TrainingSpec

pytestmark = pytest.mark.filterwarnings("ignore")


def test_weights_are_loaded_in_16_bit_and_cast_when_all_are_there() -> None:
    """prepare_model_for_kbit_training: each comes in float32 before its 16-bit one goes, embeddings first."""
    config = next(m.config for m in list_models() if m.id == "HuggingFaceTB/SmolLM2-135M")
    recipe = TrainingSpec(
        sequence_length=8, adapter=AdapterSpec(target_modules=("q_proj",)),
        quantization=QuantizationSpec(upcast_unquantized=True),
    )  # fmt: skip
    with DryRunSession() as session:
        trace = session.trace(workload_of({**config, "num_hidden_layers": 1}, recipe, None))
    table = [n for n, block in enumerate(trace.blocks) if block.module == "model.embed_tokens" and block.dtype]
    wide = trace.blocks[table[0]]
    loaded = next(n for n, block in enumerate(trace.blocks) if block.bytes == wide.bytes // 2 and n < table[0])
    position = trace.events.index
    assert wide.dtype == "float32"
    assert position(loaded) < position(table[0]) < position(~loaded)
    assert trace.blocks[0].bytes < wide.bytes  # caching_allocator_warmup counts what is loaded


def test_what_is_loaded_on_the_cpu_asks_for_no_block_as_large_as_the_model() -> None:
    config = next(m.config for m in list_models() if m.id == "HuggingFaceTB/SmolLM2-135M")
    asked = {}
    with DryRunSession() as session:
        for device_map in ("auto", "none"):
            recipe = TrainingSpec(sequence_length=8, device_map=device_map, adapter=AdapterSpec())
            trace = session.trace(workload_of({**config, "num_hidden_layers": 1}, recipe, None))
            asked[device_map] = [block.bytes for block in trace.blocks[:4]]
    warm_up, *loaded = asked["auto"]
    assert asked["none"][:3] == loaded and warm_up > loaded[0]
