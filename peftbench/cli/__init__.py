"""The `peftbench` command: finds the verb, loads that verb's file only, and turns errors into one message."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import StringIO
from typing import IO, Any

import click

from peftbench.base.errors import PeftbenchError, did_you_mean
from peftbench.base.screen import drop, fail, fill_closed_streams, say, take_any_character
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

SIGNALLED = 128
"""A shell adds the number of the signal that ended a process: 130 for SIGINT, 143 for SIGTERM."""
SIGINT, SIGPIPE = 2, 13

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
        if args[0] != "plan":  # which has answered before anybody could end it, unless by a dry run
            import_module("peftbench.cli.signals").end_on_signals(ctx)
        return super().resolve_command(ctx, args)

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Do what was asked and end the process; where not even stderr takes a message, its exit code is all."""
        fill_closed_streams()
        try:
            return super().main(*arguments, **settings)
        except OSError:
            drop(sys.stdout)
            drop(sys.stderr)
            sys.exit(Failure.exit_code)

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read what stands before the verb; click prints its help itself, on streams that take any character."""
        take_any_character()
        with _ended():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        with _ended():
            return super().invoke(ctx)


@contextmanager
def _ended() -> Iterator[None]:
    """Bad input and a system that refuses end in one message, a closed pipe and a signal in none."""
    try:
        yield
    except PeftbenchError as error:
        raise Failure(f"Error: {error}") from error
    except click.ClickException as error:
        raise _usage(error) from error
    except KeyboardInterrupt as error:
        raise click.exceptions.Exit(SIGNALLED + getattr(error, "number", SIGINT)) from None
    except BrokenPipeError:
        drop(sys.stdout)
        raise click.exceptions.Exit(SIGNALLED + SIGPIPE) from None
    except (OSError, MemoryError) as error:
        raise Failure(f"Error: {_told(error)}") from error


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _told(error: OSError | MemoryError) -> PeftbenchError:
    """Only what stdout refuses names no file: everything else keeps what is buffered, and says which file it is."""
    if isinstance(error, MemoryError):
        return PeftbenchError("memory has run out.", "Ask for less at a time, or raise the limit: ulimit -v.")
    if error.filename is None and error.errno in _NO_ROOM:
        drop(sys.stdout)
        return PeftbenchError(f"cannot write the answer: {error.strerror}.", "Send it elsewhere.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return PeftbenchError(f"{error.strerror}.", "Raise the limit: ulimit -n.")
    if error.filename is not None:
        what = f"cannot use {os.fsdecode(error.filename)}: {error.strerror}."
        return PeftbenchError(what, "Check that path and its permissions.")
    return PeftbenchError(f"the system refused what was asked of it: {error}.", "Try again, or report this.")


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
