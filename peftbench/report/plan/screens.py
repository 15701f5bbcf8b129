"""Whole answers for the terminal: a comparison, one plan in detail, all cards, or why it does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.base.screen import painted
from peftbench.base.units import gib, human_bytes, human_count
from peftbench.decide.plan.plan import Plan
from peftbench.decide.verdict import PROMISES, Fit, Verdict
from peftbench.memory import Part, Phase
from peftbench.report.format.terminal import Style, bar, joined, labelled, render, two_sided, wrap
from peftbench.report.plan import views
from peftbench.report.plan.header import DOT, assumptions, card_title, model_title
from peftbench.report.plan.time import published_notes, time_notes, time_table

BAR = 26
"""Columns of a bar as long as the card is large, so that bars compare across answers."""


def one_card(plans: list[Plan], chosen: Plan, notes: list[str], next_step: str, command: str, style: Style) -> str:
    """Methods compared where there are several, and the chosen one of them in detail."""
    blocks = [headline(chosen.summary, style), recipe_header(plans, card_title(chosen.gpu), style)]
    if len(plans) > 1:
        blocks.append(render(views.comparison(plans), style.width, style.colour))
    blocks += _detail(chosen, style, len(plans) > 1)
    if chosen.dry_run:
        from peftbench.report.plan.dry_run import held, side_by_side

        blocks += [side_by_side(chosen, style.width), held(chosen, style.width)]
    times = time_table(plans)
    blocks.append(render(times, style.width) if times else "")
    others = [f"{plan.method}: {note}" for plan in plans for note in plan.notes if note not in chosen.notes]
    about = (*promise(chosen), *chosen.notes, *others, *published_notes(plans), *time_notes(plans), *notes)
    lines = [labelled("note", note, style.width) for note in about]
    lines += [labelled("next", next_step, style.width)] if next_step else []
    blocks += ["\n".join(lines), command]
    return "\n\n".join(block for block in blocks if block)


def headline(text: str, style: Style) -> str:
    """The first line of an answer, which begins with its word."""
    lines = wrap(text, style.width)
    word, colon, rest = lines[0].partition(":")
    first = painted(word) if style.colour else word
    return "\n".join((f"{first}{colon}{rest}", *lines[1:]))


def promise(plan: Plan) -> tuple[str, ...]:
    """What the word means, where it does not say so itself."""
    verdict = plan.final_verdict
    if verdict is None or verdict.fit not in (Fit.TIGHT, Fit.RISKY):
        return ()
    return (f"{verdict.fit.text}: {PROMISES[verdict.fit].text} run out of memory.",)


def many_cards(plans: list[Plan], notes: list[str], style: Style) -> str:
    """Every method on every card, by headroom; the recipe shown is that of cards with bfloat16."""
    usual, lowered = views.usual(plans)
    notes = [*notes, *dict.fromkeys(note for plan in usual for note in plan.notes), *lowered]
    found = {plan.final_verdict.fit for plan in plans if plan.final_verdict}
    notes += [f"{mark} is {fit.text}: {PROMISES[fit].text} run out of memory."
              for fit, mark in views.MARKS.items() if mark and fit in found]  # fmt: skip
    notes.append("For one card in detail, add --gpu and its name.")
    table = render(views.cards(plans), style.width)
    texts = [labelled("note", note, style.width) for note in notes]
    lines = "\n".join(headline(line, style) for line in views.first_cards(plans))
    return "\n\n".join([lines, recipe_header(usual, cards_title(plans), style), table, "\n".join(texts)])


def cards_title(plans: list[Plan]) -> str:
    """The card, or how many there are."""
    cards = list(dict.fromkeys(plan.gpu for plan in plans))
    return card_title(cards[0]) if len(cards) == 1 else f"{len(cards)} cards"


def recipe_header(plans: list[Plan], right: str, style: Style) -> str:
    """The model, the card and the recipe."""
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
    verdict = decided.final_verdict
    if verdict is None or verdict.fit is Fit.FITS:
        return [_breakdown(plan, style, named)]
    blocks = [_reason(decided, verdict, style, named)]
    if verdict.fit is not Fit.DOES_NOT_FIT:
        blocks.append(_breakdown(plan, style, named))
    return [*blocks, _changes(plan, style)]


def _decided(plan: Plan) -> Plan:
    """With the memory and the verdict of its dry run, where there is one: that decides."""
    if plan.dry_run is None or plan.dry_verdict is None:
        return plan
    return plan._replace(profile=plan.dry_run.profile, verdict=plan.dry_verdict)


def _breakdown(plan: Plan, style: Style, named: bool) -> str:
    profile, gpu = plan.profile, plan.gpu
    full = gpu.memory_bytes if gpu else profile.needed_bytes
    title = f"{plan.method + ', ' if named else ''}GiB at the peak, in the {profile.peak_phase}"
    title += ", by formula" if plan.dry_run and plan.by_formula else ""
    size = max(8, min(BAR, style.width - 54))
    rows = [(part.value, gib(bytes_), bar(bytes_, full, size).ljust(size), basis.value)
            for part, bytes_, basis in views.parts_of(profile.peak)]  # fmt: skip
    high = f"up to {gib(profile.needed_high_bytes)} within the band"
    rows.append(("needed", gib(profile.needed_bytes), f"of {gib(gpu.memory_bytes)}, {high}" if gpu else high, ""))
    held = [c for c in profile.components if c.part is Part.GRADIENTS and Phase.STEP in c.phases]
    later = [c for c in held if profile.peak_phase not in c.phases]
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
    if cached := profile.needed_bytes - profile.device_bytes:
        lines += wrap(f"the card is full: torch's allocator gives {human_bytes(cached)} of its cache back", style.width)
    if plan.task == "training":
        trained = f"trains {human_count(plan.trainable_parameters)} parameters, {100 * plan.trainable_share:.2f} %"
        saved = "checkpoint" if plan.recipe.adapter is None else "adapter"
        lines += wrap(f"{trained}; the {saved} takes {human_bytes(plan.adapter_file_bytes)} on disk", style.width)
    return "\n".join(lines)


def _reason(plan: Plan, verdict: Verdict, style: Style, named: bool) -> str:
    """Which part is to blame, and when."""
    text = f"because of {verdict.blame}"
    return "\n".join(wrap(f"{plan.method}, {text}" if named else text, style.width))


def _changes(plan: Plan, style: Style) -> str:
    table = views.changes(plan)
    none = "  no known change makes it fit; without --gpu all cards are compared"
    text = render(table, style.width, style.colour) if table.rows else none
    little = [f"{' '.join(c.arguments)} {views.signed_gib(c.profile.needed_bytes - plan.profile.needed_bytes)}"
              for c in plan.changes if not c.fit.is_likely]  # fmt: skip
    if not little:
        return text
    words = [word for piece in little for word in (DOT.strip(), piece)][1:]
    return text + "\n  too little: " + ("\n" + " " * 14).join(joined(words, style.width - 14))
