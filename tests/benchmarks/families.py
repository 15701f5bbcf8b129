"""The estimate against the dry run for families: full, LoRA and QLoRA, each with checkpointing and without.

    python tests/benchmarks/families.py granite cohere2 [--configs FILE]
    python tests/benchmarks/families.py all

A name is a model_type; its smallest checkpoint is taken, cut to as many layers as show every kind, three at least. The
checkpoints are those of the catalogue, or of a JSON list of objects with `id` and `config`. Prints the error of
allocated memory of each recipe, then median and worst of each family, and of all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from dryruns.architectures import cut

from peftbench.base.errors import SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import list_models
from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.dryrun.runner import DryRunError
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.workload import workload_of
from peftbench.estimate.training import estimate_training
from peftbench.inputs.model.config_json import read_config
from peftbench.inputs.model.weights import num_parameters
from peftbench.libraries.refusal import Refused

LAYERS = 3
GPU = find_gpu("a100-80gb")
SIZE = {"sequence_length": 512, "micro_batch_size": 2}
RECIPES: dict[str, dict[str, Any]] = {
    f"{method}{'' if checkpointing else ', kept'}": {"method": method, "gradient_checkpointing": checkpointing}
    for method in ("full", "lora", "qlora")
    for checkpointing in (True, False)
}

Configs = list[Mapping[str, Any]]


def main() -> None:
    """Compare the families one after another; what either tier refuses is printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="+", metavar="MODEL_TYPE")
    parser.add_argument("--configs", metavar="FILE", help="a JSON list of objects with id and config")
    options = parser.parse_args()
    configs = read_configs(options.configs)
    names = options.names if options.names != ["all"] else sorted({str(one["model_type"]) for one in configs})
    with DryRunSession() as session:
        errors = {name: family_errors(session, name, smallest(configs, name)) for name in names}
    for name, found in {**errors, "all": [error for each in errors.values() for error in each]}.items():
        if found:
            sizes = list(map(abs, found))
            print(f"{name}: {len(sizes)} recipes, median {statistics.median(sizes):.2%}, worst {max(sizes):.2%}")


def read_configs(path: str | None) -> Configs:
    """The config of every checkpoint."""
    if path is None:
        return [model.config for model in list_models()]
    return [one["config"] for one in json.loads(Path(path).read_text())]


def smallest(configs: Configs, name: str) -> dict[str, Any]:
    """The config with the fewest parameters of those of this model_type, cut to a few layers."""
    some = [config for config in configs if config["model_type"] == name]
    if not some:
        sys.exit(f"There is no checkpoint of model_type {name}. Give a file of configs that has one.")
    return cut(dict(min(some, key=lambda one: num_parameters(read_config(one, name, "test")))), LAYERS)


def family_errors(session: DryRunSession, name: str, config: dict[str, Any]) -> list[float]:
    """The errors of all recipes."""
    found = []
    for recipe, options in RECIPES.items():
        try:
            found.append(allocated_error(session, config, {**SIZE, **options}))
        except (SpecError, Refused, DryRunError) as error:
            print(f"refused: {name}: {recipe}: {error.what}", flush=True)
        else:
            print(f"{found[-1]:+8.2%}  {name}: {recipe}", flush=True)
    return found


def allocated_error(session: DryRunSession, config: dict[str, Any], options: dict[str, Any]) -> float:
    """The estimate by the dry run, less one."""
    model = read_config(config, str(config["model_type"]), "test")
    (training,) = training_recipes((options.pop("method"),), options)
    training, _ = settle_training(model, training, GPU)
    traced = session.run(workload_of(config, training, GPU), GPU).profile.allocated_bytes
    return estimate_training(model, training, GPU).allocated_bytes / traced - 1


if __name__ == "__main__":
    main()
