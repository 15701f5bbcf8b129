"""The real nvidia-ml-py against a driver library that a file drives: what a sampler sees of a card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynvml")

HERE = Path(__file__).parents[2] / "support" / "runs"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """Folders with a libnvidia-ml.so.1 each: a whole one, and one that lacks a function."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    found = {}
    for name, flags in (("whole", []), ("without power", ["-DWITHOUT_POWER"])):
        folder = tmp_path_factory.mktemp("nvml")
        target = str(folder / "libnvidia-ml.so.1")
        source = str(HERE / "nvml_stub.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *flags, "-o", target, source],
                       check=True)  # fmt: skip
        found[name] = folder
    return found


@pytest.fixture
def run(libraries, tmp_path):
    """Run code in a process that finds the driver library; returns what it printed as JSON."""

    def run(code, library="whole", **environment):
        state = tmp_path / "state"
        state.touch()
        folder = {"LD_LIBRARY_PATH": str(libraries[library])} if library else {}
        ours = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
        own = {key: value for key, value in os.environ.items() if key not in ours}
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True,
            env={**own, **folder, "NVML_STUB": str(state), "PYTHONPATH": str(HERE.parents[2]), **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


PREAMBLE = """
import json, os, time
from dataclasses import asdict
from peftbench.base.errors import MeasureError
from peftbench.measure.device.nvml import list_cards, open_card
from peftbench.measure.device.sampler import Sampler
GIB = 1 << 30
def put(**values):
    text = "".join(f"{k} {v}\\n" for k, v in values.items() if k != "processes")
    text += "".join(f"process {pid} {size}\\n" for pid, size in values.get("processes", ()))
    with open(os.environ["NVML_STUB"] + ".new", "w") as file: file.write(text)
    os.replace(os.environ["NVML_STUB"] + ".new", os.environ["NVML_STUB"])
def tell(value): print(json.dumps(value))
"""


def test_what_a_card_tells(run):
    found = run("""
put(used=GIB, power=70500, energy=12345, processes=[(os.getpid(), 600), (1, 50)])
card = open_card()
reading = card.read(os.getpgid(0))
tell([asdict(reading), card.product, card.driver, card.uuid, card.memory_bytes, card.energy_j(),
      [holder.pid for holder in card.others(os.getpgid(0))]])
""")
    assert found[0] == {
        "used_bytes": 1 << 30, "process_bytes": 600, "power_w": 70.5, "utilization": 0.5, "temperature_c": 40.0,
        "clock_mhz": 1500,
    }  # fmt: skip
    assert found[1:] == ["Stub L4", "570.1", "GPU-stub-0", 24_000_000_000 - 500_000_000, 12.345, [1]]


def test_a_waveform_is_seen_as_it_is(run):
    seen = run("""
put(used=0)
card = open_card()
with Sampler(lambda: card.read(0), period_s=0.002) as sampler:
    for size in (1, 3, 7, 5, 2):
        put(used=size * GIB)
        begun = len(sampler.samples)
        while len(sampler.samples) < begun + 5: time.sleep(0.001)
levels = []
for sample in sampler.samples:
    level = sample.used_bytes // GIB
    if level and levels[-1:] != [level]: levels.append(level)
tell([levels, sampler.peak("used_bytes")])
""")
    assert seen == [[1, 3, 7, 5, 2], 7 << 30]


def test_a_card_that_is_lost_ends_the_sampling_and_keeps_what_was_seen(run):
    lost, peak, count = run("""
put(used=5 * GIB)
card = open_card()
with Sampler(lambda: card.read(0), period_s=0.002) as sampler:
    while len(sampler.samples) < 5: time.sleep(0.001)
    put(error=15)
    while sampler.lost is None: time.sleep(0.001)
tell([sampler.lost, sampler.peak("used_bytes"), len(sampler.samples)])
""")
    assert "GPU is lost" in lost and peak == 5 << 30 and count >= 5


@pytest.mark.parametrize("column", ["power", "utilization", "temperature", "clock"])
def test_what_is_not_supported_is_none_and_not_asked_again(run, column):
    names = {"power": "power_w", "temperature": "temperature_c", "clock": "clock_mhz"}
    reading, refused = run(f"""
put(used=1, {column}=-1)
card = open_card()
tell([asdict(card.read(0)), len(card.refused)])
""")
    assert reading[names.get(column, column)] is None and reading["used_bytes"] == 1 and refused == 1


def test_a_function_that_the_driver_lacks_is_none(run):
    reading = run("put(used=1)\ntell(asdict(open_card().read(0)))", library="without power")
    assert reading["power_w"] is None and reading["utilization"] == 0.5


def test_an_old_driver_counts_its_own_share_as_used(run):
    reading = run("put(used=GIB, old=1)\ntell(asdict(open_card().read(0)))")
    assert reading["used_bytes"] == (1 << 30) + 500_000_000


def test_process_memory_may_not_be_told(run):
    found = run("""
put(used=1, processes=[(os.getpid(), -1)])
card = open_card()
tell([card.read(os.getpgid(0)).process_bytes, card.read(1).process_bytes])
""")
    assert found == [None, None]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, ["GPU-stub-0", "GPU-stub-1"]), ("1", ["GPU-stub-1"]), ("1,0", ["GPU-stub-1", "GPU-stub-0"]),
     ("GPU-stub-1", ["GPU-stub-1"]), ("0,9,1", ["GPU-stub-0"])],
)  # fmt: skip
def test_cards_are_those_that_cuda_shows(run, setting, expected):
    environment = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}
    code = 'put(cards=2)\ntell(list(list_cards()))'
    assert run(code, **environment) == expected


