"""FSDP2 on a fake model: torch's own, put there by Accelerate's own code, which also decides on units and dtypes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup
from torch.distributed.tensor._sharding_prop import ShardingPropagator

from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.fake.quantized import Params4bit, is_quantized
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.inputs.recipe import TrainingSpec
from peftbench.libraries.model import autocast_dtype
from peftbench.memory import Part

_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", None: "no"}
"""What Accelerate calls dtypes of mixed precision."""


def shard(model: Any, recipe: TrainingSpec, recorder: Recorder, adapters: set[int]) -> None:
    """Cut the model's parameters as Accelerate does, which moves them to the card unit by unit.

    `adapters` has the ids of the parameters that PEFT made.
    """
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    parts = {name: _part(parameter, recipe, adapters) for name, parameter in model.named_parameters()}
    accelerator = _accelerator(recipe)
    moves = mock.patch("torch.distributed.fsdp._fully_shard._fsdp_init._move_states_to_device", _move)
    with recorder, recorder.holding(Part.LOADING), moves:
        fsdp2_prepare_model(accelerator, model)
    for name, parameter in model.named_parameters():
        recorder.is_part(parts[name], parameter, module=name.rpartition(".")[0])


def _part(parameter: nn.Parameter, recipe: TrainingSpec, adapters: set[int]) -> Part:
    if id(parameter) in adapters:
        return Part.ADAPTERS
    return Part.UNQUANTIZED if recipe.quantization and not is_quantized(parameter) else Part.WEIGHTS


def _accelerator(recipe: TrainingSpec) -> Any:
    """What fsdp2_prepare_model asks of an Accelerator, which would want processes and cards."""
    from accelerate import FullyShardedDataParallelPlugin

    parallelism = recipe.parallelism
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False,
        reshard_after_forward=parallelism.strategy == "fsdp", cpu_offload=parallelism.cpu_offload,
    )  # fmt: skip
    mixed = _NAMES[autocast_dtype(recipe, CARD.has_bfloat16)]
    if mixed != "no":
        plugin.set_mixed_precision(mixed)
    return SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision=mixed, is_main_process=False,
        device=torch.device("cuda"), parallelism_config=SimpleNamespace(fsdp_dim_names=("dp_shard",)),
        torch_device_mesh={("dp_shard",): _mesh()},
    )  # fmt: skip


def _move(parameters: list[Any], buffers: list[Any], device: torch.device) -> None:
    """What FSDP does to bring tensors to the card; a fake one also has to be told where it is."""
    for tensor in (*parameters, *buffers):
        if tensor.device != device:
            tensor.data = tensor.to(device)
            tensor.fake_device = device


def _mesh() -> Any:
    """All GPUs in a row; the numbers of the processes are real."""
    with unset_fake_temporarily():
        return init_device_mesh("cuda", (torch.distributed.get_world_size(),))


# ── what is recorded ────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Let the recorder see memory that FSDP gives back and takes again, and which part its buffers are.

    DTensors find out the shape of a result by an operation on whole tensors, which asks a card for nothing.
    """
    gathers, reduces = (functools.partial(recorder.holding, part) for part in (Part.GATHERED, Part.BUCKETS))
    with (
        _around(FSDPParamGroup, "unshard", gathers),
        _around(FSDPParamGroup, "wait_for_unshard", gathers),
        _around(_fsdp_param_group, "foreach_reduce", reduces),
        _around(ShardingPropagator, "_propagate_tensor_meta_non_cached", recorder.pause),
        _resizes(recorder),
        mock.patch("bitsandbytes.nn.modules.fix_4bit_weight_quant_state_from_module", _find_state),
    ):
        yield


def _around(owner: Any, name: str, context: Callable[[], Any]) -> Any:
    """Patch a function so that it runs within this context."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return mock.patch.object(owner, name, around)


def _find_state(module: Any) -> None:
    """What bitsandbytes does to a gathered weight, which has lost its class and its constants, without a new tensor."""
    if getattr(module.weight, "quant_state", None) is None:
        module.weight.__class__ = Params4bit
        module.weight.quant_state = module.quant_state


def _resizes(recorder: Recorder) -> Any:
    resize = torch.UntypedStorage.resize_

    def resized(storage: torch.UntypedStorage, size_bytes: int) -> Any:
        recorder.resized(storage, size_bytes)
        return resize(storage, size_bytes)

    return mock.patch.object(torch.UntypedStorage, "resize_", resized)


def whole_gradients(model: nn.Module) -> Iterator[torch.Tensor | None]:
    """Gradients that wait for the last micro-batch, in the type they came in or cast to that of the reduction."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            for group in module._get_fsdp_state()._fsdp_param_groups:
                for parameter in group.fsdp_params:
                    if hasattr(parameter, "_unsharded_param"):
                        yield parameter._unsharded_param.grad
                        yield parameter.unsharded_accumulated_grad
