"""Watch the tensors of fake code being made and dropped, as the caching allocator of a card would see them.

The recorder is a dispatch mode above FakeTensorMode. A storage is allocated when an operation returns it for the first
time and freed when its last owner, Python or autograd, drops it. What a kernel allocates inside is added from
`scratch.py`. In one respect autograd behaves differently under a dispatch mode and is put right: see `_takes_over`.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from peftbench.dryrun.fake.card import CARD
from peftbench.dryrun.fake.known import learn
from peftbench.dryrun.fake.streams import current_stream
from peftbench.dryrun.fake.values import ANSWERS, OPEN
from peftbench.dryrun.trace.scratch import GEMMS, SCRATCH
from peftbench.dryrun.trace.trace import EMPTY_CACHE, Block, Mark
from peftbench.estimate.parts.card import cublas_workspace_bytes
from peftbench.memory import Part, Phase

_DEVICE = torch.ops.prim.device.default
_ADD = torch.ops.aten.add.Tensor
_INTO_ZEROS = ("aten::index_put", "aten::index_add", "aten::scatter", "aten::scatter_add", "aten::put")
_ZEROS = ("aten::new_zeros", "aten::zeros", "aten::zeros_like")
_PYTORCH_FRAMES = ("_python_dispatch.py", "_ops.py", "_stats.py", "eval_frame.py", "_compile.py")
"""Files of torch between the C++ engine and a dispatch mode."""


@dataclass(slots=True)
class RecordedBlock:
    """An allocation under way; `part` may be set later, when it turns out what the tensor is."""

    bytes: int
    phase: Phase
    forward: bool
    """Made by the model that ran, in backward where it is recomputed; otherwise by autograd."""
    module: str
    operation: str
    part: Part | None = None
    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    stream: int = 0


class Recorder(TorchDispatchMode):
    """Records what happens on one type of device while the mode is on; `modules` is kept from outside."""

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.blocks: list[RecordedBlock] = []
        self.events: list[int] = []
        self.marks: list[Mark] = []
        self.notes: list[str] = []
        """Sentences on what was run, for whoever reads the answer."""
        self.phase = Phase.LOAD
        self.modules: list[str] = [""]
        """The modules that are running, the innermost last."""
        self._live: dict[int, tuple[int, Any]] = {}
        self._empty: set[int] = set()
        """Storages that live without memory."""
        self._streams: dict[int, int] = {0: 0}
        self._holding: Part | None = None
        self._paused = False
        self._handles: set[Phase] = set()
        self._sole = (sys.maxsize, sys.maxsize)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No wrapper of dynamo around every operation: it would take longer than the operation."""
        return False

    def mark(self, name: str, step: int) -> None:
        """Begin a phase of a step, or note with EMPTY_CACHE that the cache is emptied."""
        self.marks.append(Mark(len(self.events), step, str(name)))
        if name != EMPTY_CACHE:
            self.phase = Phase(name)

    # ── blocks ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The number of the block that holds this tensor, if it was recorded and is alive."""
        found = self._live.get(tensor.untyped_storage()._cdata)
        return found[0] if found else None

    def is_part(self, part: Part, *tensors: object, module: str | None = None) -> None:
        """Say what the blocks of these tensors hold, and whose they are if it is not the one that was running.

        What is not a recorded tensor is passed over.
        """
        for given in tensors:
            tensor = given._local_tensor if isinstance(given, DTensor) else given
            number = self.number_of(tensor) if isinstance(tensor, torch.Tensor) else None
            if number is not None:
                self.blocks[number].part = part
                if module is not None:
                    self.blocks[number].module = module

    def adopt(self, tensor: torch.Tensor, operation: str, module: str | None = None) -> int | None:
        """Record a tensor's storage as allocated now, unless it is known or on another device."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return self._live[key][0]
        if tensor.device.type != self.device_type:
            return None
        number = self._allocate(storage.nbytes(), operation, self.modules[-1] if module is None else module)
        block = self.blocks[number]
        block.shape, block.dtype = tensor.shape, tensor.dtype
        self._watch(storage, key, number)
        return number

    def _allocate(self, size_bytes: int, operation: str, module: str) -> int:
        number = len(self.blocks)
        forward = self.phase is not Phase.BACKWARD or torch.is_grad_enabled()
        stream = self._streams.setdefault(current_stream().number, len(self._streams))
        block = RecordedBlock(size_bytes, self.phase, forward, module, operation, self._holding, stream=stream)
        self.blocks.append(block)
        self.events.append(number)
        return number

    @contextlib.contextmanager
    def holding(self, part: Part) -> Iterator[None]:
        """What is allocated within belongs to this part."""
        before, self._holding = self._holding, part
        try:
            yield
        finally:
            self._holding = before

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing of what happens within is recorded, though the mode is on."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def resized(self, storage: torch.UntypedStorage, size_bytes: int) -> None:
        """A storage gives its memory back or gets new memory, as those that FSDP gathers weights into."""
        key = storage._cdata
        if key not in self._live:
            return
        number, reference = self._live[key]
        block = self.blocks[number]
        if key not in self._empty:
            self._empty.add(key)
            self.events.append(~number)
        if size_bytes:
            self._empty.remove(key)
            again = self._allocate(size_bytes, block.operation, self.modules[-1])
            self.blocks[again].shape, self.blocks[again].dtype = block.shape, block.dtype
            self._live[key] = (again, reference)

    def scratch(self, size_bytes: int, operation: str, part: Part) -> int:
        """Record memory that a kernel asks for itself; free it with `release`."""
        number = self._allocate(size_bytes, operation, self.modules[-1])
        self.blocks[number].part = part
        return number

    def release(self, number: int) -> None:
        """Free what `scratch` allocated."""
        self.events.append(~number)

    def _watch(self, storage: torch.UntypedStorage, key: int, number: int) -> None:
        """Free the block when the storage dies, unless another storage has taken the block over by then."""

        def died(reference: object) -> None:
            found = self._live.get(key)
            if found is not None and found[1] is reference:
                del self._live[key]
                if key not in self._empty:
                    self.events.append(~found[0])
                self._empty.discard(key)

        self._live[key] = (number, weakref.ref(storage, died))

    # ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE:  # asked of a fake tensor twice as often as all operations together
            return args[0].fake_device
        if DTensor in types:
            return NotImplemented  # its own dispatch comes back here with the tensors within
        if self._paused:
            return func(*args, **(kwargs or {}))
        name = func._schema.name
        backward = self.phase is Phase.BACKWARD
        taken = self._written_to(func, name, args[0]) if args and (backward or CARD.adds_mask) else None
        if func in GEMMS:
            self._open_handle()
        out: Any = OPEN
        if func in ANSWERS:
            with self:  # what the answer is made of is recorded too: the positions that a mask picks are a tensor
                out = ANSWERS[func](*args, **(kwargs or {}))
        if out is OPEN:
            out = func(*args, **kwargs) if kwargs else func(*args)
        learn(func, args, out)
        if taken is None or not self._hand_over(taken, out, name):
            module = self._read_by(args) if backward and len(self.modules) == 1 else None
            for tensor in _tensors(out):
                self.adopt(tensor, name, module)
        if name in SCRATCH and self.device_type == "cuda":
            part, sizes = SCRATCH[name]
            numbers = [self.scratch(size, name, part) for size in sizes(args, kwargs or {}) if size]
            for number in reversed(numbers):
                self.release(number)
        return out

    def _open_handle(self) -> None:
        """cuBLAS gets its workspace with the first matrix product of a thread; backward runs in a thread of its own."""
        thread = Phase.BACKWARD if self.phase is Phase.BACKWARD else Phase.FORWARD
        if self.device_type == "cuda" and thread not in self._handles:
            self._handles.add(thread)
            self.scratch(cublas_workspace_bytes(CARD.compute_capability) // 2, "cuBLAS workspace", Part.WORKSPACE)

    def _read_by(self, args: Any) -> str | None:
        """Where no module runs: the one that made the first tensor that is read from the forward pass, or owns it.

        What reads gradients only belongs where the first of them does. A checkpointed layer's own operations are run
        again without its hooks; its children have theirs.
        """
        numbers = [self.number_of(arg) for arg in _tensors(args)]
        read = [self.blocks[number] for number in numbers if number is not None]
        return next((block.module for block in read if block.forward), read[0].module if read else None)

    # ── what autograd writes in place ───────────────────────────────────────────────────────────────────────────────

    def _written_to(self, func: Any, name: str, old: object) -> int | None:
        """The storage that this operation of autograd's would write to on a card, where here it makes a new one.

        Under a dispatch mode can_accumulate_inplace (torch/csrc/autograd/input_buffer.cpp) is false and
        areAnyTensorSubclassLike (FunctionsManual.cpp: index_backward, gather_backward …) is true; so it is where the
        unfused attention adds its mask (_scaled_dot_product_attention_math in native/transformers/attention.cpp).
        """
        if not (func is _ADD or name in _INTO_ZEROS) or not isinstance(old, torch.Tensor):
            return None
        number = self.number_of(old)
        if number is None or not (CARD.adds_mask or (not torch.is_grad_enabled() and _from_engine())):
            return None
        written = CARD.adds_mask or self._is_sole(old) if func is _ADD else self.blocks[number].operation in _ZEROS
        return int(old.untyped_storage()._cdata) if written else None

    def _is_sole(self, old: torch.Tensor) -> bool:
        """Whether nobody but autograd's buffer holds this gradient, to which the next is added; a view holds its base.

        Source: InputBuffer::accumulate in input_buffer.cpp.
        """
        uses = old._use_count(), torch._C._storage_Use_Count(old.untyped_storage()._cdata)  # type: ignore[attr-defined]
        if self._sole[0] == sys.maxsize:
            self._sole = uses  # the calibration: see calibrate
        return uses[0] <= self._sole[0] and uses[1] <= self._sole[1]

    def _hand_over(self, key: int, out: torch.Tensor, operation: str) -> bool:
        """Let the result live in the block of what it is added to or spread over."""
        storage = out.untyped_storage()
        number = self._live[key][0]
        if storage.nbytes() != self.blocks[number].bytes or storage._cdata in self._live:
            return False
        del self._live[key]
        self._watch(storage, storage._cdata, number)
        self.blocks[number].operation = operation
        return True

    def calibrate(self) -> None:
        """Learn how many uses a gradient has that only autograd holds, as seen from a dispatch mode of this torch."""
        weight = torch.nn.Parameter(torch.empty(4, 4, device=self.device_type))
        with self:
            hidden = torch.empty(4, 4, device=self.device_type) @ weight
            loss = (hidden.relu() + hidden.sigmoid()).sum()
            self.phase = Phase.BACKWARD
            loss.backward()
        weight.grad = None
        del hidden, loss
        self.phase = Phase.LOAD
        for noted in (self.blocks, self.events, self._handles):
            noted.clear()


def _tensors(out: object) -> Iterator[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        if out.layout is torch.strided:
            yield out
    elif isinstance(out, (tuple, list)):
        for item in out:
            yield from _tensors(item)


def _from_engine() -> bool:
    """Whether the C++ engine itself runs the operation: no Python frame is between backward() and the mode."""
    frame = sys._getframe(2).f_back  # of __torch_dispatch__; None in a thread of the engine's own
    while frame is not None and frame.f_code.co_filename.endswith(_PYTORCH_FRAMES):
        frame = frame.f_back
    return frame is None or frame.f_code.co_name == "_engine_run_backward"


# ── what a block held ───────────────────────────────────────────────────────────────────────────────────────────────

DEQUANTIZERS = ("bitsandbytes::dequantize_4bit", "bitsandbytes::dequantize_blockwise")


def classify(block: RecordedBlock, head: str, vocab_size: int) -> Block:
    """The block with the part that it belongs to, which follows from when and where it was made.

    `head` is the name of the module that makes the logits; the model itself, which has the loss, is "".
    """
    return Block(
        bytes=block.bytes,
        part=block.part or _part(block, head, vocab_size),
        module=block.module,
        operation=block.operation,
        stream=block.stream,
        shape=",".join(map(str, block.shape)),
        dtype=str(block.dtype).removeprefix("torch.") if block.dtype else "",
    )


def _part(block: RecordedBlock, head: str, vocab_size: int) -> Part:
    if block.phase is Phase.STEP:
        return Part.OPTIMIZER_TEMPORARIES
    if block.phase is Phase.LOAD:
        return Part.WORKSPACE
    if block.operation in DEQUANTIZERS:
        return Part.DEQUANTIZATION
    logits = block.module in ("", head) or (len(block.shape) > 1 and block.shape[-1] == vocab_size)
    return Part.LOGITS if logits else Part.ACTIVATIONS
