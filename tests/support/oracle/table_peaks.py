"""Memory of a backward pass through a large embedding; run in a child process, so it imports little."""

from __future__ import annotations

from pathlib import Path

import torch

ROWS, WIDTH = 100_000, 256


def table_peaks(tied: bool) -> float:
    """How many tables' worth of memory a backward pass through embedding and head adds at its peak."""
    embedding = torch.nn.Parameter(torch.randn(ROWS, WIDTH))
    head = embedding if tied else torch.nn.Parameter(torch.randn(ROWS, WIDTH))
    tokens = torch.randint(ROWS, (16,))
    tables = 0.0
    for _ in range(2):
        embedding.grad = head.grad = None
        hidden = torch.nn.functional.embedding(tokens, embedding)
        loss = torch.nn.functional.linear(hidden, head).sum()
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = resident("VmRSS")
        loss.backward()
        tables = (resident("VmHWM") - before) / (ROWS * WIDTH * 4)
    return tables


def resident(name: str) -> int:
    """Bytes of this process by the kernel's name for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
