"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from peftbench.dryrun import session
from peftbench.dryrun.trace.trace import Trace
from peftbench.dryrun.workload import Workload

os.environ["OMP_NUM_THREADS"] = "1"
"""Kernels of torch allocate scratch for each thread: the oracles measure one thread's."""
os.environ["PEFTBENCH_CALIBRATION"] = "none"
"""What was measured on the cards of whoever runs the tests does not change what they expect."""


def pytest_configure() -> None:
    """Commands that tests start get signals as from a terminal, though nohup and some CI runners ignore them here.

    A handler of Python's is not handed on to a new process, an ignored signal is.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite tests/golden/ from what the commands print now."
    )


@pytest.fixture(scope="session", autouse=True)
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Workload], Trace]]:
    """Traces workloads. All tests share one cache and one child, which starts when it is first asked.

    Those of commands too; tests of what becomes of a child ask for own_child.
    """
    with pytest.MonkeyPatch.context() as patch, session.one_child():
        patch.setenv("PEFTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield session.DryRunSession().trace


@pytest.fixture
def own_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry runs of this test start a child of their own."""
    monkeypatch.setattr(session, "_shared", None)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))
