"""Starts the processes of a sharded run on this machine's loopback and collects what each of them printed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("sharded_run.py")
LIMIT_S = 600
"""Three processes import torch, transformers and PEFT each, perhaps on one core."""


def run_sharded(strategy: str, method: str, world: int = 2, passes: int = 1) -> list[dict[str, int]]:
    """The sizes that each process reports, the first one's first; no process outlives the call."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), strategy, method, str(passes), str(rank), str(world), port],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=LIMIT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in outputs]
