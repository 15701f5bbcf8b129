"""From the options of `peftbench plan` to recipes, cards and the plans of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftbench.base.errors import NoFormula, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftbench.catalog.models import NamedConfig
    from peftbench.decide.asked import Asked
    from peftbench.decide.plan.plan import Plan
    from peftbench.inputs.card.gpu import GpuSpec
    from peftbench.inputs.model.spec import ModelSpec, OtherModel
    from peftbench.inputs.recipe import InferenceSpec, TrainingSpec

    Recipes = tuple[TrainingSpec, ...] | tuple[InferenceSpec, ...]

DRY_RUN = (
    "dry_run", "batch_lengths", "torch_empty_cache_steps", "alloc_conf", "extrapolate", "dry_run_device", "no_cache",
    "timeout",
)  # fmt: skip
TASK = ("task_type", "num_labels", "target_length", "audio_seconds")
"""What only a dry run has."""
_EXAMPLES = {"gpu_memory": "--gpu-memory 14.5GiB", "explain": "--explain activations"}


def check_question(given: dict[str, Any]) -> None:
    """Refuse questions that contradict themselves."""
    for name in ("gpu_memory", "explain"):
        if given[name] is not None and not given[name].strip():
            raise SpecError(f"--{name.replace('_', '-')} is empty.", f"Write it as in {_EXAMPLES[name]}.")
    asked = [name for name in ("max", "explain", "check") if given[name]]
    if len(asked) > 1:
        raise SpecError(f"--{asked[0]} and --{asked[1]} are two questions.", "Ask one at a time.")
    if given["no_gpu"] and (given["gpu"] or given["gpu_memory"]):
        raise SpecError("--no-gpu and a card exclude each other.", "Leave one of them out.")
    if given["no_gpu"] and (given["max"] or given["check"]):
        raise SpecError(f"--{asked[0]} needs a card.", "Name one, as in --gpu t4.")
    if given["explain"] and given["format"] != "terminal":
        raise SpecError("--explain is only written for the terminal.", "Leave out --format.")
    if given["dry_run"]:
        check_dry_run(given)
    else:
        _check_no_dry_run(given)
    if given["gpus"] == "auto" and given["nodes"]:
        raise SpecError("--gpus auto chooses the nodes, eight GPUs in each.", "Leave out --nodes, or give --gpus N.")
    if given["max"] and given["gpus"] == "auto":
        raise SpecError("--max is about a given number of GPUs.", "Give it, as in --gpus 8, instead of auto.")
    if given["max"] and given["task"] == "inference":
        raise SpecError("--max is known for training only.", "Leave out --task inference.")
    if given["framework"] and given["task"] == "inference":
        raise SpecError("--framework is about training.", "Leave it out, or leave out --task inference.")


def _check_no_dry_run(given: dict[str, Any]) -> None:
    unused = [name for name in DRY_RUN if given[name] and (name, given[name]) != ("dry_run_device", "cuda")]
    if unused:
        raise SpecError(f"--{unused[0].replace('_', '-')} belongs to a dry run.", "Add --dry-run.")


def check_dry_run(given: dict[str, Any]) -> None:
    """Refuse what no dry run answers."""
    if given["gpus"] == "auto":
        raise SpecError("a dry run is of a given number of GPUs.", "Give it, as in --gpus 8, instead of auto.")
    if given["max"] or given["explain"]:
        asked = "max" if given["max"] else "explain"
        raise SpecError(f"--{asked} is answered by formula.", "Leave out --dry-run.")
    if not (given["gpu"] or given["gpu_memory"] or given["no_gpu"]):
        raise SpecError("a dry run needs a card, for kernels depend on it.", "Name one, as in --gpu t4, or --no-gpu.")


def check_task(given: dict[str, Any]) -> None:
    """Raise NoFormula where an option asks for what no formula has."""
    asked = [name for name in TASK if given.get(name)]
    if asked:
        option = f"--{asked[0].replace('_', '-')}"
        raise NoFormula(f"{option} has no formula.", "Use --dry-run, or leave it out.")


def question_of(given: dict[str, Any]) -> tuple[NamedConfig, dict[str, Any]]:
    """The model that is asked about, and the question with what its --from files say as `reading`."""
    if given["from_files"]:
        from peftbench.cli.ask.from_question import named_model, read_question

        reading = read_question(given)
        return named_model(given, reading), {**given, "reading": reading}
    from peftbench.catalog.models import find_config

    if given["model"] is None:
        raise SpecError("Missing option '--model'.", "Name one, as in --model 8b, or a configuration: --from FILE.")
    return find_config(given["model"]), given


def notes_of_files(given: dict[str, Any]) -> tuple[str, ...]:
    """What is to be known of the files that say the recipe or its adapter."""
    if given["adapter_config"]:
        from peftbench.cli.ask.adapter_question import notes_on

        return notes_on(given["adapter_config"])
    return given["reading"].notes if given["from_files"] else ()


def with_files(plans: list[Plan], named: NamedConfig, given: dict[str, Any]) -> list[Plan]:
    """The plans with what is to be known of the model's name and of the files that say the recipe.

    What these files have that is not priced is listed as well.
    """
    read = (*named.notes, *notes_of_files(given))
    plans = [plan._replace(notes=(*read, *plan.notes)) for plan in plans] if read else plans
    if not given["from_files"] or not given["reading"].unread:
        return plans
    from peftbench.recipes.effects import unpriced

    return [plan.without_price_of(unpriced(given["reading"].unread, plan)) for plan in plans]


def recipes_of(model: ModelSpec | OtherModel, given: dict[str, Any]) -> Recipes:
    """One recipe a method, from the options that were given; one recipe for an adapter_config.json."""
    from peftbench.decide.from_options import COMPARED, check_sharing

    of_file = given["adapter_config"] or given["from_files"]  # that says itself which method it is
    methods, options = given["method"] or (() if of_file else COMPARED), _options(given)
    recipes = build_recipes(model, methods, options, given)
    if given["gpus"] != "auto":
        check_sharing(options, recipes)
    return recipes


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """The flat options that were given."""
    from peftbench.decide.from_options import OPTIONS

    options = {name: given[name] for name in OPTIONS if given.get(name) not in (None, "auto")}
    if given["adapter_option"]:
        options["adapter_options"] = dict(map(_assignment, given["adapter_option"]))
    return options


def build_recipes(
    model: ModelSpec | OtherModel, methods: tuple[str, ...], options: dict[str, Any], given: dict[str, Any]
) -> Recipes:
    """One recipe a method from flat options, over the files that were given; every question goes through here."""
    from peftbench.decide.from_options import inference_requests, training_recipes, within_positions

    build = inference_requests if given["task"] == "inference" else training_recipes
    if given["adapter_config"]:
        from peftbench.cli.ask.adapter_question import recipe_with_adapter

        recipes: Recipes = recipe_with_adapter(model, methods, options, given, build)
        return recipes
    if given["from_files"]:
        from peftbench.cli.ask.from_question import recipe_with_files

        return recipe_with_files(given["reading"].recipe, methods, options)
    return build(methods, within_positions(model, given["task"], methods, options))


def asked_of(model: ModelSpec, method: str, given: dict[str, Any]) -> Asked:
    """One of the methods with the options that were given: what advice is typed over."""
    from peftbench.decide.asked import Asked

    def build(method: str, options: Mapping[str, Any]) -> TrainingSpec:
        (recipe,) = build_recipes(model, (method,), dict(options), given)
        return recipe  # type: ignore[return-value]

    return Asked(method, _options(given), build)


def with_effect(given: dict[str, Any], method: str) -> dict[str, Any]:
    """What was given, without the options that only other methods have."""
    from peftbench.decide.from_options import effective

    options = _options(given)
    kept = effective(method, options)
    unset = {name: None for name in options if name not in kept}
    extra = kept.get("adapter_options", {})
    words = tuple(word for word in given["adapter_option"] if _assignment(word)[0] in extra)
    return {**given, **unset, "adapter_option": words}


def _assignment(text: str) -> tuple[str, int | float | bool | str]:
    """Read NAME=VALUE; the value is a whole number, a number, true or false, or else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SpecError(f"cannot read --adapter-option {text[:40]!r}.", "Write NAME=VALUE, as in oft_block_size=64.")
    for kind in (int, float):
        try:
            return name.strip(), kind(value)
        except ValueError:
            continue
    return name.strip(), {"true": True, "false": False}.get(value.lower(), value)


