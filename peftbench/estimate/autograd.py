"""A symbolic autograd tape: runs operations on sizes instead of numbers and says how many bytes are alive when.

Eager PyTorch keeps a tensor's storage while a Python variable, a node of the graph or a gradient buffer refers to
it. The tape does the same with symbolic storages: Python's own reference counts decide when one dies, so a function
written here with the variables of the library's function has that function's lifetimes. One rule keeps this equal on
every CPython: a function never rebinds or deletes a parameter (a test holds it), because versions differ in how long
a caller's argument lives. Each operation states what it saves for backward and what its backward allocates;
derivatives.yaml of PyTorch is the source unless another is named.

Sizes are linear in the tokens of the micro-batch: `per_token` bytes for each token plus `fixed` bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from peftbench.memory import Part

FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Moment:
    """The bytes alive at one instant, by part, each as (per_token, fixed)."""

    per_token: int
    fixed: int
    by_part: dict[Part, tuple[int, int]]

    def bytes_at(self, tokens: int) -> int:
        """Bytes alive at this instant for a micro-batch of so many tokens."""
        return self.per_token * tokens + self.fixed


class Recomputed(Exception):
    """A checkpoint's recomputation has reached the last tensor that backward needs (torch's early stop)."""


class Ledger:
    """The bytes alive now, and every past moment that is the peak for some number of tokens."""

    __slots__ = ("_moments", "by_part", "fixed", "per_token")

    def __init__(self) -> None:
        self.per_token = 0
        self.fixed = 0
        self.by_part: dict[Part, tuple[int, int]] = {}
        self._moments: list[Moment] = []

    def change(self, part: Part, per_token: int, fixed: int) -> None:
        """Add (or, with negative sizes, take away) bytes of a part."""
        self.per_token += per_token
        self.fixed += fixed
        before = self.by_part.get(part, (0, 0))
        self.by_part[part] = (before[0] + per_token, before[1] + fixed)

    def observe(self) -> None:
        """Remember this moment, unless a remembered one is at least as large for every number of tokens."""
        per_token, fixed = self.per_token, self.fixed
        for moment in self._moments:
            if moment.per_token >= per_token and moment.fixed >= fixed:
                return
        self._moments = [m for m in self._moments if m.per_token > per_token or m.fixed > fixed]
        self._moments.append(Moment(per_token, fixed, dict(self.by_part)))

    def take_moments(self) -> tuple[Moment, ...]:
        """Hand over the remembered moments and begin a new stretch of time."""
        moments, self._moments = tuple(self._moments), []
        return moments


class Storage:
    """Some bytes on the card; they are freed when the last reference to this object goes."""

    __slots__ = ("fixed", "ledger", "part", "per_token")

    def __init__(self, ledger: Ledger, part: Part, per_token: int, fixed: int = 0) -> None:
        self.ledger = ledger
        self.part = part
        self.per_token = per_token
        self.fixed = fixed
        ledger.change(part, per_token, fixed)
        ledger.observe()

    def __del__(self) -> None:
        self.ledger.change(self.part, -self.per_token, -self.fixed)


@dataclass(slots=True)
class Tensor:
    """A view of a storage: `width` elements a token, or a matrix of `fixed_elements` that does not grow with tokens."""

    storage: Storage | None
    width: int
    itemsize: int
    needs_grad: bool
    key: int
    fixed_elements: int = 0

    @property
    def per_token(self) -> int:
        """Bytes a token of this view."""
        return self.width * self.itemsize

    @property
    def fixed(self) -> int:
        """Bytes that do not grow with the tokens."""
        return self.fixed_elements * self.itemsize


@dataclass(frozen=True, slots=True)
class Flow:
    """How a gradient flows to one input: through new bytes, or as a view of the incoming gradient."""

    key: int
    per_token: int
    fixed: int
    aliases: bool = False


@dataclass(slots=True)
class Node:
    """One operation's backward: what it waits for, what it saved, what it allocates."""

    outputs: tuple[int, ...]
    flows: tuple[Flow, ...]
    saved: list[Storage]
    scratch: tuple[tuple[Part, int, int], ...] = ()
    """Bytes alive only while the backward runs: (part, per_token, fixed)."""
    parameter_gradients: int = 0
    """Bytes of weight gradients that this node leaves behind."""
    returns_saved: bool = False
    """The gradient is written over the first saved storages (kernels that compute it in forward or in place)."""
    unpacks: bool = True
    """Its backward reads a saved tensor, be it a weight: inside a checkpoint the first such read starts the
    recomputation."""


