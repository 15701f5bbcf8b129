"""What is refused under sharding is what the libraries really cannot do: bitsandbytes on parts of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

import bitsandbytes as bnb
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from peftbench.base.errors import SpecError
from peftbench.catalog.models import find_model
from peftbench.estimate.training import estimate_training
from peftbench.inputs.recipe import AdapterSpec, ParallelismSpec, QuantizationSpec, TrainingSpec

pytestmark = pytest.mark.oracle

MODEL = find_model("Qwen/Qwen2.5-0.5B")
FSDP = ParallelismSpec(gpus=2, strategy="fsdp")


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """FSDP2 makes DTensors for a single process too."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def mesh() -> Any:
    return init_device_mesh("cpu", (1,))


@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW32bit"])
def test_bitsandbytes_cannot_step_parts_of_fsdp2(group_of_one: None, name: str) -> None:
    linear = fully_shard(torch.nn.Linear(64, 64, bias=False), mesh=mesh())
    optimizer = getattr(bnb.optim, name)(linear.parameters())
    linear(torch.ones(1, 64)).sum().backward()
    with pytest.raises((RuntimeError, NotImplementedError), match=r"DTensor|sharding strategy"):
        optimizer.step()


def test_int8_weights_lose_their_scales_when_they_are_cut(group_of_one: None) -> None:
    linear = bnb.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False).requires_grad_(False).to("cpu")
    with pytest.raises(AttributeError, match="CB"):
        fully_shard(linear, mesh=mesh())(torch.ones(1, 64, dtype=torch.float16))


@pytest.mark.parametrize("optimizer", ["adamw_bnb_8bit", "paged_adamw_32bit", "lion_8bit"])
def test_the_estimate_refuses_these_optimizers(optimizer: str) -> None:
    with pytest.raises(SpecError, match="DTensors"):
        estimate_training(MODEL, TrainingSpec(optimizer=optimizer, parallelism=FSDP))
    for fields in ({"transformers": "4.48"}, {"parallelism": ParallelismSpec(gpus=2, strategy="zero3")}):
        training = TrainingSpec(**{"optimizer": optimizer, "parallelism": FSDP, **fields})
        assert estimate_training(MODEL, training).allocated_bytes


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp-grad-op", "zero3"])
def test_the_estimate_refuses_cut_int8_weights(strategy: str) -> None:
    training = TrainingSpec(
        adapter=AdapterSpec(r=8, target_modules=("all-linear",)),
        quantization=QuantizationSpec(quant_type="int8"),
        parallelism=ParallelismSpec(gpus=2, strategy=strategy),
    )
    with pytest.raises(SpecError, match="8-bit"):
        estimate_training(MODEL, training)
