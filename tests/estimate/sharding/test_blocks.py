"""The sizes of FSDP2's units, as dry runs record them."""

from dataclasses import replace

from peftbench.catalog.models import find_model
from peftbench.decide.recipe import LORA, quantization_for
from peftbench.estimate.replay.shards import Sharding
from peftbench.estimate.sharding.blocks import sharding_of
from peftbench.estimate.training import trained_tensors
from peftbench.inputs.recipe import DType, ParallelismSpec, TrainingSpec

SMALL, LLAMA_8B = find_model("llama-3.2-1b"), find_model("8b")
QLORA = TrainingSpec(adapter=LORA, quantization=quantization_for(DType.BFLOAT16))


def cut(training: TrainingSpec, gpus: int, **fields: object) -> Sharding:
    shared = replace(training, parallelism=ParallelismSpec(gpus=gpus, strategy="fsdp", **fields))
    return sharding_of(SMALL, shared, trained_tensors(SMALL, shared))


def test_a_layer_of_llama_is_gathered_and_reduced_in_these_blocks() -> None:
    """A dry run of full fine-tuning on four GPUs: its buffers have 60,821,504 elements, a GPU's part 15,205,376."""
    layer = cut(TrainingSpec(), 4).units[1]
    assert layer is not None
    assert sum(layer.whole) == layer.bucket_bytes == 2 * 60_821_504
    assert layer.casts == ((0, 2 * 15_205_376),)
    assert layer.reduced_bytes == 2 * 15_205_376 and layer.gradient_bytes == 4 * 15_205_376


def test_tied_embeddings_are_in_the_heads_unit() -> None:
    units = cut(TrainingSpec(), 4).units
    assert units[0] is None and units[-1] is not None and sum(units[-1].whole) == 2 * 262_670_336


def test_parts_on_the_host_come_and_are_cast_one_by_one() -> None:
    layer = cut(TrainingSpec(), 4, cpu_offload=True).units[1]
    assert layer is not None and layer.casts[0] == (4 * 1_048_576, 2 * 1_048_576) and len(layer.casts) == 9


def test_only_adapters_are_cast_and_reduced_beside_frozen_weights() -> None:
    """A dry run of LoRA on two GPUs casts 352,256 elements and gathers 61,526,016."""
    layer = cut(TrainingSpec(adapter=LORA), 2).units[1]
    assert layer is not None
    assert layer.casts == ((0, 2 * 352_256),) and layer.reduced_bytes == 2 * 352_256
    assert sum(layer.whole) == 2 * 61_526_016


def test_constants_of_codes_come_with_a_layer_unless_the_whole_model_was_there() -> None:
    whole, parts = (cut(QLORA, 2, loading=loading) for loading in (None, "sharded"))
    assert whole.loads_whole and not parts.loads_whole
    assert whole.units[1] is not None and not whole.units[1].constants
    assert parts.units[1] is not None and len(parts.units[1].constants) == 7


def test_each_parameter_is_padded_to_equal_parts() -> None:
    unit = cut(TrainingSpec(), 3).units[1]
    assert unit is not None and unit.whole[0] == 3 * 683 * 2048 * 2