@dataclass(slots=True)
class Tape:
    """Records operations as autograd does and plays their backward.

    `autocast` is the itemsize of the lower-precision type when torch.autocast is on, else None. `records` is False
    inside a checkpointed region, where saved tensors are dropped and recomputed later. `gradients_exist` says that
    parameter gradients of an earlier micro-batch are alive, so new ones are added to them and freed.
    """

    ledger: Ledger
    autocast: int | None = None
    records: bool = True
    gradients_exist: bool = False
    stop_at: int = 0
    """Node after which a recomputation has all it needs; 0 runs to the end."""
    part: Part = Part.ACTIVATIONS
    nodes: list[Node] = field(default_factory=list)
    kept: list[Storage] = field(default_factory=list)
    """Storages that outlive the region: parameter gradients and autocast's cached copies of weights."""
    _keys: int = 0

    def next_key(self) -> int:
        """Number tensors in the order of their making, so that two runs of a layer agree."""
        self._keys += 1
        return self._keys

    # ── storages and tensors ────────────────────────────────────────────────────────────────────────────────────

    def tensor(
        self, width: int, itemsize: int, needs_grad: bool = False, *, part: Part | None = None, fixed_elements: int = 0
    ) -> Tensor:
        """Allocate a tensor of `width` elements a token."""
        storage = Storage(self.ledger, part or self.part, width * itemsize, fixed_elements * itemsize)
        return Tensor(storage, width, itemsize, needs_grad, self.next_key(), fixed_elements)

    def view(self, x: Tensor, width: int) -> Tensor:
        """Name a part of a tensor without a gradient of its own: x[..., :width]."""
        return Tensor(x.storage, width, x.itemsize, x.needs_grad, self.next_key())

    def scratch(self, part: Part, per_token: int, fixed: int) -> None:
        """Allocate and free: bytes that live only inside a kernel."""
        Storage(self.ledger, part, per_token, fixed)

    # ── recording ───────────────────────────────────────────────────────────────────────────────────────────────

    def record(
        self,
        outputs: Iterable[Tensor],
        inputs: Iterable[Tensor],
        saved: Iterable[Tensor] = (),
        *,
        aliases: Iterable[int] = (),
        scratch: tuple[tuple[Part, int, int], ...] = (),
        parameter_gradients: int = 0,
        returns_saved: bool = False,
        saves_constant: bool = False,
    ) -> None:
        """Note an operation for backward.

        `aliases` are the keys of inputs whose gradient is a view of the output's. `saves_constant` says that the
        operation saves a weight or a table, which takes no bytes here.
        """
        if not self.records:
            return
        alias = set(aliases)
        flows = tuple(
            Flow(x.key, x.per_token, x.fixed, x.key in alias) for x in inputs if x.needs_grad and x.storage is not None
        )
        storages = [x.storage for x in saved if x.storage is not None]
        unpacks = bool(storages) or saves_constant
        self.nodes.append(
            Node(tuple(o.key for o in outputs), flows, storages, scratch, parameter_gradients, returns_saved, unpacks)
        )
        if len(self.nodes) == self.stop_at:
            raise Recomputed

    def output(self, width: int, itemsize: int, needs_grad: bool) -> Tensor:
        """Allocate the output of an operation that saves its inputs only.

        A recomputation stops when the last of those is saved, before this operation makes its output.
        """
        if needs_grad and self.stop_at and len(self.nodes) + 1 == self.stop_at:
            return Tensor(None, width, itemsize, True, self.next_key())
        return self.tensor(width, itemsize, needs_grad)

    def new(
        self,
        inputs: Sequence[Tensor],
        width: int,
        itemsize: int,
        saved: Iterable[Tensor] = (),
        *,
        saves_output: bool = False,
        aliases: Iterable[int] = (),
        scratch: tuple[tuple[Part, int, int], ...] = (),
        returns_saved: bool = False,
        saves_constant: bool = False,
    ) -> Tensor:
        """Run an operation that allocates its output and, if any input needs a gradient, is recorded."""
        needs_grad = any(x.needs_grad for x in inputs)
        make = self.tensor if saves_output else self.output
        out = make(width, itemsize, needs_grad)
        if needs_grad:
            self.record(
                (out,), inputs, (*saved, out) if saves_output else saved, aliases=aliases, scratch=scratch,
                returns_saved=returns_saved, saves_constant=saves_constant,
            )  # fmt: skip
        return out

    # ── elementwise operations ──────────────────────────────────────────────────────────────────────────────────

    def cast(self, x: Tensor, itemsize: int) -> Tensor:
        """x.to(dtype): nothing saved; the gradient is cast back."""
        return x if x.itemsize == itemsize else self.new((x,), x.width, itemsize)

    def scale(self, x: Tensor) -> Tensor:
        """x * number, x / number, -x: nothing saved."""
        return self.new((x,), x.width, x.itemsize)

    def scale_by_constant(self, x: Tensor) -> Tensor:
        """x * c where c is a small tensor without gradient (cos, sin, a frozen norm weight): nothing of x saved."""
        return self.new((x,), x.width, x.itemsize, saves_constant=True)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b: nothing saved; both gradients are the incoming one, cast where the types differ."""
        itemsize = max(a.itemsize, b.itemsize)
        aliases = [x.key for x in (a, b) if x.itemsize == itemsize]
        return self.new((a, b), max(a.width, b.width), itemsize, aliases=aliases)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """a * b: each factor is saved if the other needs a gradient."""
        saved = [x for x, other in ((a, b), (b, a)) if other.needs_grad]
        return self.new((a, b), max(a.width, b.width), max(a.itemsize, b.itemsize), saved)

    def unary(self, x: Tensor, saves: str) -> Tensor:
        """A pointwise function that saves its "input" (silu, gelu, pow) or its "output" (tanh, relu, sigmoid)."""
        saved = (x,) if saves == "input" else ()
        return self.new((x,), x.width, x.itemsize, saved, saves_output=saves == "output")

    def power(self, x: Tensor) -> Tensor:
        """x.pow(n): saves x; its backward makes x.pow(n - 1) and n times that before the product."""
        size = (self.part, x.per_token, 0)
        return self.new((x,), x.width, x.itemsize, (x,), scratch=(size, size) if x.needs_grad else ())

    def dropout(self, x: Tensor, probability: float) -> Tensor:
        """native_dropout: saves a boolean mask of one byte an element; nothing happens at probability 0."""
        if probability == 0:
            return x
        mask = self.tensor(x.width, 1)
        return self.new((x,), x.width, x.itemsize, (mask,))

    # ── shape operations that allocate in forward or backward ───────────────────────────────────────────────────

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """torch.cat: a new tensor; gradients are views of the incoming one."""
        width = sum(x.width for x in tensors)
        return self.new(tensors, width, tensors[0].itemsize, aliases=[x.key for x in tensors])

    def slice(self, x: Tensor, width: int) -> Tensor:
        """x[..., a:b]: a view; its backward allocates zeros of the whole x."""
        out = self.view(x, width)
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
        return self.new((x,), wide, x.itemsize, aliases=(x.key,) if wide == x.width else ())

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
        scratch = [Storage(self.ledger, part, per_token, fixed) for part, per_token, fixed in node.scratch]
        if node.parameter_gradients:
            storage = Storage(self.ledger, Part.GRADIENTS, 0, node.parameter_gradients)
            if not self.gradients_exist:
                self.kept.append(storage)
            del storage
        part = incoming[0].part
        made = [
            node.saved[i] if node.returns_saved
            else incoming[0] if flow.aliases
            else Storage(self.ledger, part, flow.per_token, flow.fixed)
            for i, flow in enumerate(node.flows)
        ]  # fmt: skip
        # PyTorch frees what a node saved and its incoming gradient before its results reach the next buffers.
        scratch.clear()
        incoming.clear()
        node.saved.clear()
        for flow in reversed(node.flows):
            self._accumulate(flow, made.pop(), gradients)

    def _accumulate(self, flow: Flow, new: Storage, gradients: dict[int, Storage]) -> None:
        """Add to a gradient buffer as torch's InputBuffer does: in place only if the buffer alone owns its bytes."""
        old = gradients.get(flow.key)
        if old is None:
            gradients[flow.key] = new
        elif sum(buffer is old for buffer in gradients.values()) > 1:
            gradients[flow.key] = Storage(self.ledger, old.part, flow.per_token, flow.fixed)
