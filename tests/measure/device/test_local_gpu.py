"""The card of this machine: read from a fake nvidia-smi program and from NVML where it is installed."""

from __future__ import annotations

import ctypes.util
import sys

import pytest

from peftbench.base.errors import MeasureError
from peftbench.base.units import MIB
from peftbench.measure.device import local_gpu
from peftbench.measure.device.local_gpu import find_local_gpus

T4 = "Tesla T4, GPU-11111111-aaaa, 15360, 447, 1200, 7.5"
L4 = "NVIDIA L4, GPU-22222222-bbbb, 23034, 471, 0, 8.9"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program `nvidia-smi` that prints what it is given on the PATH, alone; hide nvidia-ml-py."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(*lines, exit_code=0, before=""):
        (tmp_path / "answer").write_text("".join(f"{line}\n" for line in lines))
        program = tmp_path / "nvidia-smi"
        script = ["#!/bin/sh", f'echo "$@" > {tmp_path}/arguments', before, f"/bin/cat {tmp_path}/answer"]
        program.write_text("\n".join([*script, f"exit {exit_code}\n"]))
        program.chmod(0o755)

    return write


def test_a_card_is_what_the_driver_says_less_what_it_reserves(nvidia_smi):
    nvidia_smi(T4)
    (card,) = find_local_gpus()
    assert (card.name, card.product, card.compute_capability) == ("local", "Tesla T4", (7, 5))
    assert card.memory_bytes == (15360 - 447) * MIB
    assert card.in_use_bytes == 1200 * MIB
    assert card.usable_bytes == card.memory_bytes - card.context_bytes - 1200 * MIB
    assert not card.has_bfloat16
    assert "nvidia-smi on this machine" in card.memory_source


def test_the_fields_are_asked_for_in_the_order_they_are_read(nvidia_smi, tmp_path):
    nvidia_smi(T4)
    find_local_gpus()
    assert (tmp_path / "arguments").read_text().split() == [
        "--query-gpu=name,uuid,memory.total,memory.reserved,memory.used,compute_cap",
        "--format=csv,noheader,nounits",
    ]


def test_a_driver_that_does_not_tell_what_it_reserves_is_reported_so(nvidia_smi):
    nvidia_smi("Tesla T4, GPU-1, 15360, [N/A], 0, 7.5")
    (card,) = find_local_gpus()
    assert card.memory_bytes == 15360 * MIB
    assert "reserves is unknown" in card.memory_source


@pytest.mark.parametrize(
    ("setting", "products"),
    [
        ("1", ["NVIDIA L4"]),
        ("1,0", ["NVIDIA L4", "Tesla T4"]),
        ("GPU-22222222", ["NVIDIA L4"]),
        ("1,7,0", ["NVIDIA L4"]),  # CUDA ignores what follows an entry that names no card
    ],
)
def test_cuda_visible_devices_chooses_and_orders(nvidia_smi, monkeypatch, setting, products):
    nvidia_smi(T4, L4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [card.product for card in find_local_gpus()] == products


@pytest.mark.parametrize("setting", ["", "-1", "5", "GPU-", "MIG-1234", "x"])
def test_cuda_visible_devices_that_hides_every_card_is_named(nvidia_smi, monkeypatch, setting):
    nvidia_smi(T4, L4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    with pytest.raises(MeasureError, match="CUDA_VISIBLE_DEVICES") as error:
        find_local_gpus()
    assert "--gpu t4" in error.value.hint


@pytest.mark.parametrize(
    ("lines", "exit_code"),
    [
        ([], 0),
        (["No devices were found"], 6),
        (["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], 9),
        (['Field "memory.reserved" is not a valid field to query.'], 2),
        (["not, what, we, asked"], 0),
        (["NVIDIA GB10, GPU-1, [N/A], [N/A], 0, 12.1"], 0),
        (["Tesla T4, GPU-1, 15360, 447, 1200, 7"], 0),
    ],
)
def test_whatever_nvidia_smi_says_is_told_with_what_to_type_next(nvidia_smi, lines, exit_code):
    nvidia_smi(*lines, exit_code=exit_code)
    with pytest.raises(MeasureError) as error:
        find_local_gpus()
    assert "--gpu t4" in error.value.hint and "--gpu-memory 16GiB" in error.value.hint


def test_an_nvidia_smi_that_hangs_is_given_up(nvidia_smi, monkeypatch):
    nvidia_smi(T4, before="exec /bin/sleep 30")
    monkeypatch.setattr(local_gpu, "NVIDIA_SMI_TIMEOUT_S", 0.2)
    with pytest.raises(MeasureError, match="no answer"):
        find_local_gpus()


def test_an_nvidia_smi_that_cannot_run_is_told(nvidia_smi, tmp_path):
    nvidia_smi(T4)
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF not a program")
    with pytest.raises(MeasureError, match="does not run"):
        find_local_gpus()


def test_without_nvidia_ml_py_and_nvidia_smi_the_package_to_install_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError) as error:
        find_local_gpus()
    assert "pip install nvidia-ml-py" in error.value.hint and "--gpu t4" in error.value.hint


def test_nvidia_ml_py_without_a_driver_says_that_there_is_no_card(monkeypatch, tmp_path):
    pytest.importorskip("pynvml")
    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("this machine has an NVIDIA driver")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError, match="no usable NVIDIA card") as error:
        find_local_gpus()
    assert "--gpu t4" in error.value.hint


def test_the_unofficial_pynvml_distribution_is_named_when_it_breaks(monkeypatch, tmp_path):
    (tmp_path / "pynvml.py").write_text("def nvmlInit():\n    pass\n")
    metadata = tmp_path / "pynvml-11.5.3.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: pynvml\nVersion: 11.5.3\n")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeasureError, match="unofficial") as error:
        find_local_gpus()
    sys.modules.pop("pynvml", None)
    assert "pip uninstall pynvml" in error.value.hint