def test_a_mig_instance_is_a_card(run):
    found = run("put(mig=1, used=3)\ncard = open_card()\ntell([card.uuid, card.read(0).used_bytes])",
                CUDA_VISIBLE_DEVICES="MIG-stub-0")  # fmt: skip
    assert found == ["MIG-stub-0", 3]


@pytest.mark.parametrize(("library", "setting"), [(None, "0"), ("whole", ""), ("whole", "7")])
def test_no_card_is_one_clear_message(run, library, setting):
    what = run("""
try: open_card()
except MeasureError as error: tell(str(error))
""", library=library, CUDA_VISIBLE_DEVICES=setting)  # fmt: skip
    assert "card" in what and len(what) < 500


# ── a whole run beside such a card ──────────────────────────────────────────────────────────────────────────────────

STAGED = """
import sys
from pathlib import Path
sys.path.insert(0, os.environ["TESTS"])
from run_records import case
from peftbench.measure import child_process as child
from peftbench.measure.child_process import Stop
from peftbench.measure.device.open import open_device
from peftbench.measure.runner import run_case
child.COMMAND = (sys.executable, os.environ["TESTS"] + "/runs/staged_worker.py")
def run(name, progress=lambda course: None):
    with Stop() as stop:
        return run_case(case(name, device="cuda"), open_device("cuda"), "suite", stop, 60.0, progress)
"""


def test_a_run_is_what_it_adds_to_the_card(run):
    found = run(STAGED + """
put(used=GIB, energy=1000)
def progress(course): put(used=3 * GIB, energy=5000)
found = run("slow", progress)
tell([found.measurement.outcome, found.measurement.baseline_bytes, found.measurement.energy_j,
      found.environment.product, found.environment.uuid])
""", TESTS=str(HERE.parent))  # fmt: skip
    assert found == ["ok", 1 << 30, 4.0, "Stub L4", "GPU-stub-0"]


def test_a_card_that_is_lost_during_a_run_is_in_its_record(run):
    outcome, message, phases = run(STAGED + """
put(used=GIB)
def progress(course): put(used=GIB, error=15)
found = run("slow", progress).measurement
tell([found.outcome, found.message, len(found.phases)])
""", TESTS=str(HERE.parent))  # fmt: skip
    assert outcome == "ok" and "the device was lost" in message and phases
