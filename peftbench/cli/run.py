"""`peftbench run`: run the cases of a suite for real, and keep a record of each."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import click

from peftbench.base.errors import MeasureError, PeftbenchError, did_you_mean, install_hint
from peftbench.base.units import human_bytes, parse_bytes
from peftbench.catalog.gpus import find_gpu
from peftbench.cli.answer.run_cases import predict_suite, run_suite
from peftbench.cli.answer.run_comparison import predict_comparison, run_comparison_suite
from peftbench.cli.ask.options import SECONDS
from peftbench.decide.suite.cases import SuiteCase, cases_of
from peftbench.decide.suite.variants import comparison_of
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.case import TIMEOUT_S, DeviceType
from peftbench.inputs.suite import COMPARING, Suite, find_suite, read_suite
from peftbench.measure.device.local_gpu import find_local_gpus
from peftbench.measure.device.open import Device, open_device

COULD_NOT_MEASURE = 3
"""The exit code where no case could be started, or records could not be written."""
RESULTS = "results"
HELD_BY_OTHERS_BYTES = 512 << 20
"""A desktop on the card may stay; what trains on it would come and go between the baseline and the peak."""


@click.command("run")
@click.argument("suite", default="smoke")
@click.option("--dry-run", is_flag=True, help="Print what is predicted for every case, and run nothing.")
@click.option("--only", metavar="CASE", multiple=True, help="Run these cases only: a name, with or without its sweep.")
@click.option("--fresh", is_flag=True, help="Run every case again; else finished ones are skipped.")
@click.option("--out", metavar="FILE", help="The file to append to. Default: results/<device>/<suite>.jsonl.")
@click.option("--timeout", type=SECONDS, default=TIMEOUT_S, show_default=True,
              help="The most that one case may take.")  # fmt: skip
@click.option("--device", type=click.Choice(("cuda", "cpu")), help="In place of the suite's own.")
@click.option("--memory-limit", metavar="SIZE", help="The most that a case may allocate, as in 16GiB.")
@click.option("--force", is_flag=True, help="Measure although other processes hold memory of the card.")
def run(
    suite: str, dry_run: bool, only: tuple[str, ...], fresh: bool, out: str | None, timeout: float,
    device: DeviceType | None, memory_limit: str | None, force: bool,
) -> None:  # fmt: skip
    """Run the cases of SUITE, one child process each, and append a record of each to a file.

    \b
      peftbench run                       # the smoke suite, on any CPU
      peftbench run t4                    # a shipped suite, on the card in this machine
      peftbench run suites/mine.yaml --dry-run
      peftbench run methods-1b --only qlora --memory-limit 16GiB

    SUITE is the name of a shipped suite or a .yaml file. Weights are random and nothing is fetched. A case that runs
    out of memory, crashes or hangs is a result too. Afterwards: peftbench validate results
    """
    asked = read_suite(find_suite(suite))
    kind = device or asked.device
    if asked.kind in COMPARING:
        if given := "--only" if only else "--memory-limit" if memory_limit else "":
            what = f"{given} has no effect with a suite of kind quality or latency, which compares its cases."
            raise PeftbenchError(what, "Leave it out.")
        _compare(asked, kind, dry_run, out, timeout, fresh, force)
        return
    if dry_run:
        predict_suite(asked, _chosen(_cases(asked, _card(kind, asked), kind, memory_limit), only), _card(kind, asked))
        return
    opened = _open(kind, force)
    gpu = _card(kind, asked)
    cases = _chosen(_cases(asked, gpu, kind, memory_limit), only)
    if not run_suite(asked, cases, opened, gpu, _file(out, opened, asked), timeout, fresh):
        sys.exit(COULD_NOT_MEASURE)


def _file(out: str | None, device: Device, suite: Suite) -> Path:
    return Path(out) if out else Path(RESULTS) / folder_of(device) / f"{suite.name}.jsonl"


def _compare(
    suite: Suite, kind: DeviceType, dry_run: bool, out: str | None, timeout: float, fresh: bool, force: bool
) -> None:  # fmt: skip
    """A suite of kind quality or latency: all its variants in one child."""
    case = comparison_of(suite, kind)
    if dry_run:
        predict_comparison(suite, case)
        return
    device = _open(kind, force)
    if not run_comparison_suite(suite, case, device, _file(out, device, suite), timeout, fresh):
        sys.exit(COULD_NOT_MEASURE)


def folder_of(device: Device) -> str:
    """A folder name for its product: "nvidia-a100-sxm4-80gb", or "cpu"."""
    from peftbench.base.units import slug

    return "cpu" if device.kind == "cpu" else slug(device.product)


def _open(kind: DeviceType, force: bool) -> Device:
    """The device, when everything that a child needs is there and nobody is in the way; raises MeasureError else."""
    missing = [name for name in ("torch", "transformers", "peft", "bitsandbytes", "accelerate") if not find_spec(name)]
    if missing:
        what = f"real runs need the real libraries: {', '.join(missing)} is missing."
        raise MeasureError(what, f"{install_hint(extra='bench')}. --dry-run needs none of them.")
    device = open_device(kind)
    used = device.used_bytes() or 0
    if used > HELD_BY_OTHERS_BYTES and not force:
        each = [f"process {o.pid}{f' ({human_bytes(o.used_bytes)})' if o.used_bytes else ''}" for o in device.others()]
        what = f"others hold {human_bytes(used)} of {device.product}{': ' if each else ''}{', '.join(each)}."
        raise MeasureError(what, "End them, or measure beside them with --force.")
    return device


def _card(kind: DeviceType, suite: Suite) -> GpuSpec | None:
    """The card of this machine, or else the one that the suite is meant for."""
    if kind == "cpu":
        return None
    try:
        return find_local_gpus()[0]
    except MeasureError:
        return find_gpu(suite.gpu) if suite.gpu else None


def _cases(suite: Suite, gpu: GpuSpec | None, kind: DeviceType, memory_limit: str | None) -> tuple[SuiteCase, ...]:
    cases = cases_of(suite, gpu, kind)
    if kind == "cpu" and suite.largest and not memory_limit:
        what = f"suite {suite.name} runs cases until they run out of memory, and a CPU has too much."
        raise MeasureError(what, "Say what they may have, as in --memory-limit 2GiB.")
    if memory_limit is None:
        return cases
    limit = parse_bytes(memory_limit)
    return tuple(each._replace(case=replace(each.case, memory_limit_bytes=limit)) for each in cases)


def _chosen(cases: tuple[SuiteCase, ...], only: tuple[str, ...]) -> tuple[SuiteCase, ...]:
    """Those that --only names; raises PeftbenchError for a name that no case has."""
    names = {each.case.id for each in cases} | {each.case.id.split()[0] for each in cases}
    for name in only:
        if name not in names:
            known = ", ".join(dict.fromkeys(each.case.id.split()[0] for each in cases))
            raise PeftbenchError(f"no case named {name!r}.", f"{did_you_mean(name, names)} Cases: {known}.".strip())
    return tuple(each for each in cases if not only or {each.case.id, each.case.id.split()[0]} & set(only))
