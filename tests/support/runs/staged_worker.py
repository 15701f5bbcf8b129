"""A child that behaves as its case is called: what a runner has to live with, without the minutes of a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

PHASES = ("load", "forward and loss", "backward pass", "optimizer step")


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def steps(until: str = "") -> None:
    """The events of a run, as the real worker sends them; dies in the phase `until`."""
    say(device={"threads": 1})
    for step in range(2):
        for phase in PHASES[step > 0 :]:
            say(mark=phase, step=step)
            if phase == until:
                os.kill(os.getpid(), signal.SIGKILL)
            say(peak=[step, phase, 1000 + step, None, 900])
        say(step=step, loss=5.0 - step)
    say(step=2, loss=3.0, step_s=0.25)


def main(name: str) -> None:
    """One behaviour."""
    kind, _, rest = name.partition("-")
    if kind == "ok":
        steps()
        say(done={"alloc_retries": None, "trainable_parameters": 7, "num_parameters": 70})
    elif kind == "slow":
        time.sleep(0.15)
        main("ok")
    elif kind == "killed":
        steps(next(phase for phase in PHASES if rest in phase))
    elif kind == "segv":
        steps()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "unnamed":
        os.kill(os.getpid(), signal.SIGRTMIN + 1)
    elif kind == "noise":
        sys.stderr.write("x" * (3 << 20) + "\n")
        main("ok")
    elif kind == "heir":  # dies, and what it has started keeps its pipes open
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "orphan-of-a-test"])
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "oom":
        say(mark="load", step=0)
        say(failed={"outcome": "out of memory", "message": "CUDA out of memory."})
    elif kind == "hang":
        steps()
        time.sleep(600)
    elif kind == "deaf":  # closes its output and goes on
        os.close(1)
        time.sleep(600)
    elif kind == "orphan":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "orphan-of-a-test"])
        main("ok")
    elif kind == "exit":
        sys.exit("ImportError: no module named torch")
    elif kind == "silent":
        sys.exit(0)
    elif kind == "garbage":
        sys.stdout.buffer.write({"binary": b"\xff\xfe\x00\n", "text": b"hello\n", "list": b"[1, 2]\n", "number": b"3\n",
                                 "mark": b'{"mark": "moon"}\n', "peak": b'{"peak": [1]}\n'}[rest])  # fmt: skip
    elif kind == "flood":
        sys.stdout.buffer.write(b"x" * (3 << 20))


if __name__ == "__main__":
    main(json.loads(sys.stdin.readline())["id"].split()[0])
