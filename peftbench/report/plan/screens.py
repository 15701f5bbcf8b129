"""Whole answers for the terminal: a comparison, one plan in detail, all cards, or why it does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.base.units import gib, human_bytes, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import Fit, Verdict
from peftbench.memory import Part
from peftbench.report.format.sheet import Table
from peftbench.report.format.terminal import Style, bar, joined, labelled, render, two_sided, wrap
from peftbench.report.plan import views
from peftbench.report.plan.header import DOT, assumptions, card_title, model_title
from peftbench.report.plan.time import published_notes, time_notes, time_table

BAR = 26
"""Columns of a bar as long as the card is large, so that bars compare across answers."""


def one_card(plans: list[Plan], chosen: Plan, notes: list[str], next_step: str, command: str, style: Style) -> str:
    """Methods compared where there are several, and the chosen one of them in detail."""
    blocks = [_header(plans, card_title(chosen.gpu), style)]
    if len(plans) > 1:
        blocks.append(render(views.comparison(plans), style.width, style.colour))
    blocks += _detail(chosen, style, len(plans) > 1)
    if chosen.dry_run:
        from peftbench.report.plan.dry_run import held, side_by_side

        blocks += [side_by_side(chosen, style.width), _dry_verdict(chosen, style), held(chosen, style.width)]
    times = time_table(plans)
    blocks.append(render(times, style.width) if times else "")
    others = [f"{plan.method}: {note}" for plan in plans for note in plan.notes if note not in chosen.notes]
    about = (*chosen.notes, *others, *published_notes(plans), *time_notes(plans), *notes)
    lines = [labelled("note", note, style.width) for note in about]
    lines += [labelled("next", next_step, style.width)] if next_step else []
    blocks += ["\n".join(lines), command]
    return "\n\n".join(block for block in blocks if block)


def _dry_verdict(plan: Plan, style: Style) -> str:
    """The verdict of the dry run in one sentence, where it stands beside that of the estimate."""
    verdict = plan.dry_verdict
    if verdict is None or not plan.by_formula:
        return ""
    return "\n".join(wrap(f"dry run: {verdict.fit.text}; {verdict.reason}", style.width))


def many_cards(plans: list[Plan], notes: list[str], style: Style) -> str:
    """Every method on every card, by headroom; the recipe shown is that of cards with bfloat16."""
    usual, lowered = views.usual(plans)
    notes = [*notes, *dict.fromkeys(note for plan in usual for note in plan.notes), *lowered]
    if any(plan.verdict and plan.verdict.fit is Fit.TIGHT for plan in plans):
        notes.append(f"{views.TIGHT_MARK} is tight: the tensors fit, but the allocator may have to flush its cache.")
    notes.append("For one card in detail, add --gpu and its name.")
    table = render(views.cards(plans), style.width)
    texts = [labelled("note", note, style.width) for note in notes]
    return "\n\n".join([_header(usual, _cards_title(plans), style), table, "\n".join(texts)])


def maxima(found: dict[tuple[str, str], int], option: str, plans: list[Plan], style: Style) -> str:
    """The largest value alone for one card and method, else a table."""
    if len(found) == 1:
        return str(next(iter(found.values())))
    usual, notes = views.usual(plans)
    blocks = [_header(usual, _cards_title(plans), style), render(views.maxima(option, found), style.width)]
    return "\n\n".join([*blocks, *(labelled("note", note, style.width) for note in notes)])


def _cards_title(plans: list[Plan]) -> str:
    cards = list(dict.fromkeys(plan.gpu for plan in plans))
    return card_title(cards[0]) if len(cards) == 1 else f"{len(cards)} cards"


def _header(plans: list[Plan], right: str, style: Style) -> str:
    title = model_title(plans[0].model)
    if len({plan.method for plan in plans}) == 1:
        title += DOT + plans[0].method
    lines: list[str] = []
    for piece in assumptions(plans):
        if lines and len(lines[-1]) + len(DOT) + len(piece) <= style.width:
            lines[-1] += DOT + piece
        else:
            lines += wrap(piece, style.width)
    return "\n".join([two_sided(title, right, style.width), *lines])


# ── one plan ────────────────────────────────────────────────────────────────────────────────────────────


def _detail(plan: Plan, style: Style, named: bool) -> list[str]:
    """Why it does not fit and what would; else where the memory goes."""
    decided = _decided(plan)
    verdict = decided.verdict
    if verdict is None or verdict.fit is Fit.FITS:
        return [_breakdown(plan, style, named)]
    blocks = [_reason(decided, verdict, style, named)]
    if verdict.fit is Fit.TIGHT:
        blocks.append(_breakdown(plan, style, named))
    return [*blocks, _changes(plan, style)]


def _decided(plan: Plan) -> Plan:
    """With the memory and the verdict of its dry run, where there is one: that decides."""
    if plan.dry_run is None or plan.dry_verdict is None:
        return plan
    return plan._replace(profile=plan.dry_run.profile, verdict=plan.dry_verdict)


def _breakdown(plan: Plan, style: Style, named: bool) -> str:
    profile, gpu = plan.profile, plan.gpu
    full = gpu.memory_bytes if gpu else profile.device_bytes
    title = f"{plan.method + ', ' if named else ''}GiB at the peak, in the {profile.peak_phase}"
    size = max(8, min(BAR, style.width - 54))
    rows = [(part.value, gib(bytes_), bar(bytes_, full, size).ljust(size), basis.value)
            for part, bytes_, basis in views.parts_of(profile.peak)]  # fmt: skip
    high = f"up to {gib(profile.device_high_bytes)} within the band"
    rows.append(("", gib(profile.device_bytes), f"of {gib(gpu.memory_bytes)}, {high}" if gpu else high, ""))
    later = [c for c in profile.components if profile.peak_phase not in c.phases and c.part is Part.GRADIENTS]
    rows += [(c.part.value, gib(c.bytes), "later, in the optimizer step", "") for c in later]
    return f"{title}\n{_columns(rows)}\n\n{_sizes(plan, style)}"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Part, size and bar; the basis stands after the bar, and remarks take the place of both."""
    part, size = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = (f"  {r[0]:<{part}}  {r[1]:>{size}}  {r[2]}{'  ' + r[3] if r[3] else ''}".rstrip() for r in rows)
    return "\n".join(lines)


