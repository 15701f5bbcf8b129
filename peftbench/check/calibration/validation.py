"""Judge a calibration by runs that it was not fitted on: their cards with its constants, or why they cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from peftbench.base.errors import CatalogError
from peftbench.check.runs.comparison import Comparison, card_of, compare
from peftbench.decide.calibrated import card_name, other_stack, refuse_own_rows
from peftbench.decide.suite.predict_case import predict_case
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.memory import MemoryProfile
from peftbench.records.calibration import fingerprint, read_calibration, stack_of
from peftbench.records.run import RunRecord


def compare_calibrated(records: Sequence[RunRecord], file: str) -> tuple[Comparison, ...]:
    """Predict every run afresh, with the constants of a calibration.

    Raises PeftbenchError where one of the runs is of another card or stack, or was used to fit it.
    """
    found = read_calibration(file)
    if not records:
        raise CatalogError("no run of `peftbench run` is there to judge a calibration by.", _OTHERS)
    refuse_own_rows(found, file, map(fingerprint, records))
    for record in records:
        place = record.environment
        if card_name(place.product) != card_name(found.product):
            raise CatalogError(f"{file} is a calibration of {found.product}, and a run is of {place.product}.", _OTHERS)
        if why := other_stack(found, stack_of(place.versions)):
            raise CatalogError(f"{file} {why} in {record.case.id}.", _OTHERS)

    def card(record: RunRecord) -> GpuSpec | None:
        bare = card_of(record)
        return bare.calibrated(found.card_constants) if bare else None

    def predict(record: RunRecord) -> MemoryProfile:
        return predict_case(record.case, card(record))

    return compare(records, predict, card)


_OTHERS = "Validate runs of its own card and stack."
