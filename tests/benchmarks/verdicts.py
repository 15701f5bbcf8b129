"""How often a run that gets a word runs out of memory: dry runs replayed at many sizes of a card, and public reports.

    python tests/benchmarks/verdicts.py FOLDER [--recipes N] [--seed N] [--each]

Recipes are drawn from a seed, and each is run once on fake tensors; FOLDER keeps their traces and replays. A trace is
replayed under several settings of the allocator on cards that are up to a quarter smaller or larger than what the run
needs there. The CUDA context of these cards is the lowest, the expected and the highest of its band in turn, which the
estimate does not know. The word is the estimate's alone: where a dry run was made its replay decides.

Public reports are those of tests/reports.csv, beside them stand the runs of results/published. PROMISES of
peftbench/decide/verdict.py are what the shares are held to; the exit code is 1 where the replays break one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import random
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.allocator.settings import AllocatorSettings, parse_settings
from peftbench.base.errors import PeftbenchError
from peftbench.base.units import GIB
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_config, find_model
from peftbench.check.memory.published import record_from_json
from peftbench.decide.card import settle_training
from peftbench.decide.from_options import training_recipes
from peftbench.decide.verdict import PROMISES, Verdict, judge
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.trace.replay import replay
from peftbench.dryrun.trace.trace import UNREADABLE, Trace, trace_from_json, trace_to_json
from peftbench.dryrun.workload import workload_of
from peftbench.estimate.parts.slack import context
from peftbench.estimate.training import estimate_training
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec
from peftbench.inputs.recipe import TrainingSpec
from peftbench.memory import ALWAYS

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
REPORTS = Path(__file__).parents[1] / "reports.csv"
SEED = 20261129
SHARES = (0.75, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99, 1.01, 1.03, 1.06, 1.1, 1.15, 1.2, 1.25)
"""What the cards leave to the allocator, by what the run needs there."""
LEAST_BYTES = 4 * GIB
"""Recipes that need less are left out: there is no card so small, and the band of the context would decide."""
STEPS = 64
"""The need is found to a 64th of what the allocator keeps beyond the tensors."""
SETTINGS = ("", "expandable_segments:True", "max_split_size_mb:256", "garbage_collection_threshold:0.8")
CHOICES: dict[str, tuple[Any, ...]] = {
    "model": ("135m", "0.5b", "1b", "gpt2", "pythia-160m", "gemma-3-1b-it", "8b", "mistral-7b", "Qwen/Qwen3-4B"),
    "card": ("t4", "rtx4090", "a100-80gb", "h100-sxm"),
    "method": ("full", "lora", "qlora", "qlora"),
    "sequence_length": (256, 512, 1000, 1024, 2048, 4096, 8192),
    "micro_batch_size": (1, 1, 2, 4, 8),
    "gradient_accumulation_steps": (1, 1, 4),
    "gradient_checkpointing": (True, True, False),
    "attention": ("sdpa", "sdpa", "eager"),
    "loss": ("transformers", "transformers", "liger"),
    "optimizer": ("adamw_torch_fused", "adamw_torch", "adamw_8bit", "adafactor"),
    "padded": (False, False, True),
}


class Asked(NamedTuple):
    """One recipe that was drawn, settled for the card that its kernels are of."""

    name: str
    config: dict[str, Any]
    model: ModelSpec
    recipe: TrainingSpec
    gpu: GpuSpec


class End(NamedTuple):
    """How one replay ended."""

    settings: str
    usable_bytes: int
    ran_out: bool


class Case(NamedTuple):
    """What was said of a run, and whether it ran out of memory."""

    name: str
    verdict: Verdict
    ran_out: bool


# ── dry runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(seed: int) -> Iterator[Asked]:
    """Recipes without end; those that cannot be are left out."""
    chance = random.Random(seed)
    while True:
        values = {name: chance.choice(choices) for name, choices in CHOICES.items()}
        named, gpu = find_config(values.pop("model")), find_gpu(values.pop("card"))
        method = values.pop("method")
        tokens = min(values["sequence_length"], named.spec.max_position_embeddings)
        try:
            recipe = training_recipes((method,), {**values, "sequence_length": tokens})[0]
            settled, _ = settle_training(named.spec, recipe, gpu)
            if estimate_training(named.spec, settled, gpu).needed_bytes < LEAST_BYTES:
                continue
        except PeftbenchError:
            continue
        name = " ".join([named.name, gpu.name, method, *(f"{key}={value}" for key, value in values.items())])
        yield Asked(name, dict(named.config), named.spec, settled, gpu)


def replayed(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Every replay of so many recipes beside what the estimate says of the same card."""
    with DryRunSession(use_cache=False) as session:
        for asked in drawn(seed):
            try:
                ends = ends_of(asked, folder, session)
            except PeftbenchError as error:
                print(f"left out: {asked.name}: {error}", flush=True)
                continue
            for number, end in enumerate(ends):
                yield Case(f"{asked.name} {end.settings}", judged(asked, end, number), end.ran_out)
            count -= 1
            if not count:
                return


