"""Options and fixtures that all tests share."""

from __future__ import annotations

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
"""Kernels of torch allocate scratch for each thread: the oracles measure one thread's."""
os.environ["PEFTBENCH_CALIBRATION"] = "none"
"""What was measured on the cards of whoever runs the tests does not change what they expect."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite tests/golden/ from what the commands print now."
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))