def _sizes(plan: Plan, style: Style) -> str:
    profile = plan.profile
    band = f"{gib(profile.device_low_bytes)}–{gib(profile.device_high_bytes)}"
    sizes = (
        f"allocated {human_bytes(profile.allocated_bytes)}", f"reserved {human_bytes(profile.reserved_bytes)}",
        f"device {human_bytes(profile.device_bytes)} ({band})",
    )  # fmt: skip
    lines = wrap(DOT.join(sizes), style.width)
    if plan.task == "training":
        trained = f"trains {human_count(plan.trainable_parameters)} parameters, {100 * plan.trainable_share:.2f} %"
        saved = "checkpoint" if plan.recipe.adapter is None else "adapter"
        lines += wrap(f"{trained}; the {saved} takes {human_bytes(plan.adapter_file_bytes)} on disk", style.width)
    return "\n".join(lines)


def _reason(plan: Plan, verdict: Verdict, style: Style, named: bool) -> str:
    """How much is too much, and which part is to blame."""
    short = verdict.headroom_bytes < 0
    gap = f"{human_bytes(abs(verdict.headroom_bytes))} {'too much' if short else 'to spare'}"
    total = human_bytes(plan.profile.device_bytes)
    what = f"{total} needed in the {plan.profile.peak_phase}, {gap}"
    if verdict.fit is Fit.TIGHT:
        what += f", but up to {gib(plan.profile.device_high_bytes)} within the band"
    largest = verdict.largest
    share = round(100 * largest.bytes / plan.profile.device_bytes)
    because = f"{largest.part}, {human_bytes(largest.bytes)} ({share} %)"
    because += f": {largest.because}" if largest.because else ""
    rows = [(verdict.fit.text, what), ("because of", because)]
    table = render(Table("", ("", ""), rows, "ll"), style.width, style.colour)
    return f"{plan.method}\n{table}" if named else table


def _changes(plan: Plan, style: Style) -> str:
    table = views.changes(plan)
    none = "  no known change makes it fit; without --gpu all cards are compared"
    text = render(table, style.width, style.colour) if table.rows else none
    little = [f"{' '.join(c.arguments)} {views.signed_gib(c.device_bytes - plan.profile.device_bytes)}"
              for c in plan.changes if c.fit is Fit.DOES_NOT_FIT]  # fmt: skip
    if not little:
        return text
    words = [word for piece in little for word in (DOT.strip(), piece)][1:]
    return text + "\n  too little: " + ("\n" + " " * 14).join(joined(words, style.width - 14))