def cards_of(given: dict[str, Any]) -> tuple[GpuSpec | None, ...]:
    """The cards that were named, all of the catalogue when none was, or no card at all."""
    from peftbench.catalog.gpus import find_gpu, gpu_of_size, list_gpus
    from peftbench.cli.ask.calibration_option import calibrated

    cards: list[GpuSpec] = []
    for name in given["gpu"]:
        cards += _local() if name.strip().lower() == "local" else [find_gpu(name)]
    if given["gpu_memory"]:
        from peftbench.base.units import parse_bytes

        cards.append(gpu_of_size(parse_bytes(given["gpu_memory"])))
    if given["no_gpu"] or (given["explain"] and not cards):
        return (None,)
    found = tuple(dict.fromkeys(cards)) or list_gpus()
    return calibrated(found, given.get("calibration"), given.get("transformers"))


def _local() -> tuple[GpuSpec, ...]:
    from peftbench.catalog.gpus import with_speed
    from peftbench.measure.device.local_gpu import find_local_gpus

    return tuple(map(with_speed, find_local_gpus()))


def plans_of(model: ModelSpec, recipes: Recipes, given: dict[str, Any]) -> tuple[list[Plan], list[str]]:
    """A plan for each card and recipe, and why some of the cards were left out when all are compared."""
    cards = cards_of(given)
    chosen_by_us = not (given["gpu"] or given["gpu_memory"] or given["no_gpu"])
    with_changes = given["format"] == "json" or len(cards) == len(recipes) == 1
    plans: list[Plan] = []
    errors: dict[str, SpecError] = {}
    for card in cards:
        try:
            chosen = [_on_fewest(model, recipe, card) for recipe in recipes] if given["gpus"] == "auto" else recipes
            plans += [plan_of(model, recipe, card, with_changes, given) for recipe in chosen]
        except SpecError as error:
            if card is None or not chosen_by_us:
                raise
            errors[card.name] = error
    if not plans:
        raise next(iter(errors.values()))
    notes = [f"{name} is left out: {error.what}" for name, error in errors.items()]
    notes += dict.fromkeys(card.calibration.said for card in cards if card and card.calibration)
    if given["adapter"] == "merged":
        notes.append("a merged adapter adds nothing: the base model alone is priced.")
    return plans, notes


def _on_fewest(
    model: ModelSpec, recipe: TrainingSpec | InferenceSpec, card: GpuSpec | None
) -> TrainingSpec | InferenceSpec:
    from peftbench.decide.plan.gpu_count import on_fewest

    if card is None:
        raise SpecError("--gpus auto needs a card.", "Name one, as in --gpu a100-80gb.")
    return on_fewest(model, recipe, card)


def plan_of(
    model: ModelSpec, recipe: TrainingSpec | InferenceSpec, card: GpuSpec | None, with_changes: bool,
    given: dict[str, Any],
) -> Plan:  # fmt: skip
    """The plan of one recipe by formula."""
    from peftbench.decide.plan.plan import make_inference_plan, make_plan
    from peftbench.inputs.recipe import TrainingSpec

    if isinstance(recipe, TrainingSpec):
        asked = asked_of(model, recipe.method, given) if with_changes else None
        return make_plan(model, recipe, card, with_changes, given["framework"] or "transformers", asked)
    return make_inference_plan(model, recipe, card)
