"""From the options of `peftbench choose` to a question: how many tokens, which recipes, which offers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.prices import KINDS, Offer, find_offers, list_offers, read_offers
from peftbench.cli.ask.calibration_option import calibrated
from peftbench.cli.ask.choose_options import RECIPES
from peftbench.cli.ask.plan_question import build_recipes, recipes_of
from peftbench.decide.asked import Build
from peftbench.decide.card import settle_training
from peftbench.decide.choose.dataset import Dataset
from peftbench.decide.choose.fit import SHARDED, Sharing
from peftbench.decide.choose.own import own_offer
from peftbench.decide.choose.ranking import Question
from peftbench.estimate.time.cost import Band
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import ParallelismSpec, TrainingSpec

COUNTS = (1, 2, 4, 8)
"""Numbers of cards, where the user names the price of one."""


def question_of(model: ModelSpec, dataset: Dataset, given: dict[str, Any]) -> Question:
    """What the options ask; raises SpecError or CatalogError where they contradict themselves or name nothing."""
    recipes = _recipes(model, given)
    for recipe in recipes:
        estimate_training(model, settle_training(model, recipe, None)[0])  # says what no card would mend
    offers = (*own_offers(given), *rented(given))
    fewest = min((offer.gpu_count for offer in offers), default=1)
    if fewest > given["max_gpus"] and not given["own"]:
        raise SpecError(f"every offer has more than {given['max_gpus']} GPUs.", f"Use --max-gpus {fewest}.")
    sharing = Sharing(given["parallel"], given["cpu_offload"])
    ParallelismSpec(gpus=2, strategy=sharing.strategy or SHARDED, cpu_offload=sharing.cpu_offload)  # can it offload?
    named = tuple(find_gpu(name) for name in dict.fromkeys(offer.gpu for offer in offers))
    cards = calibrated(named, given["calibration"], given["transformers"])
    return Question(
        model=model, recipes=recipes, sequences=given["batch_size"],
        tokens=Band(*(each * given["epochs"] for each in dataset.tokens)), max_gpus=given["max_gpus"],
        offers=tuple(o for o in offers if o.kind == "own" or o.gpu_count <= given["max_gpus"]),
        cards={card.name: card for card in cards}, framework=given["framework"], budget_usd=given["budget"],
        deadline_hours=given["deadline"], sharing=sharing, setup_hours=given["setup"],
        build=_build_of(model, given),
    )  # fmt: skip


_AS_PLAN = {"task": "training", "gpus": None, "from_files": (), "dry_run": False}
"""Questions of `plan` that a ranking does not ask."""


def _recipes(model: ModelSpec, given: dict[str, Any]) -> tuple[TrainingSpec, ...]:
    """Those of `plan` with the same options, one a method."""
    options = {str(option.name): given[str(option.name)] for section in RECIPES.values() for option in section}
    recipes: tuple[TrainingSpec, ...] = recipes_of(model, {**options, **_AS_PLAN, "method": given["method"]})  # type: ignore[assignment]
    return recipes


def _build_of(model: ModelSpec, given: dict[str, Any]) -> Build:
    """What makes a recipe of options, as `plan` does."""

    def build(method: str, options: Mapping[str, Any]) -> TrainingSpec:
        (recipe,) = build_recipes(model, (method,), dict(options), {**given, **_AS_PLAN})
        return recipe  # type: ignore[return-value]

    return build


def dataset_of(given: dict[str, Any], names: tuple[str, ...]) -> Dataset:
    """How many tokens an epoch has: as given, or those of the file; `names` are those of the model."""
    if (given["tokens"] is None) == (given["dataset"] is None):
        raise SpecError("give either --tokens or --dataset.", "Write it as in --tokens 50M.")
    if given["tokens"] is not None:
        return Dataset(Band(*3 * (given["tokens"],)), "given")
    from peftbench.cli.progress import Progress
    from peftbench.decide.choose.dataset import dataset_tokens, local_tokenizer

    with Progress("reading the data set") as progress:
        return dataset_tokens(given["dataset"], local_tokenizer(names), progress)


def own_offers(given: dict[str, Any]) -> tuple[Offer, ...]:
    """The cards that the user owns, at the price of their electricity; each kind and count once."""
    owned = tuple(own_offer(*counted, given["power_price"]) for counted in dict.fromkeys(map(_counted, given["own"])))
    for offer in owned:
        sequences, count = given["batch_size"], offer.gpu_count
        if sequences % count:
            what = f"{sequences} sequences a step cannot be shared by {count} cards."
            raise SpecError(what, f"Use --batch-size {max(1, round(sequences / count)) * count}.")
    return owned


def _counted(text: str) -> tuple[str, int]:
    """Read "rtx4090" or "2xrtx4090"."""
    match = re.fullmatch(r"\s*([1-9][0-9]{0,2})\s*[x×]\s*(.+)", text)
    return (find_gpu(match[2]).name, int(match[1])) if match else (find_gpu(text).name, 1)


def rented(given: dict[str, Any]) -> tuple[Offer, ...]:
    """What can be rented: at the user's price, from the user's file, of today, or of the snapshot."""
    sources = [name for name in ("price", "prices", "live_prices") if given[name] not in (None, False)]
    if given["price"] and given["provider"]:
        raise SpecError("--price is yours, and of no provider.", "Leave out --provider, or --price.")
    if len(sources) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in sources[:2])
        raise SpecError(f"{first} and {second} exclude each other.", "Leave one of them out.")
    for name in ("price", "purchase_price"):
        if given[name] and len(given["gpu"]) != 1:
            raise SpecError(f"--{name.replace('_', '-')} is of one card.", "Name it, as in --gpu rtx4090.")
    if given["price"]:
        return _at_price(find_gpu(given["gpu"][0]).name, given["price"])
    return _listed(given)


def _at_price(gpu: str, usd: float) -> tuple[Offer, ...]:
    return tuple(
        Offer(provider="your price", gpu=gpu, gpu_count=count, instance_type=f"{count}x", kind="on-demand",
              usd_per_hour=count * usd, source="--price")
        for count in COUNTS
    )  # fmt: skip


def _listed(given: dict[str, Any]) -> tuple[Offer, ...]:
    kinds = KINDS if given["spot"] else tuple(kind for kind in KINDS if kind != "spot")
    known = _known(given)
    offers = [o for name in given["provider"] or (None,) for o in find_offers(None, name, kinds, known)]
    wanted = {find_gpu(name).name for name in given["gpu"]}
    found = tuple(offer for offer in dict.fromkeys(offers) if not wanted or offer.gpu in wanted)
    if not found and not given["own"]:
        names = " or ".join(sorted(wanted)) or "any card"
        hint = "Give your own: --gpu NAME --price 1.20, or --prices FILE.csv."
        raise SpecError(f"no price is known of {names}.", hint)
    return found


def _known(given: dict[str, Any]) -> tuple[Offer, ...]:
    if given["prices"] is not None:
        return read_offers(given["prices"])
    if given["live_prices"]:
        from peftbench.catalog.prices_live import live_offers

        return live_offers()
    return list_offers()
