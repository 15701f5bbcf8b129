"""Command lines of `plan` by chance: every model, card, method and kind of option, most of which do not fit."""

from __future__ import annotations

import json
import random
from pathlib import Path

from cli_runner import run
from known_models import BY_FORMULA

from peftbench.catalog.gpus import list_gpus
from peftbench.decide.plan.savings import EIGHT_BIT, PAGED
from peftbench.estimate.parts.optimizer import OPTIMIZERS
from peftbench.estimate.peft_types.table import METHODS
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.option import Option, options_of
from peftbench.inputs.recipe.parallelism import STRATEGIES
from peftbench.inputs.recipe.training import TrainingSpec

MODELS = tuple(model.id for model in BY_FORMULA)
CARDS = tuple(gpu.name for gpu in list_gpus())
SIZES = ("6GiB", "7.5GiB", "14.5GiB", "23GiB", "79GiB")
RECIPE: dict[str, tuple[str, ...]] = {
    "--sequence-length": ("64", "100", "700", "2048", "4096", "16384", "100000"),
    "--micro-batch-size": ("1", "2", "3", "6", "16", "37", "120"),
    "--gradient-accumulation-steps": ("1", "4"),
    "--optimizer": (*EIGHT_BIT, *PAGED, *OPTIMIZERS),
    "--dtype": ("bfloat16", "float16", "float32"),
    "--attention": ("sdpa", "flash_attention_2", "eager"),
}
SWITCHES = ("--no-gradient-checkpointing", "--use-reentrant", "--no-autocast", "--padded", "--use-cache")
ADAPTER: dict[str, tuple[str, ...]] = {
    "--r": ("1", "4", "8", "64", "200"),
    "--target-modules": ("all-linear", "q_proj,v_proj"),
    "--adapter-dtype": ("float32", "bfloat16", "float16"),
    "--lora-dropout": ("0.05", "0.1234567890123"),
    "--lora-alpha": ("7",),
    "--adapter-option": ("lora_bias=true",),
}
QUANTIZATION: dict[str, tuple[str, ...]] = {
    "--quant-type": ("nf4", "fp4", "int8", "gptq", "awq"),
    "--compute-dtype": ("bfloat16", "float16", "float32"),
    "--blocksize": ("64", "128", "256"),
}
QUANTIZATION_SWITCHES = ("--no-double-quant", "--upcast-unquantized", "--upcast-norms")
SEVERAL = {
    "--gpus": ("2", "3", "8", "16", "24"), "--parallel": STRATEGIES[1:-1], "--nodes": ("1", "2", "3"),
}  # fmt: skip


def _words(option: Option) -> tuple[str, ...]:
    return tuple(str(choice) for choice in option.choices)


RECIPE |= {option.flag: _words(option) for option in options_of(TrainingSpec) if option.choices}


def some(chance: random.Random, choices: dict[str, tuple[str, ...]], share: float) -> list[str]:
    """Each option with a chance of `share`, at one of its values."""
    return [word for name, values in choices.items() if chance.random() < share
            for word in (name, chance.choice(values))]  # fmt: skip


def switches(chance: random.Random, names: tuple[str, ...], share: float) -> list[str]:
    """Each with a chance of `share`."""
    return [name for name in names if chance.random() < share]


def model_path(name: str, folder: Path) -> str:
    """The model's config.json under a path with what a shell has to quote."""
    config = next(model.config for model in BY_FORMULA if model.id == name)
    place = folder / "it's my model & co" / f"$HOME {name.replace('/', ' ')}" / "config.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(dict(config)))
    return str(place)


