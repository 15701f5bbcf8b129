"""Time what serves several adapters with one base: switching, swapping, loading, merging, and batches that mix them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from peftbench.inputs.comparison import LatencyCase, Variant
from peftbench.measure.child.steps import now_s
from peftbench.measure.latency.rounds import Request
from peftbench.measure.latency.variants import base_weights, frozen, loaded, with_adapters

REPEATS = 20
FIRST = "default"
"""PEFT's name of the first adapter."""
BASE = "__base__"
"""PEFT's name for rows of a batch that use no adapter."""

Operations = tuple[tuple[str, tuple[float, ...]], ...]


def time_operations(case: LatencyCase, variant: Variant, request: Request) -> Operations:
    """Seconds of each repeat of each operation that a dynamic LoRA can do, on a model of its own: merging in place must
    not touch weights that others share. Empty for other variants."""
    if variant.route != "dynamic" or variant.adapter is None or variant.adapter.peft_type != "lora":
        return ()
    model, _ = loaded(base_weights(case, variant))
    wrapped = with_adapters(model, variant.adapter, variant.adapters, case.seed)
    found = {**_switching(wrapped), **_from_a_folder(wrapped, case.device), **_batches(wrapped, request, case.seed)}
    if variant.quantization is None:  # quantized weights drift with every merge, and a drift has no speed
        found |= _merging(wrapped)
    return tuple((name, tuple(seconds)) for name, seconds in found.items())


def _switching(model: Any) -> dict[str, list[float]]:
    """Between the adapters that are there, the first at the end."""
    names = list(model.peft_config)
    if len(names) < 2:
        return {}
    cycle = [names[(repeat + 1) % len(names)] for repeat in range(REPEATS)]
    found = [seconds(partial(model.set_adapter, name), model) for name in cycle]
    model.set_adapter(FIRST)
    frozen(model)
    return {"set_adapter": found}


def _from_a_folder(model: Any, device: str) -> dict[str, list[float]]:
    """A file of safetensors, as the page cache holds it: into the place of an adapter, and beside those there."""
    from peft.utils.hotswap import hotswap_adapter

    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, selected_adapters=[FIRST])
        swapped = [
            seconds(lambda: hotswap_adapter(model, folder, adapter_name=FIRST, torch_device=device), model)
            for _ in range(REPEATS)
        ]
        return {"hotswap_adapter": swapped, "load_adapter": [_loading(model, folder, device) for _ in range(REPEATS)]}


def _loading(model: Any, folder: str, device: str) -> float:
    """And take it away again."""
    assert (Path(folder) / "adapter_model.safetensors").is_file()
    found = seconds(lambda: model.load_adapter(folder, adapter_name="loaded", torch_device=device), model)
    model.delete_adapter("loaded")
    frozen(model)
    return found


def _merging(model: Any) -> dict[str, list[float]]:
    """Merge in place and unmerge, in turn."""
    merged, unmerged = [], []
    for _ in range(REPEATS):
        merged.append(seconds(lambda: model.base_model.merge_adapter(), model))
        unmerged.append(seconds(lambda: model.base_model.unmerge_adapter(), model))
    return {"merge_adapter": merged, "unmerge_adapter": unmerged}


def _batches(model: Any, request: Request, seed: int) -> dict[str, list[float]]:
    """A prefill of a row for each adapter and one for none, beside the same rows all with the first adapter."""
    names = [*model.peft_config, BASE]
    prompt = request.prompt[:1].repeat(len(names), 1)
    runs: dict[str, Callable[[], Any]] = {
        f"batch of {len(names)}, one adapter": lambda: forward(model, prompt),
        f"batch of {len(names)}, mixed": lambda: forward(model, prompt, names),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    chance, order = random.Random(seed), list(runs)
    for _ in range(REPEATS):
        chance.shuffle(order)
        for name in order:
            found[name].append(seconds(runs[name], model))
    return {name: values[1:] for name, values in found.items()}  # the first warms up


def forward(model: Any, prompt: torch.Tensor, adapters: Sequence[str] | None = None) -> torch.Tensor:
    """Logits of a prompt, each row with the adapter of its place, or all with the active one."""
    with torch.no_grad():
        more = {} if adapters is None else {"adapter_names": list(adapters)}
        logits: torch.Tensor = model(input_ids=prompt, **more).logits
    return logits


def seconds(run: Callable[[], Any], model: Any) -> float:
    """Wall time until the device is done; then the model is frozen again, as switching makes adapters trainable."""
    began_s = now_s(model.device.type)
    run()
    found = now_s(model.device.type) - began_s
    frozen(model)
    return found
