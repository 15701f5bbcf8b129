"""The memory that a process may take: of the machine, or of a control group around it, read from made-up files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from peftbench.base.units import GIB
from peftbench.measure.device.host_memory import ProcessGroup, cpu_facts, cpu_product, machine_bytes

MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1 kB\n"


@pytest.fixture
def machine(tmp_path):
    """Write files under a root and return it."""

    def write(**files):
        for place, content in {"proc/meminfo": MEMINFO, **files}.items():
            target = tmp_path / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        return tmp_path

    return write


def test_without_control_groups_it_is_the_memory_of_the_machine(machine):
    assert machine_bytes(machine()) == 16 * GIB


@pytest.mark.parametrize(("files", "expected"), [
    ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": str(4 * GIB)}, 4),
    ({"proc/self/cgroup": "0::/job/part\n", "sys/fs/cgroup/job/memory.max": str(4 * GIB),
      "sys/fs/cgroup/job/part/memory.max": "max\n"}, 4),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(3 * GIB)}, 3),
    ({"proc/self/cgroup": "0::/not/seen/here\n", "sys/fs/cgroup/memory.max": str(3 * GIB)}, 3),
    ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": "max\n"}, 16),
    ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": str(99 * GIB)}, 16),
    ({"proc/self/cgroup": "3:cpu:/x\n4:memory:/job\n0::/\n",
      "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(2 * GIB)}, 2),
    ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 16),
])  # fmt: skip
def test_the_lowest_limit_around_this_process_counts(machine, files, expected):
    assert machine_bytes(machine(**files)) == expected * GIB


def test_a_cpu_is_what_it_calls_itself(machine):
    root = machine(**{"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu sse\n\n"})
    assert cpu_product(root) == "Some CPU @ 2 GHz" and ("flags", "fpu sse") in cpu_facts(root)


def test_a_cpu_without_a_name_is_its_architecture(machine):
    assert cpu_product(machine(**{"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\n"})) != ""


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="Windows has no process groups")
def test_the_whole_group_counts_and_no_one_else():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    child = int(parent.stdout.readline())
    group = ProcessGroup(parent.pid)
    both, alone = group.read().process_bytes, group._resident_bytes(parent.pid)
    assert set(group._members) == {parent.pid, child}
    assert both > alone > 0
    parent.communicate()
    assert ProcessGroup(parent.pid).read().process_bytes is None
