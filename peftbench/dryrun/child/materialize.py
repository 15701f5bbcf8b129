"""Describe a model's tensors on the card, in the order and form in which `from_pretrained` leaves them there.

Quantized weights get the tensors that bitsandbytes makes: codes, constants of blocks, and those of double
quantization. What they hold does not exist, so the classes' own quantization cannot run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peftbench.dryrun.fake.quantized import Int8Params, Params4bit, is_quantized
from peftbench.dryrun.trace.recorder import Recorder
from peftbench.inputs.recipe import InferenceSpec, QuantizationSpec, TrainingSpec
from peftbench.libraries.model import torch_dtype
from peftbench.memory import Part

NESTED_BLOCKSIZE = 256
LOADING = "loading"


def materialize(model: nn.Module, recipe: TrainingSpec | InferenceSpec, recorder: Recorder, device_type: str) -> None:
    """Replace every tensor of the model by a fake one on this device, and record it with its part if it is the card."""
    maker = _Maker(recipe, recorder, device_type)
    if device_type == recorder.device_type and (isinstance(recipe, InferenceSpec) or recipe.loads_on_card):
        _warm_up(model, recipe.quantization, maker)
    for name, module in model.named_modules():
        maker.module(name, module)
    maker.upcast()


def _warm_up(model: nn.Module, quantization: QuantizationSpec | None, maker: _Maker) -> None:
    """One block as large as the model, freed at once, so that loading asks the driver for memory only once.

    Source: caching_allocator_warmup in transformers/modeling_utils.py; a 4-bit weight counts half a byte.
    """
    recorder = maker.recorder
    if recorder.device_type != "cuda":
        return
    size_bytes = 0
    for tensor in {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values():
        if quantization and is_quantized(tensor):
            size_bytes += tensor.numel() // 2 if quantization.four_bit else tensor.numel()
        else:
            size_bytes += maker.loaded_bytes(tensor) or tensor.nbytes
    recorder.release(recorder.scratch(size_bytes, "caching_allocator_warmup", Part.WEIGHTS))


class _Maker:
    """Makes each tensor once, however many modules share it."""

    def __init__(self, recipe: TrainingSpec | InferenceSpec, recorder: Recorder, device_type: str) -> None:
        self.quantization, self.recorder, self.device_type = recipe.quantization, recorder, device_type
        self.sharded = recipe.parallelism.shards_weights
        self.made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """The fake of each meta tensor by its id, beside the tensor itself, so that its id stays its own."""
        casts = self.quantization and (self.quantization.upcast_unquantized or self.quantization.upcast_norms)
        self.loaded_itemsize = recipe.dtype.bytes if casts and device_type == recorder.device_type else 0
        self.waiting: list[tuple[torch.Tensor, str, Part, int]] = []
        """What is cast when all is loaded: the wide tensor, its module and part, and the block of what was loaded."""

    def module(self, name: str, module: nn.Module) -> None:
        """Exchange the module's own tensors, also those that are plain attributes."""
        for tensors, kind in ((module._parameters, nn.Parameter), (module._buffers, None)):
            for key, tensor in list(tensors.items()):
                if tensor is not None:
                    tensors[key] = self._fake(tensor, module, name, kind)
        for key, value in list(vars(module).items()):
            if key not in ("_parameters", "_buffers", "_modules"):
                exchanged = self._exchanged(value, module, name)
                if exchanged is not value:
                    vars(module)[key] = exchanged

    def _exchanged(self, value: Any, module: nn.Module, name: str) -> Any:
        """Tensors that a layer keeps outside its buffers, alone or in a dict or list."""
        if isinstance(value, torch.Tensor):
            return self._fake(value, module, name, None)
        items = value.values() if type(value) is dict else value if type(value) is list else ()
        if not any(isinstance(item, torch.Tensor) for item in items):
            return value
        made = [self._exchanged(item, module, name) for item in items]
        return dict(zip(value, made, strict=True)) if type(value) is dict else made

    def _fake(self, tensor: torch.Tensor, module: nn.Module, name: str, kind: type[nn.Parameter] | None) -> Any:
        if id(tensor) not in self.made:
            self.made[id(tensor)] = (tensor, self._make(tensor, module, name, kind))
        return self.made[id(tensor)][1]

    def _make(self, tensor: torch.Tensor, module: nn.Module, name: str, kind: type[nn.Parameter] | None) -> Any:
        if self.quantization and is_quantized(tensor):
            if not self.quantization.four_bit:
                return _eight_bit(tensor, module, name, self.quantization, self.recorder)
            storage = torch_dtype(self.quantization.compute_dtype) if self.sharded else torch.uint8
            return _four_bit(tensor, module, name, self.quantization, self.recorder, storage)
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=self.device_type)
        unquantized = Part.EXPERTS if tensor.dim() == 3 else Part.UNQUANTIZED
        part = unquantized if self.quantization else Part.WEIGHTS
        if loaded := self.loaded_bytes(tensor):
            self.waiting.append((made, name, part, self.recorder.scratch(loaded, LOADING, part)))
        else:
            self._note(made, name, part)
        if kind is None and not isinstance(tensor, nn.Parameter):
            return made.requires_grad_(tensor.requires_grad)
        return nn.Parameter(made, requires_grad=tensor.requires_grad)

    def _note(self, made: torch.Tensor, name: str, part: Part) -> None:
        self.recorder.adopt(made, LOADING, name)
        self.recorder.is_part(part, made)

    def loaded_bytes(self, tensor: torch.Tensor) -> int:
        """What a parameter that is float32 by now was loaded as; 0 for one that is as it was."""
        cast = isinstance(tensor, nn.Parameter) and tensor.dtype is torch.float32 and self.loaded_itemsize
        return tensor.numel() * self.loaded_itemsize if cast and self.loaded_itemsize < tensor.element_size() else 0

    def upcast(self) -> None:
        """prepare_model_for_kbit_training: each parameter in float32, then the one that was loaded goes."""
        for made, name, part, number in self.waiting:
            self._note(made, name, part)
            self.recorder.release(number)


