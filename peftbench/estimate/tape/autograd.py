"""A symbolic autograd tape: runs operations on sizes instead of numbers and says how many bytes are alive when.

Eager PyTorch keeps a tensor's storage while a Python variable, a node of the graph or a gradient buffer refers to
it. The tape does the same with symbolic storages: Python's own reference counts decide when one dies, so a function
written here with the variables of the library's function has that function's lifetimes. One rule keeps this equal on
every CPython: a function never rebinds or deletes a parameter (a test holds it), because versions differ in how long
a caller's argument lives. Each operation states what it saves for backward and what its backward allocates;
derivatives.yaml of PyTorch is the source unless another is named.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from peftbench.estimate.tape.device import ON_CPU, Device
from peftbench.estimate.tape.ledger import AnyLedger, Ledger
from peftbench.memory import Part

FLOAT32 = 4

Scratch = tuple[Part, int, int] | tuple[Part, int, int, int]
"""Bytes alive only while a kernel runs: (part, per_token, fixed, per_pair)."""


class Recomputed(Exception):
    """A checkpoint's recomputation has reached the last tensor that backward needs (torch's early stop)."""


class Storage:
    """Some bytes on the card; they are freed when the last reference to this object goes."""

    __slots__ = ("ledger", "number", "part")

    def __init__(self, ledger: AnyLedger, part: Part, per_token: int, fixed: int = 0, per_pair: int = 0) -> None:
        self.ledger = ledger
        self.part = part
        self.number = ledger.add(part, per_token, fixed, per_pair)

    def __del__(self) -> None:
        self.ledger.take(self.number)


class Tensor:
    """A view of a storage: `width` elements a token, `pairs` more for each key of its sequence, or a fixed matrix."""

    __slots__ = ("fixed_elements", "itemsize", "key", "needs_grad", "pairs", "storage", "width")

    def __init__(
        self, storage: Storage | None, width: int, itemsize: int, needs_grad: bool, key: int,
        fixed_elements: int = 0, pairs: int = 0,
    ) -> None:  # fmt: skip
        self.storage = storage
        self.width = width
        self.itemsize = itemsize
        self.needs_grad = needs_grad
        self.key = key
        self.fixed_elements = fixed_elements
        self.pairs = pairs

    @property
    def per_token(self) -> int:
        """Bytes a token of this view."""
        return self.width * self.itemsize


class Flow(NamedTuple):
    """How a gradient flows to one input: through new bytes, or as a view of the incoming gradient."""

    key: int
    per_token: int
    fixed: int
    per_pair: int
    aliases: bool
    is_view: bool
    """The gradient is a view of a product's result, to which torch never adds in place."""


class Node(NamedTuple):
    """One operation's backward: what it waits for, what it saved, what it allocates."""

    outputs: tuple[int, ...]
    flows: tuple[Flow, ...]
    saved: list[Storage]
    scratch: tuple[Scratch, ...]
    """What its kernels allocate inside."""
    parameter_gradients: int
    """Bytes of weight gradients that this node leaves behind."""
    returns_saved: bool
    """The gradient is written over the first saved storages (kernels that compute it in forward or in place)."""
    unpacks: bool
    """Its backward reads a saved tensor, be it a weight: inside a checkpoint the first such read starts the
    recomputation."""
    counts: AnyLedger
    """Where the gradients of its inputs are: those of an expert are of its tokens only."""


