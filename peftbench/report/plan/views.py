"""Plans to tables: which figures an answer shows, in which order and unit."""

from __future__ import annotations

from collections.abc import Iterable

from peftbench.base.units import GIB, gib
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import Fit, Verdict
from peftbench.memory import Basis, Component, Part
from peftbench.report.format.sheet import UNKNOWN, Table
from peftbench.report.plan.header import several_counts

_WEIGHTS = frozenset({Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.EXPERTS, Part.UNQUANTIZED})
_TRAINING = {
    "weights": _WEIGHTS,
    "trainable": frozenset({Part.ADAPTERS, Part.GRADIENTS, Part.OPTIMIZER, Part.OPTIMIZER_TEMPORARIES}),
    "activations": frozenset({Part.CHECKPOINTS, Part.ACTIVATIONS, Part.LOGITS, Part.KV_CACHE}),
}
_INFERENCE = {
    "weights": _WEIGHTS,
    "adapter": frozenset({Part.ADAPTERS}),
    "KV cache": frozenset({Part.KV_CACHE}),
    "activations": frozenset({Part.CHECKPOINTS, Part.ACTIVATIONS, Part.LOGITS}),
}
TIGHT_MARK = "~"


def signed_gib(size_bytes: int, decimals: int = 2) -> str:
    """Headroom: "+4.38" or "-5.15"."""
    return f"{size_bytes / GIB:+.{decimals}f}"


def comparison(plans: list[Plan]) -> Table:
    """Methods on one card side by side, the roomiest first, in GiB at the peak of each."""
    groups = _TRAINING if plans[0].task == "training" else _INFERENCE
    judged = plans[0].verdict is not None
    dry = any(plan.dry_run for plan in plans)
    sizes = (*groups, "other", "peak", *(("dry run",) if dry else ()))
    ordered = by_room(plans)
    rows = [_compared(plan, groups, dry) for plan in ordered]
    headings = ("GiB", *sizes, *(("headroom", "") if judged else ()))
    table = Table("", headings, rows, "l" + "r" * len(sizes) + ("rl" if judged else ""))
    return _with_counts(table, ordered) if several_counts(plans) else table


def _with_counts(table: Table, plans: list[Plan]) -> Table:
    """A second column with the number of GPUs of each row and how they share the model."""
    shared = [plan.recipe.parallelism for plan in plans]
    cells = [f"{p.gpus} × {p.strategy}" if p.gpus > 1 else "1" for p in shared]
    rows = [(row[0], cell, *row[1:]) for row, cell in zip(table.rows, cells, strict=True)]
    return Table(table.title, (table.headings[0], "GPUs", *table.headings[1:]), rows, "lr" + table.alignments[1:])


def _compared(plan: Plan, groups: dict[str, frozenset[Part]], dry: bool) -> tuple[str, ...]:
    """The verdict is that of the dry run where there is one."""
    peak = plan.profile.peak
    sizes = [sum(c.bytes for c in peak if c.part in parts) for parts in groups.values()]
    total = plan.profile.device_bytes
    row = (
        plan.method,
        *(gib(size) if size else UNKNOWN for size in (*sizes, total - sum(sizes))),
        gib(total),
        *((gib(plan.dry_run.profile.device_bytes) if plan.dry_run else UNKNOWN,) if dry else ()),
    )
    verdict = plan.final_verdict
    return (*row, signed_gib(verdict.headroom_bytes), verdict.fit.text) if verdict else row


def by_room(plans: Iterable[Plan]) -> list[Plan]:
    """The smallest peak first."""
    return sorted(plans, key=lambda plan: plan.profile.device_bytes)


def may_fit(verdict: Verdict | None) -> bool:
    """Whether times are worth a line."""
    return verdict is not None and verdict.fit is not Fit.DOES_NOT_FIT