# ── bitsandbytes ────────────────────────────────────────────────────────────────────────────────────────────────────


def _four_bit(
    tensor: Any, module: Any, name: str, quantization: QuantizationSpec, recorder: Recorder, storage: torch.dtype
) -> Any:  # fmt: skip
    """A Params4bit in all but its class, which cannot hold a fake tensor; `storage` is bnb_4bit_quant_storage.

    Source: Params4bit._quantize and quantize_4bit in bitsandbytes.
    """
    from bitsandbytes.functional import QuantState

    empty = _recording(recorder, name)
    numel, blocksize = tensor.numel(), quantization.blocksize
    blocks = -(-numel // blocksize)
    original = recorder.scratch(numel * tensor.element_size(), "quantize_4bit", Part.WEIGHTS)
    codes = empty((-(-((numel + 1) // 2) // storage.itemsize), 1), storage, Part.WEIGHTS)
    common = {
        "shape": tensor.shape, "dtype": tensor.dtype, "blocksize": blocksize, "quant_type": quantization.quant_type,
        "code": empty((16,), torch.float32, Part.QUANTIZATION_CONSTANTS),
    }  # fmt: skip
    if quantization.double_quant:
        plain = recorder.scratch(blocks * 4, "quantize_4bit", Part.QUANTIZATION_CONSTANTS)
        nested = QuantState(
            absmax=empty((-(-blocks // NESTED_BLOCKSIZE),), torch.float32, Part.QUANTIZATION_CONSTANTS),
            blocksize=NESTED_BLOCKSIZE, dtype=torch.float32,
            code=empty((256,), torch.float32, Part.QUANTIZATION_CONSTANTS),
        )  # fmt: skip
        absmax = empty((blocks,), torch.uint8, Part.QUANTIZATION_CONSTANTS)
        offset = empty((), torch.float32, Part.QUANTIZATION_CONSTANTS)
        state = QuantState(absmax=absmax, offset=offset, state2=nested, **common)
        recorder.release(plain)
    else:
        state = QuantState(absmax=empty((blocks,), torch.float32, Part.QUANTIZATION_CONSTANTS), **common)
    recorder.release(original)
    weight: Any = nn.Parameter(codes, requires_grad=False)
    weight.__class__ = Params4bit
    weight.quant_state, weight.bnb_quantized, weight.module = state, True, module
    weight.compress_statistics, weight.quant_type = quantization.double_quant, quantization.quant_type
    weight.blocksize, weight.quant_storage = blocksize, storage
    module.quant_state, module.quant_storage = state, storage
    return weight


def _eight_bit(tensor: Any, module: nn.Module, name: str, quantization: QuantizationSpec, recorder: Recorder) -> Any:
    """An Int8Params in all but its class: int8 rows, and a float32 scale a row.

    Source: Int8Params._quantize in bitsandbytes/nn/modules.py.
    """
    empty = _recording(recorder, name)
    original = recorder.scratch(tensor.numel() * 2, "int8_vectorwise_quant", Part.WEIGHTS)
    weight: Any = nn.Parameter(empty(tensor.shape, torch.int8, Part.WEIGHTS), requires_grad=False)
    weight.__class__ = Int8Params
    weight.CB, weight.has_fp16_weights = weight.data, False
    weight.SCB = empty((tensor.shape[0],), torch.float32, Part.QUANTIZATION_CONSTANTS)
    recorder.release(original)
    return weight


def _recording(recorder: Recorder, name: str) -> Callable[[tuple[int, ...], torch.dtype, Part], torch.Tensor]:
    def empty(shape: tuple[int, ...], dtype: torch.dtype, part: Part) -> torch.Tensor:
        made = torch.empty(shape, dtype=dtype, device=recorder.device_type)
        recorder.adopt(made, LOADING, name)
        recorder.is_part(part, made)
        return made

    return empty
