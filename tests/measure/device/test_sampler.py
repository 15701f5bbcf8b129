"""What a sampler keeps: peaks of everything, and nothing that a clock could spoil."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.base.errors import MeasureError
from peftbench.measure.device import sampler as module
from peftbench.measure.device.host_memory import ProcessGroup, machine_bytes
from peftbench.measure.device.sampler import LostDevice, Reading, Sampler, next_due


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0.001, 1))
def test_the_next_reading_is_in_the_future_and_on_the_grid(due, late, period):
    found = next_due(due, due + late, period)
    assert found > due + late - period * 1e-6
    assert found <= due + late + period * (1 + 1e-6)


class Staged:
    """A reader that says what it is told to, and then goes on saying the last."""

    def __init__(self, *readings):
        self.readings = list(readings)
        self.count = 0

    def __call__(self):
        self.count += 1
        found = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(found, Exception):
            raise found
        return Reading(found, found)


def sampled(read, until):
    with Sampler(read, period_s=0.001) as sampler:
        while read.count < until and sampler.lost is None:
            time.sleep(0.001)
    return sampler


def test_every_reading_is_kept():
    found = sampled(Staged(1, 5, 2), 10)
    assert [sample.used_bytes for sample in found.samples[:3]] == [1, 5, 2]
    assert found.peak("used_bytes") == 5 and found.jitter.longest_s >= found.jitter.p50_s > 0


def test_a_lost_device_ends_it_quietly():
    found = sampled(Staged(1, LostDevice("gone", "")), 10)
    assert (found.lost, found.peak("used_bytes"), len(found.samples)) == ("gone", 1, 1)


def test_any_other_error_is_raised_at_the_end():
    with pytest.raises(ZeroDivisionError):
        sampled(Staged(1, ZeroDivisionError()), 2)


def test_a_system_that_starts_no_thread_is_told(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(MeasureError, match="starts no thread"), Sampler(Staged(1)):
        pass


def test_long_runs_do_not_eat_memory(monkeypatch):
    monkeypatch.setattr(module, "MOST_SAMPLES", 16)
    found = sampled(Staged(9, 1), 100)
    assert len(found.samples) <= 17 and found.peak("process_bytes") == 9


def test_the_own_processes_have_a_resident_set():
    import os

    held = ProcessGroup(os.getpgid(0)).read()
    assert held.used_bytes is None and 1 << 20 < held.process_bytes < machine_bytes()
    assert ProcessGroup(1 << 22).read().process_bytes is None


def test_a_lost_device_is_a_measure_error():
    assert issubclass(LostDevice, MeasureError)
