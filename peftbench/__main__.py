"""Lets `python -m peftbench` do what the command `peftbench` does."""

from peftbench.cli import main

if __name__ == "__main__":
    main(prog_name="peftbench")
