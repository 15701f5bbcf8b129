"""The ranking of hardware: what is ranked fits, the front is a front, and a row's command prices the same recipe."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.base.errors import CatalogError, SpecError
from peftbench.catalog.gpus import find_gpu, list_gpus
from peftbench.catalog.models import find_model
from peftbench.catalog.prices import Offer, find_offers
from peftbench.decide.choose.fit import Sharing
from peftbench.decide.choose.own import break_evens, own_answer, own_offer
from peftbench.decide.choose.ranking import Choice, NothingFits, Question, Ranking, balanced, choose, pareto_front
from peftbench.decide.from_options import training_recipes
from peftbench.decide.verdict import Fit, judge
from peftbench.estimate.time.cost import Band
from peftbench.estimate.time.step import step_time
from peftbench.estimate.training import estimate_training

CARDS = {gpu.name: gpu for gpu in list_gpus()}
TOKENS = Band(1e7, 9e6, 1.1e7)
RENTED = find_offers(kinds=("on-demand",))


def question(model: str = "0.6b", methods: tuple[str, ...] = ("full", "lora", "qlora"), **fields: object) -> Question:
    asked = Question(
        model=find_model(model), recipes=training_recipes(methods, {}), tokens=TOKENS, sequences=16, offers=RENTED,
        max_gpus=16, cards=CARDS,
    )  # fmt: skip
    return replace(asked, **fields)  # type: ignore[arg-type]


@cache
def ranking(model: str = "8b") -> Ranking:
    return choose(question(model))


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(("0.6b", "8b", "70b")),
    methods=st.lists(st.sampled_from(("full", "lora", "qlora")), min_size=1, unique=True).map(tuple),
    offers=st.lists(st.sampled_from(RENTED), min_size=1, max_size=4, unique=True).map(tuple),
    sequences=st.sampled_from((1, 6, 16, 64)),
)
def test_nothing_is_ranked_that_does_not_fit_with_its_band(
    model: str, methods: tuple[str, ...], offers: tuple[Offer, ...], sequences: int
) -> None:
    """Judged again on the very card, with no cache between."""
    try:
        found = choose(question(model, methods, offers=offers, sequences=sequences))
    except SpecError:
        return
    for choice in found.choices:
        setup = choice.setup
        gpu, training = setup.shape.gpu, setup.training
        verdict = judge(estimate_training(find_model(model), training, gpu), gpu)
        assert verdict == setup.verdict
        assert verdict.fit is Fit.FITS
        done = training.micro_batch_size * training.gradient_accumulation_steps * setup.shape.gpus
        assert done == sequences
        assert training.parallelism.gpus == setup.shape.gpus == choice.offer.gpu_count * setup.shape.nodes


@settings(max_examples=15, deadline=None)
@given(
    method=st.sampled_from(("full", "lora", "qlora")), offer=st.sampled_from(RENTED), checkpointing=st.booleans(),
    size=st.sampled_from((1, 2, 4, 8, 16)),
)  # fmt: skip
def test_no_copy_of_the_model_that_fits_is_faster_than_the_chosen_setup(
    method: str, offer: Offer, checkpointing: bool, size: int
) -> None:
    """On one card, every micro-batch with and without checkpointing."""
    gpu, model = CARDS[offer.gpu], find_model("8b")
    asked = question("8b", (method,), offers=(replace(offer, gpu_count=1),), max_gpus=1)
    tried = replace(
        asked.recipes[0], micro_batch_size=size, gradient_accumulation_steps=16 // size,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    if not gpu.has_bfloat16 or judge(estimate_training(model, tried, gpu), gpu).fit is not Fit.FITS:
        return
    step = step_time(model, tried, gpu)
    if step:
        assert choose(asked).fastest.setup.step.tokens_per_s >= step.tokens_per_s * 0.999


def test_the_ranking_goes_from_the_cheapest_to_the_dearest() -> None:
    found = ranking()
    prices = [choice.usd for choice in found.choices]
    assert prices == sorted(prices)
    assert found.cheapest is found.choices[0]
    assert found.fastest.hours == min(choice.hours for choice in found.choices)
    assert found.best in found.front


def test_nothing_beats_the_front_and_the_front_beats_the_rest() -> None:
    found = ranking()
    assert len(found.front) > 1

    def beaten(choice: Choice) -> bool:
        own = (choice.usd, choice.hours)
        return any(o.usd <= own[0] and o.hours <= own[1] and (o.usd, o.hours) != own for o in found.choices)

    assert not any(map(beaten, found.front))
    ends = {(choice.usd, choice.hours) for choice in found.front}
    assert all(beaten(choice) for choice in found.choices if (choice.usd, choice.hours) not in ends)


def test_the_balanced_choice_does_not_depend_on_currency_or_unit_of_time() -> None:
    front = tuple(pareto_front(ranking().choices))
    scaled = [
        choice._replace(cost=choice.cost._replace(usd=Band(*(7 * usd for usd in choice.cost.usd)))) for choice in front
    ]
    assert scaled.index(balanced(scaled)) == front.index(balanced(front))
    assert balanced(front[:1]) is front[0]


def test_budget_and_deadline_are_kept() -> None:
    found = ranking()
    middle = found.front[len(found.front) // 2]
    within = choose(question("8b", budget_usd=middle.usd, deadline_hours=middle.hours))
    for choice in (within.cheapest, within.fastest, within.best):
        assert choice.usd <= middle.usd
        assert choice.hours <= middle.hours
    assert len(within.choices) == len(found.choices)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"budget_usd": 1e-6}, "the cheapest is"),
        ({"deadline_hours": 1e-6}, "the fastest is"),
        ({"budget_usd": 1e-6, "deadline_hours": 1e-6}, "the cheapest is"),
    ],
)
def test_the_impossible_is_answered_with_the_nearest_possible(limits: dict[str, float], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        choose(question("8b", **limits))


def test_each_alone_is_possible_but_not_both() -> None:
    cheapest, fastest = ranking().cheapest, ranking().fastest
    with pytest.raises(SpecError) as raised:
        choose(question("8b", budget_usd=cheapest.usd, deadline_hours=fastest.hours))
    assert "in time, the cheapest is" in raised.value.what
    assert "within the budget, the fastest is" in raised.value.what


def test_too_large_for_every_offer() -> None:
    with pytest.raises(SpecError, match="no offer fits"):
        choose(question("405b", ("full",), max_gpus=1))


def test_where_nothing_fits_the_ways_out_are_those_that_were_not_taken() -> None:
    with pytest.raises(NothingFits) as first:
        choose(question("405b", ("full",), max_gpus=1))
    for way in ("--max-gpus 64", "--method qlora", "--cpu-offload"):
        assert way in first.value.hint
    with pytest.raises(NothingFits) as second:
        choose(question("405b", ("qlora",), max_gpus=64, offers=find_offers("t4"), sharing=Sharing(None, True)))
    assert second.value.hint == "Try a shorter --sequence-length."


def test_an_uncalibrated_cheapest_does_not_win_alone() -> None:
    """The cheapest on a card that was measured stands beside it; and how many more their bands let be as cheap."""
    found = ranking()
    measured = [choice for choice in found.choices if choice.setup.step.calibrated]
    assert found.cheapest_measured is (None if found.cheapest is measured[0] else measured[0])
    alone = choose(question("8b", offers=find_offers("l40s")))
    assert alone.cheapest_measured is None
    assert alone.rivals == sum(c.cost.usd.low < alone.cheapest.cost.usd.high for c in alone.choices) - 1
    cheap = replace(find_offers("rtx5090")[0], gpu_count=1, usd_per_hour=0.01)
    unmeasured = choose(question("8b", offers=(cheap, *find_offers("a100-80gb"))))
    assert not unmeasured.cheapest.setup.step.calibrated
    assert unmeasured.cheapest_measured and unmeasured.cheapest_measured.setup.shape.gpu.name == "a100-80gb"


@pytest.mark.parametrize("gpus", [2, 4])
def test_offload_gives_70b_full_an_answer_on_a_few_cards(gpus: int) -> None:
    """Not faster than the products at the data sheet's rate, and not slower by what the links alone explain."""
    few = (replace(find_offers("h100-sxm")[0], gpu_count=gpus),)
    with pytest.raises(NothingFits):
        choose(question("70b", ("full",), offers=few))
    found = choose(question("70b", ("full",), offers=few, sharing=Sharing(cpu_offload=True))).fastest
    assert found.setup.shape.gpus == gpus
    assert found.setup.host_bytes == pytest.approx(16 * 70.6e9, rel=0.01)
    ideal_hours = 1e7 * 8 * 70.6e9 / (gpus * 989e12) / 3600
    assert ideal_hours < found.hours < 10 * ideal_hours


