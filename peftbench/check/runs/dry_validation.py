"""Predict runs by dry run, published ones and our own: the second tier against the same measurements as the first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from peftbench.base.errors import PeftbenchError, SpecError
from peftbench.catalog.gpus import find_gpu
from peftbench.catalog.models import find_config
from peftbench.check.memory.published import PublishedRecord
from peftbench.check.memory.validation import Predictor
from peftbench.check.runs.comparison import Predictor as RunPredictor
from peftbench.check.runs.comparison import card_of
from peftbench.decide.suite.predict_case import device_of
from peftbench.dryrun.session import DryRunSession
from peftbench.dryrun.workload import check_group, workload_of
from peftbench.memory import MemoryProfile
from peftbench.records.run import RunRecord

Report = Callable[[str, float], None]
"""Takes a record's id and the share of its run that is done."""


def can_be_run(record: PublishedRecord) -> bool:
    """GPTQ's layers have no stand-in, DeepSpeed and FSDP1 no dry run: such records have the estimate only."""
    quantization = record.training.quantization
    try:
        check_group(record.training, "cuda")
    except SpecError:
        return False
    return quantization is None or quantization.scheme.built


def split(records: Iterable[PublishedRecord]) -> tuple[list[PublishedRecord], list[PublishedRecord]]:
    """Those that a dry run can predict, and the others."""
    known = list(records)
    return [record for record in known if can_be_run(record)], [r for r in known if not can_be_run(r)]


def by_dry_run(session: DryRunSession, report: Report) -> Predictor:
    """Predict with the installed transformers, whatever version the record's run had; its loss is the recipe's."""
    def predict(record: PublishedRecord) -> MemoryProfile:
        gpu = find_gpu(record.gpu)
        workload = workload_of(
            find_config(record.model).config, record.training, gpu,
            batch_lengths=record.batch_lengths, empty_cache_steps=record.torch_empty_cache_steps,
        )  # fmt: skip
        return session.run(workload, gpu, progress=lambda share: report(record.id, share)).observed

    return predict


def by_dry_run_of_case(session: DryRunSession, report: Callable[[RunRecord, float], None]) -> RunPredictor:
    """Predict a run by dry run, on fake tensors of the kind of device that it had."""
    def predict(record: RunRecord) -> MemoryProfile:
        case, gpu = record.case, device_of(record.case, card_of(record))
        device = "host" if case.device == "cpu" else case.device
        workload = workload_of(json.loads(case.config), case.recipe, gpu, device=device)
        try:
            return session.run(workload, gpu, progress=lambda share: report(record, share)).observed
        except PeftbenchError as error:
            raise SpecError(error.what, error.hint) from None

    return predict
