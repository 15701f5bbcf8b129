"""What `peftbench doctor` says of libraries, of cards that a file drives, and of the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_runner import answer

from peftbench.base.errors import install_hint
from peftbench.measure import doctor
from peftbench.measure.device.sampler import PERIOD_S, Reading, Sampler
from peftbench.measure.doctor import diagnose

HERE = Path(__file__).parents[1] / "support" / "runs"
ROOT = HERE.parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(doctor, "JITTER_S", 0.05)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A folder with the stub of NVIDIA's driver library."""
    pytest.importorskip("pynvml")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    flags = ["-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(folder / "libnvidia-ml.so.1")]
    subprocess.run([compiler, *flags, str(HERE / "nvml_stub.c")], check=True)
    return folder


@pytest.fixture
def found_on(driver, tmp_path):
    """What doctor finds, by name, where the driver says what it is given."""

    def found_on(**state):
        (tmp_path / "state").write_text("".join(f"{name} {value}\n" for name, value in state.items()))
        environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        environment |= {"LD_LIBRARY_PATH": str(driver), "NVML_STUB": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "peftbench", "doctor", "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return {finding["name"]: finding for finding in json.loads(done.stdout)}

    return found_on


def by_name(name):
    (found,) = [finding for finding in diagnose() if finding.name == name]
    return found


def test_a_card_is_told_with_its_free_memory_and_what_can_be_read(found_on):
    found = found_on(total=24 << 30, reserved=1 << 30, used=3 << 30)
    assert found["NVIDIA driver"]["detail"] == "570.1"
    assert found["card 0"]["detail"] == "Stub L4, 20.00 GiB free of 23.00 GiB, GPU-stub-0"
    assert found["card 0 sampling"]["status"] == "ok"
    assert found["card 0 sampling"]["detail"] == "memory, power, utilization, temperature, clock, energy"
    assert "of the card" in found["sampler"]["detail"]
    assert "NVIDIA card" not in found


def test_what_a_card_does_not_tell_is_named_with_the_reason(found_on):
    found = found_on(power=-1, energy=-1)["card 0 sampling"]
    assert found["status"] == "limited"
    assert found["detail"] == "memory, utilization, temperature, clock; not power, energy (Not Supported)"


def test_every_card_that_cuda_shows_is_looked_at(found_on):
    assert {"card 0", "card 1"} <= set(found_on(cards=2)) and "card 1" not in found_on(cards=1)


@pytest.mark.parametrize(("state", "status", "says"), [
    ({}, "ok", "none is listed"),
    ({"process": f"{os.getpid()} {5 << 20}"}, "ok", "1 hold 5.00 MiB"),
    ({"process": f"{os.getpid()} -1"}, "limited", "does not say how much"),
])  # fmt: skip
def test_whether_processes_are_told_apart_is_said(found_on, state, status, says):
    found = found_on(**state)["card 0 processes"]
    assert found["status"] == status and says in found["detail"]


def test_a_lost_card_is_a_finding(found_on):
    found = found_on(error=15)
    assert found["card 0"]["status"] == "limited" and "GPU is lost" in found["card 0"]["detail"]
    assert "of this process" in found["sampler"]["detail"]


def test_without_nvidia_ml_py_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = by_name("NVIDIA card")
    assert found.status == "missing" and "pip install nvidia-ml-py" in found.remedy


def test_a_missing_or_old_library_is_told_with_what_installs_it(monkeypatch):
    required = ["click<1000,>=999", "tabulate>=0.1", "of-nobody>=1; extra == 'report'", "torch==1; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    missing, old, new = diagnose()[2:5]
    assert (missing.name, missing.status, missing.remedy) == ("of-nobody", "missing", install_hint(extra="report"))
    assert (old.status, old.remedy) == ("limited", "Run: pip install --upgrade 'click>=999'")
    assert (new.name, new.status, new.remedy) == ("tabulate", "ok", "")


def test_the_libraries_are_those_that_the_installed_peftbench_requires():
    found = {finding.name for finding in diagnose()}
    assert {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "plotly", "click"} <= found


def test_without_an_installed_peftbench_what_installs_it_is_named(monkeypatch):
    def requires(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    assert by_name("peftbench").remedy == install_hint(extra="bench")


@pytest.mark.parametrize(("line", "status", "says"), [
    ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None", "ok", "for CUDA 12.8"),
    ("cuda = '11.8'", "ok", "for CUDA 11.8"),
    ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'", "limited", "for ROCm 6.2"),
    ("cuda: Optional[str] = None\nhip: Optional[str] = None", "limited", "for the CPU"),
])  # fmt: skip
def test_what_torch_is_built_for_is_read_without_importing_it(monkeypatch, tmp_path, line, status, says):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('it was imported')")
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    for module in [name for name in sys.modules if name.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name("torch build")
    assert found.status == status and says in found.detail


def test_the_unofficial_pynvml_is_named(monkeypatch, tmp_path):
    metadata = tmp_path / "pynvml-11.5.3.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: pynvml\nVersion: 11.5.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip uninstall pynvml" in by_name("pynvml").remedy


def test_a_cpu_that_would_repack_nf4_is_named():
    (found,) = doctor._nf4([("flags", "fpu avx512_bf16 sse")])
    assert found.status == "limited" and "runs here switch that off" in found.detail
    assert not list(doctor._nf4([("flags", "fpu sse"), ("model name", "avx512_bf16")]))


def test_dry_runs_are_told_to_need_linux(monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    assert (by_name("dry runs").status, "cpu" in by_name("dry runs").remedy) == ("limited", True)


def test_uneven_readings_are_said_to_miss_peaks(monkeypatch):
    def stall():
        time.sleep(4 * PERIOD_S)
        return Reading(used_bytes=0, process_bytes=None)

    monkeypatch.setattr(doctor, "JITTER_S", 30 * PERIOD_S)
    found = doctor._evenness(Sampler(stall), "of the card")
    assert found.status == "limited" and "short peaks may be missed" in found.detail and found.remedy


def test_the_screen_fits_80_columns_and_other_formats_say_the_same():
    screen = answer("doctor")
    assert all(len(line) <= 80 for line in screen.splitlines())
    assert screen.splitlines()[0].split() == ["what", "status", "found"] and "are in order" in screen
    names = [finding["name"] for finding in json.loads(answer("doctor", "--format", "json"))]
    assert names[:2] == ["python", "system"] and "torch" in names and names[-1] == "sampler"
    assert answer("doctor", "--format", "csv").startswith("name,status,detail,remedy")
    assert "| what" in answer("doctor", "--format", "markdown")


def test_it_imports_none_of_the_large_libraries():
    code = (
        "import sys; from peftbench.measure.doctor import diagnose; diagnose();"
        "print(*{m.split('.')[0] for m in sys.modules} & {'torch', 'transformers', 'peft', 'bitsandbytes', 'numpy'})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""