class Questions:
    """Makes questions; those of files write them into `folder` first. `models` in turn, so that each comes."""

    def __init__(self, seed: int, folder: Path, models: tuple[str, ...] = MODELS) -> None:
        self.chance, self.folder, self.made = random.Random(seed), folder, 0
        self.models = models

    def next(self) -> list[str]:
        """The words of one command line; what it asks may be refused."""
        self.made += 1
        kind = self.chance.choices((self.typed, self.of_file, self.of_adapter), (12, 2, 1))[0]
        question = ["plan", *kind()]
        question += self.card()
        question += ["--framework", "unsloth"] if self.chance.random() < 0.05 else []
        return question

    def model(self) -> str:
        """A name, or now and then the path of its config.json, with what a shell has to quote."""
        name = self.models[self.made % len(self.models)]
        if self.chance.random() > 0.1:
            return name
        return model_path(name, self.folder)

    def card(self) -> list[str]:
        """One card nearly always."""
        if self.chance.random() < 0.1:
            return ["--gpu-memory", self.chance.choice(SIZES)]
        cards = self.chance.sample(CARDS, 2 if self.chance.random() < 0.05 else 1)
        return [word for card in cards for word in ("--gpu", card)]

    def typed(self) -> list[str]:
        """All by options."""
        methods = self.methods()
        return ["--model", self.model(), *(w for m in methods for w in ("--method", m)), *self.options(methods)]

    def methods(self) -> tuple[str, ...]:
        """None, one or two."""
        names = ("full", "lora", "qlora")
        number = self.chance.random()
        if number < 0.15:
            return ()
        if number < 0.25:
            return tuple(self.chance.sample(names, 2))
        if number < 0.45:
            peft_type = self.chance.choice(tuple(METHODS)).replace("_", "-")
            return (self.chance.choice(("", "q")) + peft_type,)
        return (self.chance.choice(names),)

    def options(self, methods: tuple[str, ...]) -> list[str]:
        """Some of every kind that the methods have."""
        chance = self.chance
        words = some(chance, RECIPE, 0.2) + switches(chance, SWITCHES, 0.15)
        if methods != ("full",):
            lora = not methods or any(method.endswith("lora") for method in methods)
            words += some(chance, ADAPTER if lora else {name: ADAPTER[name] for name in ("--adapter-dtype",)}, 0.2)
            words += ["--use-dora"] if lora and chance.random() < 0.1 else []
        if len(methods) == 1:
            words += self.of_type(methods[0])
        if not methods or any(method.startswith("q") for method in methods):
            words += some(chance, QUANTIZATION, 0.2) + switches(chance, QUANTIZATION_SWITCHES, 0.15)
        if chance.random() < 0.25:
            words += some(chance, SEVERAL, 0.7) + switches(chance, ("--cpu-offload", "--sync-each-batch"), 0.3)
        return words

    def of_type(self, method: str) -> list[str]:
        """An option that only this PEFT type has, and the tokens of a prompt."""
        plain = method.replace("-", "_")
        options = METHODS[plain if plain in METHODS else plain[1:]].options if plain != "full" else {}
        own = {option.name for option in options_of(AdapterSpec)}
        counted = (f"{name}={value}" for name, value in options.items() if type(value) is int and name not in own)
        counts = {"--adapter-option": tuple(counted)}
        prompt = {"--num-virtual-tokens": ("1", "50")} if "num_virtual_tokens" in options else {}
        return some(self.chance, {name: each for name, each in {**counts, **prompt}.items() if each}, 0.3)

    def of_file(self) -> list[str]:
        """Another tool's file, and some options over it."""
        chance, method = self.chance, self.chance.choice(("full", "lora", "qlora"))
        tool = chance.choice(("transformers", "trl", "axolotl", "llamafactory"))
        path = self.folder / f"file {self.made}{'.py' if tool == 'transformers' else '.yaml'}"
        asked = ["recipe", "--model", self.models[self.made % len(self.models)], "--method", method, "--for", tool]
        run(*asked, *self.options((method,)), "-o", str(path))
        over = some(chance, {name: RECIPE[name] for name in ("--sequence-length", "--micro-batch-size")}, 0.6)
        return ["--from", str(path), *over, *(some(chance, SEVERAL, 0.7) if chance.random() < 0.3 else [])]

    def of_adapter(self) -> list[str]:
        """An adapter_config.json as PEFT writes it."""
        chance, peft_type = self.chance, self.chance.choice(("lora", "lora", *METHODS))
        config: dict[str, object] = {"peft_type": peft_type.upper()}
        if peft_type == "lora":
            config |= {"r": chance.choice((8, 300)), "target_modules": chance.choice((None, "all-linear", ["q_proj"]))}
        path = self.folder / f"adapter {self.made}.json"
        path.write_text(json.dumps(config))
        quantized = ["--method", f"q{peft_type.replace('_', '-')}"] if chance.random() < 0.3 else []
        words = some(chance, RECIPE, 0.2) + some(chance, {"--adapter-dtype": ADAPTER["--adapter-dtype"]}, 0.3)
        return ["--model", self.model(), "--adapter-config", str(path), *quantized, *words]
