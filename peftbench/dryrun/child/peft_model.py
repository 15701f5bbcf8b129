"""Put an adapter on a model that is described on the card: PEFT's own code, on fake tensors, in its own order.

PEFT makes most tensors on the CPU and moves them to the card, a few on the card; some lists of indices stay behind.
Where each is, and what was there for a moment, shows by itself.
"""

from __future__ import annotations

import contextlib
import os
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from peftbench.dryrun.child.peft_config import peft_config
from peftbench.dryrun.child.split_experts import splits_experts
from peftbench.dryrun.child.tuners import stand_in_for_values
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.dryrun.workload import Workload
from peftbench.inputs.recipe import DType, TrainingSpec, left_out_note
from peftbench.libraries.adapter import cast_adapter, leave_out
from peftbench.libraries.refusal import Refused, in_a_line
from peftbench.memory import Part


def adapt(model: nn.Module, workload: Workload, recorder: Recorder, device_type: str) -> nn.Module:
    """The model, which is on this device, with the workload's adapter, if it has one.

    Raises Refused where PEFT will not put it there.
    """
    if not (workload.recipe.adapter or workload.adapter_config):
        return model
    before = [(weakref.ref(tensor), _storage(tensor)) for tensor in (*model.parameters(), *model.buffers())]
    adapted = _adapted(model, workload, recorder, device_type)
    base = {id(tensor): storage for reference, storage in before if (tensor := reference()) is not None}
    _settle(adapted, workload, set(base))
    for name, module in adapted.named_modules():
        owner = name.removeprefix(WRAPPED)
        for tensor in _own_tensors(module):
            if id(tensor) not in base:
                recorder.is_part(Part.ADAPTERS, tensor, module=owner)
            elif base[id(tensor)] != _storage(tensor):  # PiSSA takes what it trains out of the weights
                recorder.is_part(Part.WEIGHTS, tensor, module=owner)
    return adapted


WRAPPED = "base_model.model."
"""What PEFT puts before the names of transformers' modules."""


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _adapted(model: Any, workload: Workload, recorder: Recorder, device: str) -> nn.Module:
    from peft import get_peft_model

    config = peft_config(workload)
    left_out = leave_out(model, config)
    if left_out:
        recorder.notes.append(left_out_note(left_out, model.config.model_type))
    if any(isinstance(parameter, FakeTensor) for parameter in model.parameters()):
        stand_in_for_values()
    if config.peft_type == "XLORA":
        model.config.use_cache = False  # it asks for that
    recipe = workload.recipe
    in_float32 = recipe.adapter is None or recipe.adapter.dtype is DType.FLOAT32
    try:
        with mock.patch.object(nn.Module, "_apply", _apply), _names_as_given(workload):
            adapted: nn.Module = get_peft_model(model, config, autocast_adapter_dtype=in_float32)
            if isinstance(recipe, TrainingSpec) and recipe.loop == "trainer" and not recipe.quantization:
                adapted.to(device)  # Trainer._move_model_to_device
    except Exception as error:  # PEFT refuses with errors of every kind
        what = f"PEFT cannot put this adapter on the model: {in_a_line(error)}"
        raise Refused(what, "Choose other target modules or another type.") from error
    return adapted


@contextlib.contextmanager
def _names_as_given(workload: Workload) -> Iterator[None]:
    """Where experts are modules, PEFT must not take their names for those of fused parameters."""
    from peft.utils import transformers_weight_conversion as conversion

    if not splits_experts(workload):
        yield
        return
    with mock.patch.object(conversion, "convert_peft_config_for_transformers", lambda *args, **kwargs: None):
        yield


@contextlib.contextmanager
def blaming_peft(model: Any, workload: Workload) -> Iterator[None]:
    """Some types of PEFT take a layer and fail in their first step, on real tensors too: say which did, and on what."""
    config = getattr(model, "active_peft_config", None)
    quantization = workload.recipe.quantization if config is not None and config.peft_type != "LORA" else None
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        if not (quantization or _stopped_in_peft(error)):
            raise
        name = config.peft_type.value.lower() if config is not None else "adapter"
        layers = f"{quantization.quant_type} weights" if quantization else "this model"
        what = f"PEFT's {name} does not run on {layers}: {in_a_line(error)}"
        raise Refused(what, "Choose other target modules, another type, or no quantization.") from error


def _stopped_in_peft(error: BaseException) -> bool:
    """Whether the last of the libraries' own lines is PEFT's."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in files if f"{os.sep}peft{os.sep}" in file or f"{os.sep}transformers{os.sep}models" in file]
    return bool(own) and f"{os.sep}peft{os.sep}" in own[-1]


def _settle(model: nn.Module, workload: Workload, base: set[int]) -> None:
    """Whether it is trained, and in which type."""
    adapter = workload.recipe.adapter
    if not isinstance(workload.recipe, TrainingSpec):
        model.requires_grad_(False)
    elif not any(parameter.requires_grad for parameter in model.parameters()):
        raise Refused("the adapter trains nothing on this model.", "Name modules that the model has.")
    if adapter is not None:
        cast_adapter(model, base, adapter.dtype)


def _own_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers (both in dicts of the module) and what it keeps beside them, alone or in a dict or list."""
    for value in vars(module).values():
        items = value.values() if type(value) is dict else value if type(value) is list else (value,)
        yield from (item for item in items if isinstance(item, torch.Tensor))


def _apply(self: nn.Module, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module._apply for fakes: it would exchange what is inside a parameter, which a fake does not allow."""
    for child in self.children() if recurse else ():
        child._apply(fn)
    for tensors in (self._parameters, self._buffers):
        for key, tensor in tensors.items():
            if tensor is not None:
                tensors[key] = _moved(tensor, fn)
    return self


def _moved(tensor: Any, fn: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The tensor where and as it shall be; one parameter that two modules share stays one."""
    with torch.no_grad():
        moved = fn(tensor)
    if moved is tensor:
        return tensor
    known = getattr(tensor, "moved", None)
    if known is not None and (known.device, known.dtype) == (moved.device, moved.dtype):
        return known
    if isinstance(tensor, nn.Parameter):
        moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
    tensor.moved = moved
    return moved