class Tape:
    """Records operations as autograd does and plays their backward.

    `autocast` is the itemsize of the lower-precision type when torch.autocast is on, else None. `records` is False
    under no_grad. `drops` says that a checkpoint lets go of what operations save. `gradients_exist` says that
    parameter gradients of an earlier micro-batch are alive, so new ones are added to them and freed. `stop_at` is
    the node after which a recomputation has all it needs; 0 runs to the end. `kept` are storages that outlive the
    region: parameter gradients and autocast's cached copies of weights. `attributes` are what functions keep on
    their ctx without save_for_backward: alive as long as the graph, and unknown to checkpointing. New storages
    are in `counts`: `ledger`, or one of a share of the tokens (experts). `flattened` says
    that tensors have two dimensions here, so that products need no reshaping. `device` is what its kernels run on.
    """

    __slots__ = (
        "_keys", "_views", "attributes", "autocast", "counts", "device", "drops", "flattened", "gradients_exist",
        "kept", "ledger", "nodes", "part", "records", "stop_at",
    )  # fmt: skip

    def __init__(
        self, ledger: Ledger, autocast: int | None = None, records: bool = True, gradients_exist: bool = False,
        device: Device = ON_CPU,
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.counts: AnyLedger = ledger
        self.autocast = autocast
        self.records = records
        self.gradients_exist = gradients_exist
        self.device = device
        self.drops = False
        self.flattened = False
        self.stop_at = 0
        self.part = Part.ACTIVATIONS
        self.nodes: list[Node] = []
        self.kept: list[Storage] = []
        self.attributes: list[Storage] = []
        self._keys = 0
        self._views: set[int] = set()

    def next_key(self) -> int:
        """Number tensors in the order of their making, so that two runs of a layer agree."""
        self._keys += 1
        return self._keys

    def tensor(
        self, width: int, itemsize: int, needs_grad: bool = False, *, part: Part | None = None,
        fixed_elements: int = 0, pairs: int = 0,
    ) -> Tensor:  # fmt: skip
        """Allocate a tensor of `width` elements a token and `pairs` elements for each token and key."""
        storage = Storage(self.counts, part or self.part, width * itemsize, fixed_elements * itemsize, pairs * itemsize)
        return Tensor(storage, width, itemsize, needs_grad, self.next_key(), fixed_elements, pairs)

    def view(self, x: Tensor, width: int, pairs: int = 0) -> Tensor:
        """Name a part of a tensor without a gradient of its own: x[..., :width]."""
        return Tensor(x.storage, width, x.itemsize, x.needs_grad, self.next_key(), 0, pairs)

    def scratch(self, part: Part, per_token: int, fixed: int) -> None:
        """Allocate and free: bytes that live only inside a kernel."""
        Storage(self.counts, part, per_token, fixed)

    def record(
        self, outputs: Iterable[Tensor], inputs: Iterable[Tensor], saved: Iterable[Tensor] = (), *,
        aliases: Iterable[int] = (), scratch: tuple[Scratch, ...] = (), parameter_gradients: int = 0,
        returns_saved: bool = False, saves_constant: bool = False, gives_views: bool = False,
    ) -> None:  # fmt: skip
        """Note an operation for backward.

        `aliases` are the keys of inputs whose gradient is a view of the output's. `saves_constant` says that the
        operation saves a weight or a table, which takes no bytes here. `gives_views` says that its gradients are
        products reshaped to three dimensions.
        """
        if not self.records:
            return
        alias = set(aliases)
        flows = tuple(
            Flow(
                x.key, x.width * x.itemsize, x.fixed_elements * x.itemsize, x.pairs * x.itemsize, x.key in alias,
                gives_views,
            )
            for x in inputs
            if x.needs_grad and x.storage is not None
        )  # fmt: skip
        storages = [x.storage for x in saved if x.storage is not None]
        unpacks = bool(storages) or saves_constant
        if self.drops:
            storages.clear()
        keys = tuple(x.key for x in outputs)
        node = Node(keys, flows, storages, scratch, parameter_gradients, returns_saved, unpacks, self.counts)
        self.nodes.append(node)
        if len(self.nodes) == self.stop_at:
            raise Recomputed

    def output(self, width: int, itemsize: int, needs_grad: bool, pairs: int = 0, fixed_elements: int = 0) -> Tensor:
        """Allocate the output of an operation that saves its inputs only.

        A recomputation stops when the last of those is saved, before this operation makes its output.
        """
        if needs_grad and self.stop_at and len(self.nodes) + 1 == self.stop_at:
            return Tensor(None, width, itemsize, True, self.next_key(), fixed_elements, pairs)
        return self.tensor(width, itemsize, needs_grad, fixed_elements=fixed_elements, pairs=pairs)

    def new(
        self, inputs: Sequence[Tensor], width: int, itemsize: int, saved: Iterable[Tensor] = (), *,
        pairs: int = 0, fixed_elements: int = 0, saves_output: bool = False, aliases: Iterable[int] = (),
        scratch: tuple[Scratch, ...] = (), returns_saved: bool = False, saves_constant: bool = False,
    ) -> Tensor:  # fmt: skip
        """Run an operation that allocates its output and, if any input needs a gradient, is recorded."""
        needs_grad = any(x.needs_grad for x in inputs)
        make = self.tensor if saves_output else self.output
        out = make(width, itemsize, needs_grad, pairs=pairs, fixed_elements=fixed_elements)
        if needs_grad:
            self.record(
                (out,), inputs, (*saved, out) if saves_output else saved, aliases=aliases, scratch=scratch,
                returns_saved=returns_saved, saves_constant=saves_constant,
            )  # fmt: skip
        return out

    # ── elementwise operations ──────────────────────────────────────────────────────────────────────────────────

    def cast(self, x: Tensor, itemsize: int) -> Tensor:
        """x.to(dtype): nothing saved; the gradient is cast back."""
        if x.itemsize == itemsize:
            return x
        return self.new((x,), x.width, itemsize, pairs=x.pairs, fixed_elements=x.fixed_elements)

    def scale(self, x: Tensor) -> Tensor:
        """x * number, x / number, -x: nothing saved."""
        return self.new((x,), x.width, x.itemsize, pairs=x.pairs)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b: nothing saved; both gradients are the incoming one, cast where the types differ."""
        itemsize = max(a.itemsize, b.itemsize)
        aliases = [x.key for x in (a, b) if x.itemsize == itemsize]
        return self.new((a, b), max(a.width, b.width), itemsize, pairs=max(a.pairs, b.pairs), aliases=aliases)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """a * b: each factor is saved if the other needs a gradient, which is made in the wider type and then cast."""
        saved = [x for x, other in ((a, b), (b, a)) if other.needs_grad]
        width, itemsize = max(a.width, b.width), max(a.itemsize, b.itemsize)
        wide = (x for x in (a, b) if x.needs_grad and x.itemsize < itemsize)
        casts = tuple((self.part, width * (itemsize - x.itemsize), 0) for x in wide)
        return self.new((a, b), width, itemsize, saved, scratch=casts)

    def unary(self, x: Tensor, saves: str) -> Tensor:
        """A pointwise function that saves its "input" (silu, gelu, pow) or its "output" (tanh, relu, sigmoid)."""
        saved = (x,) if saves == "input" else ()
        fixed, is_output = x.fixed_elements, saves == "output"
        return self.new((x,), x.width, x.itemsize, saved, pairs=x.pairs, fixed_elements=fixed, saves_output=is_output)

    def softmax(self, x: Tensor, itemsize: int) -> Tensor:
        """F.softmax(x, dtype): saves its output; CUDA first multiplies it with the gradient in backward.

        Source: softmax in ATen/native/SoftMax.cpp, softmax_backward_cuda_out in cuda/SoftMax.cu.
        """
        source = x if self.device.half_to_float and x.itemsize < itemsize else self.cast(x, itemsize)
        scratch = ((self.part, x.width * itemsize, 0, x.pairs * itemsize),) if self.device.is_cuda else ()
        return self.new((source,), x.width, itemsize, pairs=x.pairs, saves_output=True, scratch=scratch)

    def power(self, x: Tensor) -> Tensor:
        """x.pow(n): saves x, in float32 under autocast; its backward makes x.pow(n - 1) and n times that first."""
        wide = x if self.autocast is None else self.cast(x, FLOAT32)
        size = (self.part, wide.per_token, 0)
        return self.new((wide,), x.width, wide.itemsize, (wide,), scratch=(size, size) if x.needs_grad else ())

    def dropout(self, x: Tensor, probability: float) -> Tensor:
        """native_dropout: saves a boolean mask of one byte an element; nothing happens at probability 0."""
        if probability == 0:
            return x
        mask = self.tensor(x.width, 1, pairs=x.pairs)
        return self.new((x,), x.width, x.itemsize, (mask,), pairs=x.pairs)

    # ── shape operations that allocate in forward or backward ───────────────────────────────────────────────────

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """torch.cat: a new tensor; gradients are views of the incoming one."""
        width, pairs = sum(x.width for x in tensors), sum(x.pairs for x in tensors)
        return self.new(tensors, width, tensors[0].itemsize, pairs=pairs, aliases=[x.key for x in tensors])

    def slice(self, x: Tensor, width: int) -> Tensor:
        """x[..., a:b]: a view; its backward allocates zeros of the whole x."""
        out = self.view(x, width, x.pairs)
        if x.needs_grad:
            self.record((out,), (x,))
        return out

    def split(self, x: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
        """x.split or x.chunk: views; the backward concatenates their gradients into a new tensor."""
        outs = tuple(self.view(x, width) for width in widths)
        if x.needs_grad:
            self.record(outs, (x,))
        return outs

    def copy(self, x: Tensor, width: int | None = None) -> Tensor:
        """x.clone(), .contiguous() or an expanded copy: the gradient is passed on, or summed when expanded."""
        wide = x.width if width is None else width
        return self.new((x,), wide, x.itemsize, pairs=x.pairs, aliases=(x.key,) if wide == x.width else ())

    # ── backward ────────────────────────────────────────────────────────────────────────────────────────────────

    def backward(self, gradients: dict[int, Storage]) -> None:
        """Play the recorded operations backwards, newest first, from the gradients of some tensors by key.

        Consumes the nodes; what is left in `gradients` belongs to tensors that no recorded operation made.
        """
        while self.nodes:
            self._play(self.nodes.pop(), gradients)

    def _play(self, node: Node, gradients: dict[int, Storage]) -> None:
        incoming = [gradients.pop(key) for key in node.outputs if key in gradients]
        if not incoming:
            return
        scratch = [Storage(node.counts, *size) for size in node.scratch]
        if node.parameter_gradients:
            storage = Storage(node.counts, Part.GRADIENTS, 0, node.parameter_gradients)
            if not self.gradients_exist:
                self.kept.append(storage)
            del storage
        part = incoming[0].part
        made = [
            node.saved[i] if node.returns_saved
            else incoming[0] if flow.aliases
            else Storage(node.counts, part, flow.per_token, flow.fixed, flow.per_pair)
            for i, flow in enumerate(node.flows)
        ]  # fmt: skip
        # PyTorch frees what a node saved and its incoming gradient before its results reach the next buffers.
        scratch.clear()
        incoming.clear()
        node.saved.clear()
        for flow in reversed(node.flows):
            self._accumulate(flow, made.pop(), gradients)

    def _accumulate(self, flow: Flow, new: Storage, gradients: dict[int, Storage]) -> None:
        """Add to a gradient buffer as torch's InputBuffer does: in place only if the buffer alone owns its bytes.

        That the first sum with a view is a new tensor was seen in profiles of torch 2.13 (tests/oracles).
        """
        old = gradients.get(flow.key)
        if old is None:
            gradients[flow.key] = new
            if flow.is_view:
                self._views.add(flow.key)
        elif flow.key in self._views or sum(buffer is old for buffer in gradients.values()) > 1:
            gradients[flow.key] = Storage(old.ledger, old.part, flow.per_token, flow.fixed, flow.per_pair)
            self._views.discard(flow.key)
