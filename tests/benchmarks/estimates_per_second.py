"""Prints how many training estimates one process makes in a second, on one core.

Run it with the Python that has peftbench installed: python tests/benchmarks/estimates_per_second.py [--profile].
A search goes by tensors, without a replay of the allocator, and replays what it found: the goal is 2,000 a second on a
warm cache, both where only lengths and batches change and over the whole catalogue. The first pass over the catalogue
runs every layer on the tape; later ones find the moments in a cache. An answer that is shown is replayed and judged.
"""

from __future__ import annotations

import cProfile
import itertools
import pstats
import sys
import time
from collections.abc import Callable, Sequence

from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_model, list_models
from peftbench.decide.verdict import judge
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.training import estimate_training, reserved_components
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import AdapterSpec, QuantizationSpec, TrainingSpec
from peftbench.memory import MemoryProfile

LORA = AdapterSpec(r=16, target_modules=("all-linear",))
METHODS = ((None, None), (LORA, None), (LORA, QuantizationSpec()))
LENGTHS = (512, 1024, 2048, 4096, 8192)
Case = tuple[ModelSpec, TrainingSpec]
Pass = Callable[[Sequence[Case], GpuSpec], None]


def one_recipe() -> list[Case]:
    """One model and method, many lengths and batches."""
    model = find_model("meta-llama/Llama-3.1-8B")
    sizes = itertools.product(range(128, 8193, 128), range(1, 17))
    return [(model, TrainingSpec(sequence_length=s, micro_batch_size=b, adapter=LORA)) for s, b in sizes]


def catalogue() -> list[Case]:
    """Every model, method, length, with and without checkpointing."""
    models = [find_model(entry.id) for entry in list_models() if entry.has_formula]
    return [
        (model, TrainingSpec(sequence_length=s, adapter=a, quantization=q, gradient_checkpointing=c))
        for model, (a, q), c, s in itertools.product(models, METHODS, (True, False), LENGTHS)
    ]


def search_all(cases: Sequence[Case], gpu: GpuSpec) -> None:
    """The tensors of each case."""
    for model, training in cases:
        assert MemoryProfile(reserved_components(model, training, traits_of(gpu), None)).allocated_bytes


def show_all(cases: Sequence[Case], gpu: GpuSpec) -> None:
    """Estimate and judge each case."""
    for model, training in cases:
        judge(estimate_training(model, training, gpu), gpu)


def report(name: str, cases: Sequence[Case], gpu: GpuSpec, each: Pass = search_all) -> None:
    """Time one pass over the cases and print a line."""
    started = time.perf_counter()
    each(cases, gpu)
    seconds = time.perf_counter() - started
    print(f"{name:32} {len(cases):6,} in {seconds:6.2f} s   {len(cases) / seconds:8,.0f} a second")


def main(profiled: bool) -> None:
    """Print the rates, or where the warm passes spend their time."""
    gpu = find_gpu("a100-80")
    recipes, everything = one_recipe(), catalogue()
    report("one recipe, many sizes", recipes, gpu)
    report("the catalogue, cold", everything, gpu)
    report("the catalogue, warm", everything, gpu)
    report("one recipe, replayed", recipes[::16], gpu, show_all)
    report("the catalogue, replayed", everything[::16], gpu, show_all)
    if profiled:
        profiler = cProfile.Profile()
        profiler.runcall(search_all, everything, gpu)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main("--profile" in sys.argv[1:])