def ends_of(asked: Asked, folder: Path, session: DryRunSession) -> list[End]:
    """The ends of a recipe's replays, from the folder where they were made before."""
    path = folder / f"{hashlib.sha256(asked.name.encode()).hexdigest()[:24]}.json"
    if path.exists():
        return [End(*each) for each in json.loads(path.read_text())]
    trace = traced(asked, path.with_suffix(".json.gz"), session)
    ends = [end for text in SETTINGS for end in around_the_need(trace, text)]
    path.write_text(json.dumps(ends))
    return ends


def traced(asked: Asked, path: Path, session: DryRunSession) -> Trace:
    if path.exists():
        with suppress(*UNREADABLE):  # another version of the package wrote it
            return trace_from_json(json.loads(gzip.decompress(path.read_bytes())))
    trace = session.trace(workload_of(asked.config, asked.recipe, asked.gpu))
    path.write_bytes(gzip.compress(json.dumps(trace_to_json(trace)).encode(), 1))
    return trace


def around_the_need(trace: Trace, text: str) -> Iterator[End]:
    """Replays with a little less and a little more than the run needs."""
    settings = parse_settings(text)
    needed = least_bytes(trace, settings)
    for share in SHARES:
        usable = round(needed * share)
        yield End(text, usable, replay(trace, settings, usable).failure is not None)


def least_bytes(trace: Trace, settings: AllocatorSettings) -> int:
    """The smallest capacity from which the run comes through."""
    whole = replay(trace, settings)
    least, most = whole.highest.allocated_bytes, whole.reserved_bytes
    step = max(1, (most - least) // STEPS)
    if not replay(trace, settings, least).failure:
        return least
    while most - least > step:
        middle = (least + most) // 2
        least, most = (middle, most) if replay(trace, settings, middle).failure else (least, middle)
    return most


def judged(asked: Asked, end: End, number: int) -> Verdict:
    """The estimate on a card that leaves so much beside one of three contexts; it expects the middle one."""
    on = context(asked.gpu, ALWAYS)
    true_bytes = (on.low_bytes, on.bytes, on.high_bytes)[number % 3]
    gpu = replace(asked.gpu, memory_bytes=end.usable_bytes + true_bytes)
    return judge(estimate_training(asked.model, asked.recipe, gpu), gpu)


# ── public reports ──────────────────────────────────────────────────────────────────────────────────────────────────


def reported() -> Iterator[Case]:
    """Runs that somebody published, with what the estimate says of them."""
    with REPORTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Case(f"{row['source']}: {row['options']}", verdict_on(row["options"]), row["outcome"] == "oom")


def verdict_on(options: str) -> Verdict:
    """What `peftbench plan` says, by its own reading of a command line."""
    from peftbench.cli.ask.plan_question import plans_of, question_of, recipes_of
    from peftbench.cli.plan import plan

    given = plan.make_context("plan", shlex.split(options)).params
    named, given = question_of(given)
    (found,), _ = plans_of(named.spec, recipes_of(named.spec, given), given)
    assert found.verdict is not None
    return found.verdict


def measured() -> Iterator[Case]:
    """Runs whose published memory says that they came through."""
    seen = set()
    for path in sorted(PUBLISHED.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = record_from_json(json.loads(line))
            key = (record.model, record.training, record.gpu)
            if key in seen:  # another size of the same run
                continue
            seen.add(key)
            gpu = find_gpu(record.gpu)
            verdict = judge(estimate_training(find_model(record.model), record.training, gpu), gpu)
            yield Case(f"{path.stem} {record.id}", verdict, ran_out=False)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def table(title: str, cases: Iterable[Case]) -> bool:
    """Print word by word how many ran out of memory; whether every promise is kept."""
    cases, kept = list(cases), True
    print(f"\n{title}: {len(cases)}\n{'':14}{'runs':>6}{'out of memory':>15}{'share':>9}   promised")
    for fit, promise in PROMISES.items():
        found = [case for case in cases if case.verdict.fit is fit]
        failed = sum(case.ran_out for case in found)
        kept &= promise.least * len(found) <= failed <= promise.most * len(found)
        share = f"{100 * failed / len(found):.1f} %" if found else "—"
        counts = f"{len(found):6}{failed:15}{share:>9}"
        print(f"{fit.text:14}{counts}   {promise.text}")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--recipes", type=int, default=40)
    parser.add_argument("--each", action="store_true", help="also print every run that a word was wrong about")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    runs, reports = list(replayed(given.recipes, given.seed, given.folder)), list(reported())
    wrong = [case for case in (*runs, *reports) if case.ran_out == case.verdict.fit.is_likely]
    for case in wrong if given.each else ():
        print(f"{'ran out' if case.ran_out else 'ran'}: {case.verdict.line(case.name)}")
    kept = table("replays", runs)
    table("public reports", reports)
    table("published runs, all of which came through", measured())
    sys.exit(not kept)


if __name__ == "__main__":
    main()