def test_large_models_get_an_answer_from_several_cards() -> None:
    full = choose(question("70b", ("full",), max_gpus=32, sequences=32))
    assert all(choice.setup.training.parallelism.shards_weights for choice in full.choices)
    lora = choose(question("405b", ("lora",), max_gpus=32, sequences=32))
    assert lora.cheapest.setup.shape.gpus >= 8


def test_only_instances_that_a_network_joins_make_clusters() -> None:
    for choice in ranking().choices:
        if choice.setup.shape.nodes > 1:
            assert choice.offer.gpu_count == 8
            assert choice.offer.provider != "vast.ai"


def test_a_count_that_does_not_divide_the_batch_is_no_setup() -> None:
    asked = question(sequences=3)
    offers = tuple(o for o in RENTED if o.gpu_count == 2)
    with pytest.raises(SpecError):
        choose(replace(asked, offers=offers))


# ── one's own cards ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_own_card_costs_its_electricity() -> None:
    offer = own_offer("rtx4090", 2, 0.20)
    assert offer.usd_per_hour == pytest.approx(2 * 0.450 * 0.20)
    with pytest.raises(CatalogError, match="power"):
        own_offer("gb200", 1, 0.20)


def test_an_own_card_that_fits_needs_no_change() -> None:
    own = own_offer("rtx4090", 1, 0.15)
    asked = question("8b", offers=(own, *RENTED))
    answer = own_answer(asked, own, choose(asked).choices)
    assert answer.choice and answer.change is None
    assert answer.choice.offer == own


def test_the_change_for_an_own_card_fits_it() -> None:
    own = own_offer("rtx3060", 1, 0.15)
    asked = question("8b", ("full",), offers=(own, *RENTED))
    answer = own_answer(asked, own, choose(asked).choices)
    assert answer.choice is None and answer.change
    gpu = find_gpu("rtx3060")
    assert judge(estimate_training(asked.model, answer.change.training, gpu), gpu).fit is Fit.FITS


def test_rent_or_buy_takes_the_cheapest_rent_and_the_price_that_is_paid() -> None:
    by_card = {each.gpu: each for each in break_evens(ranking().choices, 0.15)}
    bought = by_card["rtx4090"]
    assert bought.rent.usd_per_gpu_hour == min(o.usd_per_gpu_hour for o in find_offers("rtx4090", kinds=("on-demand",)))
    assert bought.hours == pytest.approx(1599 / (bought.rent.usd_per_gpu_hour - 0.450 * 0.15))
    paid = {each.gpu: each for each in break_evens(ranking().choices, 0.15, paid_usd=800)}
    assert paid["rtx4090"].purchase_usd == 800
