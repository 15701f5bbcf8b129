"""`peftbench run` with staged children, as a program of its own that a test can send signals to."""

import sys
from pathlib import Path

from peftbench.cli import main
from peftbench.measure import child_process as child

if __name__ == "__main__":
    child.COMMAND = (sys.executable, str(Path(__file__).with_name("staged_worker.py")))
    main(["run", *sys.argv[1:]])
