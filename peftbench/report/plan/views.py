"""Plans to tables: which figures an answer shows, in which order and unit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from peftbench.base.units import GIB, gib
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import Fit, Verdict
from peftbench.memory import Basis, Component, Part
from peftbench.report.format.sheet import UNKNOWN, Column, Table, tabled
from peftbench.report.plan.header import several_counts

_WEIGHTS = frozenset({Part.WEIGHTS, Part.QUANTIZATION_CONSTANTS, Part.EXPERTS, Part.UNQUANTIZED})
_TRAINING = {
    "model": _WEIGHTS,
    "trainable": frozenset({
        Part.ADAPTERS, Part.GRADIENTS, Part.ACCUMULATED, Part.OPTIMIZER, Part.OPTIMIZER_TEMPORARIES,
    }),
    "batch": frozenset({Part.CHECKPOINTS, Part.ACTIVATIONS, Part.LOGITS, Part.KV_CACHE}),
}
_INFERENCE = {
    "model": _WEIGHTS,
    "adapters": frozenset({Part.ADAPTERS}),
    "KV cache": frozenset({Part.KV_CACHE}),
    "batch": frozenset({Part.CHECKPOINTS, Part.ACTIVATIONS, Part.LOGITS}),
}
"""Groups of parts, by names that no part has: a name stands for one size of a screen."""
MARKS = {Fit.FITS: "", Fit.TIGHT: "~", Fit.RISKY: "?", Fit.DOES_NOT_FIT: ""}
"""What stands before a headroom, where no word has room."""


def signed_gib(size_bytes: int, decimals: int = 2) -> str:
    """Headroom: "+4.38" or "-5.15"."""
    return f"{size_bytes / GIB:+.{decimals}f}"


def comparison(plans: list[Plan]) -> Table:
    """Methods on one card side by side, the roomiest first, in GiB at the peak of each."""
    groups = _TRAINING if plans[0].task == "training" else _INFERENCE
    counts = [Column("GPUs", _gpus, side="r")] if several_counts(plans) else []
    dry = [Column("dry run", lambda plan: plan.dry_run and plan.dry_run.profile.needed_bytes, gib, "r")]
    columns = (
        Column("GiB", lambda plan: plan.method), *counts,
        *(Column(name, partial(_size, parts), gib, "r") for name, parts in groups.items()),
        Column("other", partial(_size, frozenset(Part).difference(*groups.values())), gib, "r"),
        Column("needed", lambda plan: plan.profile.needed_bytes, gib, "r"),
        *(dry if any(plan.dry_run for plan in plans) else ()), *(_VERDICT if plans[0].gpu else ()),
    )  # fmt: skip
    return tabled(columns, by_room(plans))


def _gpus(plan: Plan) -> str:
    """How many, and how they share the model."""
    shared = plan.recipe.parallelism
    return f"{shared.gpus} × {shared.strategy}" if shared.gpus > 1 else "1"


def _size(parts: frozenset[Part], plan: Plan) -> int | None:
    """Bytes of some parts at the peak; None where there are none."""
    return sum(c.bytes for c in plan.profile.peak if c.part in parts) or None


_VERDICT = (
    Column("headroom", lambda plan: plan.judged and plan.judged.headroom_bytes, signed_gib, "r"),
    Column("", lambda plan: plan.final_verdict.fit.text if plan.final_verdict else "no verdict"),
)
"""That of the dry run where there is one."""


def by_room(plans: Iterable[Plan]) -> list[Plan]:
    """The smallest peak first."""
    return sorted(plans, key=lambda plan: plan.profile.needed_bytes)


def may_fit(verdict: Verdict | None) -> bool:
    """Whether times are worth a line."""
    return verdict is not None and verdict.fit is not Fit.DOES_NOT_FIT


def seconds_text(seconds: float) -> str:
    """ "77.6 ms" or "1.24 s"."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def best(plans: list[Plan]) -> Plan:
    """The plan worth a closer look: of those that fit the one that trains most, else the nearest."""
    fitting = [p for p in plans if p.gpu is None or (p.final_verdict and p.final_verdict.fit is Fit.FITS)]
    if fitting:
        return max(fitting, key=lambda p: (p.trainable_parameters, p.profile.needed_bytes))
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


