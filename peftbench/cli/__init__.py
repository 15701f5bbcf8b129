"""The `peftbench` command: finds the verb, loads that verb's file only, and turns errors into one message."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from importlib import import_module
from io import StringIO
from typing import IO, Any

import click

from peftbench.base.errors import PeftbenchError, did_you_mean
from peftbench.base.screen import fail, say, take_any_character
from peftbench.base.visible import shown

VERBS = {
    "plan": "Predict the memory of a fine-tuning run and say whether it fits.",
    "choose": "Rank cards and offers for a training run by price and time.",
    "recipe": "Write a plan as a training script, or for TRL, axolotl, LLaMA-Factory …",
    "timeline": "Draw the memory of a dry run, event by event, as a page to zoom into.",
    "models": "List the models that can be named.",
    "gpus": "List the cards that can be named.",
    "run": "Run the cases of a suite for real, and record what they take.",
    "validate": "Compare predictions with measurements.",
    "calibrate": "Fit the constants of a card from its runs.",
    "report": "Show measured runs beside what is predicted for them.",
    "claims": "Check common claims against the formulas.",
    "doctor": "Say what can be measured here, and what is missing.",
}
"""Each is a click command of the same name in `peftbench/cli/<verb>.py`, imported when it is asked for …"""
LISTS = ("models", "gpus", "doctor", "claims")
"""… but these, which list what is known, are in `peftbench/cli/lists.py`."""

INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell reports for a process that SIGINT or SIGPIPE ended."""

GC_THRESHOLDS = (50_000, 20, 20)
"""Start-up makes many objects that stay: Python's 700 would walk over them again and again."""


class Failure(click.ClickException):
    """An error on its way to stderr: what is wrong and what to type next, exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        fail(self.message)


def _usage(error: click.ClickException) -> Failure:
    """An error of click's own, whose words from the command line are made fit to show."""
    for name in ("message", "option_name", "param_hint"):
        if isinstance(text := getattr(error, name, None), str):
            setattr(error, name, shown(text))
    told = StringIO()
    error.show(told)
    return Failure(told.getvalue().rstrip("\n"))


class Verbs(click.Group):
    """A group whose commands live in files of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order in which people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's file; options before a verb are left for click to refuse."""
        if cmd_name in VERBS:
            file = "lists" if cmd_name in LISTS else cmd_name
            gc.set_threshold(*GC_THRESHOLDS)
            atexit.register(gc.freeze)  # the last collections of a process would walk over them once more
            command: click.Command = getattr(import_module(f"peftbench.cli.{file}"), cmd_name)
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each verb does, without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may be meant."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            what = f"no verb named {args[0][:40]!r}. {did_you_mean(args[0][:40], VERBS)}".rstrip()
            raise PeftbenchError(what, f"Verbs: {', '.join(VERBS)}. Try: peftbench plan --model 8b --gpu t4")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """Read what stands before the verb; click prints its help itself, on streams that take any character."""
        take_any_character()
        try:
            return super().make_context(*args, **more)
        except click.ClickException as error:
            raise _usage(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; bad input ends in one message, a closed pipe and Ctrl-C in none."""
        try:
            return super().invoke(ctx)
        except PeftbenchError as error:
            raise Failure(f"Error: {error}") from error
        except click.ClickException as error:
            raise _usage(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise click.exceptions.Exit(PIPE_CLOSED) from None
        except OSError as error:
            raise Failure(f"Error: {_told(error)}") from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _told(error: OSError) -> PeftbenchError:
    """Only what stdout refuses names no file: everything else keeps what is buffered, and says which file it is."""
    if error.filename is None and error.errno in _NO_ROOM:
        _drop_output()
        return PeftbenchError(f"cannot write the answer: {error.strerror}.", "Send it elsewhere.")
    if error.filename is not None:
        what = f"cannot use {os.fsdecode(error.filename)}: {error.strerror}."
        return PeftbenchError(what, "Check that path and its permissions.")
    return PeftbenchError(f"the system refused what was asked of it: {error}.", "Try again, or report this.")


def _drop_output() -> None:
    """What is still buffered goes nowhere when Python flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from peftbench import __version__

        say(f"peftbench {__version__}")
        ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
def main() -> None:
    """Does fine-tuning of this model fit that card, what takes the memory, and what would make it fit?

    Start with:  peftbench plan --model 8b --gpu t4
    """