def seconds_text(seconds: float) -> str:
    """ "77.6 ms" or "1.24 s"."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def best(plans: list[Plan]) -> Plan:
    """The plan worth a closer look: of those that fit the one that trains most, else the nearest."""
    fitting = [p for p in plans if p.verdict is None or p.verdict.fit is Fit.FITS]
    if fitting:
        return max(fitting, key=lambda p: (p.trainable_parameters, p.profile.device_bytes))
    return by_room(plans)[0]


# ── one plan ────────────────────────────────────────────────────────────────────────────────────────────


def parts_of(components: Iterable[Component]) -> list[tuple[Part, int, Basis]]:
    """Bytes of each part in the order of Part, with the least certain basis of its components."""
    found: dict[Part, tuple[int, Basis]] = {}
    order = list(Basis)
    for c in components:
        size, basis = found.get(c.part, (0, Basis.EXACT))
        found[c.part] = (size + c.bytes, max(basis, c.basis, key=order.index))
    return [(part, *found[part]) for part in Part if part in found]


def changes(plan: Plan) -> Table:
    """What would make it fit, each tried alone, from free to costly."""
    rows = [
        (
            " ".join(c.arguments),
            gib(c.device_bytes),
            signed_gib(c.verdict.headroom_bytes),
            c.fit.text,
            c.price,
        )
        for c in plan.changes
        if c.fit is not Fit.DOES_NOT_FIT
    ]
    return Table("", ("nearest changes", "peak", "headroom", "", "price"), rows, "lrrll")


# ── many cards ──────────────────────────────────────────────────────────────────────────────────────────


def cards(plans: list[Plan]) -> Table:
    """Headroom of every method on every card, the smallest card first, and the first card that fits."""
    methods, counted = list(dict.fromkeys(plan.method for plan in plans)), several_counts(plans)
    by_card: dict[str, dict[str, Plan]] = {}
    for plan in sorted(plans, key=lambda p: p.gpu.memory_bytes if p.gpu else 0):
        by_card.setdefault(plan.gpu.name if plan.gpu else UNKNOWN, {})[plan.method] = plan
    rows = [
        (name, gib(_visible(found)), *(_headroom(found.get(method), counted) for method in methods))
        for name, found in by_card.items()
    ]
    rows.append(("fits from", "", *(_first_fitting(by_card, method) for method in methods)))
    return Table("", ("headroom, GiB", "visible", *methods), rows, "lr" + "r" * len(methods))


def usual(plans: list[Plan]) -> tuple[list[Plan], list[str]]:
    """The plans on cards with bfloat16, all where there are none, and a note that names the other cards."""
    lowered = {plan.gpu.name for plan in plans if plan.gpu and not plan.gpu.has_bfloat16}
    usual = [plan for plan in plans if plan.gpu and plan.gpu.name not in lowered]
    if not (usual and lowered):
        return plans, []
    return usual, [f"{', '.join(sorted(lowered))}: no bfloat16, so bfloat16 is priced as float16."]


def _visible(found: dict[str, Plan]) -> int:
    gpu = next(iter(found.values())).gpu
    return gpu.memory_bytes if gpu else 0


def _headroom(plan: Plan | None, counted: bool) -> str:
    verdict = plan.final_verdict if plan else None
    if plan is None or verdict is None:
        return UNKNOWN
    mark = TIGHT_MARK if verdict.fit is Fit.TIGHT else ""
    on = f" on {plan.recipe.parallelism.gpus}" if counted else ""
    return mark + signed_gib(verdict.headroom_bytes, 1) + on


def _first_fitting(by_card: dict[str, dict[str, Plan]], method: str) -> str:
    for name, found in by_card.items():
        plan = found.get(method)
        if plan and plan.final_verdict and plan.final_verdict.fit is Fit.FITS:
            return name
    return UNKNOWN


def maxima(option: str, found: dict[tuple[str, str], int]) -> Table:
    """The largest value of an option by card and method."""
    methods = list(dict.fromkeys(method for _, method in found))
    names = dict.fromkeys(name for name, _ in found)
    rows = [(name, *(_largest(found.get((name, m))) for m in methods)) for name in names]
    return Table("", (f"largest {option}", *methods), rows, "l" + "r" * len(methods))


def _largest(value: int | None) -> str:
    return str(value) if value else UNKNOWN