CHANGES = (
    Column("nearest changes", lambda c: " ".join(c.arguments)),
    Column("needed", lambda c: c.profile.needed_bytes, gib, "r"),
    Column("headroom", lambda c: c.verdict.headroom_bytes, signed_gib, "r"),
    Column("", lambda c: "no verdict" if c.doubted else c.fit.text),
    Column("price", lambda c: c.price),
)  # fmt: skip


def changes(plan: Plan) -> Table:
    """What would make it fit, each tried alone, from free to costly."""
    return tabled(CHANGES, (c for c in plan.changes if c.fit.is_likely))


# ── many cards ──────────────────────────────────────────────────────────────────────────────────────────


def cards(plans: list[Plan]) -> Table:
    """Headroom of every method on every card, the smallest card first, and the first card that fits."""
    methods, counted = list(dict.fromkeys(plan.method for plan in plans)), several_counts(plans)
    visible: dict[str, int] = {}
    by_card: dict[str, dict[str, Plan]] = {}
    for gpu, plan in sorted(((p.gpu, p) for p in plans if p.gpu), key=lambda each: each[0].memory_bytes):
        visible.setdefault(gpu.name, gpu.memory_bytes)
        by_card.setdefault(gpu.name, {})[plan.method] = plan
    rows = [(name, gib(visible[name]), *(_headroom(found.get(method), counted) for method in methods))
            for name, found in by_card.items()]  # fmt: skip
    rows.append(("fits from", "", *(_first_fitting(by_card, method) for method in methods)))
    return Table("", ("headroom, GiB", "visible", *methods), rows, "lr" + "r" * len(methods))


def first_cards(plans: list[Plan]) -> list[str]:
    """For each method, the roomiest first, the plan on the smallest card that it fits on; or that it fits on none."""
    ordered = sorted((p for p in plans if p.gpu), key=lambda p: p.gpu.memory_bytes)  # type: ignore[union-attr]
    fitting: dict[str, Plan] = {}
    for plan in ordered:
        if plan.final_verdict and plan.final_verdict.fit is Fit.FITS:
            fitting.setdefault(plan.method, plan)
    methods = dict.fromkeys(plan.method for plan in by_room(plans))
    nowhere = f"does not fit: {{}} on any of {len({plan.gpu for plan in plans})} cards"
    return [fitting[name].summary if name in fitting else nowhere.format(name) for name in methods]


def usual(plans: list[Plan]) -> tuple[list[Plan], list[str]]:
    """The plans on cards with bfloat16, all where there are none, and a note that names the other cards."""
    lowered = {plan.gpu.name for plan in plans if plan.gpu and not plan.gpu.has_bfloat16}
    usual = [plan for plan in plans if plan.gpu and plan.gpu.name not in lowered]
    if not (usual and lowered):
        return plans, []
    return usual, [f"{', '.join(sorted(lowered))}: no bfloat16, so bfloat16 is priced as float16."]


def _headroom(plan: Plan | None, counted: bool) -> str:
    verdict = plan.final_verdict if plan else None
    if plan is None or verdict is None:
        return UNKNOWN
    mark = MARKS[verdict.fit]
    on = f" on {plan.recipe.parallelism.gpus}" if counted else ""
    return mark + signed_gib(verdict.headroom_bytes, 1) + on


def _first_fitting(by_card: dict[str, dict[str, Plan]], method: str) -> str:
    for name, found in by_card.items():
        plan = found.get(method)
        if plan and plan.final_verdict and plan.final_verdict.fit is Fit.FITS:
            return name
    return UNKNOWN
