"""Thinned samples keep the peaks of all, the ends and the order."""

from hypothesis import given
from hypothesis import strategies as st
from run_records import measurement, record

from peftbench.records.curve import DRAWN, thin, thinned
from peftbench.records.run import Sample

SIZES = st.lists(st.tuples(st.none() | st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 40)), max_size=400)


def made(sizes):
    return [Sample(number * 0.01, used, process) for number, (used, process) in enumerate(sizes)]


@given(SIZES, st.integers(4, 50))
def test_thinning_keeps_peaks_ends_and_order(sizes, limit):
    samples = made(sizes)
    kept = thin(samples, limit)
    assert len(kept) <= max(limit, 4) and set(kept) <= set(samples)
    assert [s.time_s for s in kept] == sorted(s.time_s for s in kept)
    for column in ("used_bytes", "process_bytes"):
        told = [getattr(s, column) for s in samples if getattr(s, column) is not None]
        assert max((getattr(s, column) or 0 for s in kept), default=0) == max(told, default=0)
    if samples:
        assert kept[0] == samples[0] and kept[-1] == samples[-1]


def test_a_record_is_thinned_to_what_a_chart_draws():
    whole = record(measurement=measurement(samples=tuple(made([(None, 7 * n % 1000) for n in range(300)]))))
    few = thinned(whole).measurement
    assert len(few.samples) <= DRAWN
    assert max(s.process_bytes for s in few.samples) == max(s.process_bytes for s in whole.measurement.samples)
    assert few.phases == whole.measurement.phases and thinned(record()) == record()
