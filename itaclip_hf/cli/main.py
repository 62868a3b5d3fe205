"""The `itaclip` program: puts the commands together and turns errors of use into a message and an exit code.

A new command is a function with typed options in a module of its own and a line in `COMMANDS`. Modules import typer
alone at the top and everything heavy inside their functions.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ..files import remove_unfinished
from .ablate import ablate
from .app import app as serve_app
from .compare import compare
from .convert import convert
from .demo_scenes import demo_scenes
from .env import env
from .evaluate import evaluate
from .explain import explain
from .export import export
from .options.groups import take_groups
from .segment import segment
from .terminal import say, warn
from .texts import texts
from .tune import tune

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: tuple[Callable[..., None], ...] = (
    segment,
    explain,
    serve_app,
    demo_scenes,
    evaluate,
    tune,
    ablate,
    compare,
    convert,
    texts,
    export,
    env,
)

BAD_USE, INTERRUPTED, TERMINATED = 2, 130, 143


class PlainCommand(TyperCommand):
    """A command whose help shows every name as a whole: in Typer's tables, a narrow terminal cuts them."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List arguments and options, under a heading for each group."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for heading, records in panels.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class ErrorReportingGroup(TyperGroup):
    """Commands whose errors of use (wrong values, missing files or extras) are reported without traceback."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with its whole sentence."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in self.commands.items()])

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the general options; help and version are printed meanwhile."""
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError:
            raise  # as below
        except OSError as error:
            warn(f"Error: Expected an output that can be written to, but got: {error}. Make room, or name another.")
            sys.exit(BAD_USE)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _terminated_as_interrupted():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # nobody reads any more, as after `| head -1`: Typer ends quietly
        except Terminated as stop:
            _end(stop, "Terminated", TERMINATED)
        except KeyboardInterrupt as stop:
            _end(stop, "Interrupted", INTERRUPTED)
        except (ImportError, OSError, TypeError, ValueError) as error:
            if ctx.params.get("traceback"):
                raise
            warn(f"Error: {_fold_lines(str(error))}")
            sys.exit(BAD_USE)


class Terminated(KeyboardInterrupt):
    """The process was asked to end; what is told when the user interrupts it is told then, too."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the block with an exception, as Ctrl-C does, so that files are closed and progress is told."""
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)  # a process that was forked from this one ends as it would without us
        os.kill(os.getpid(), number)

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _end(stop: KeyboardInterrupt, what: str, code: int) -> NoReturn:
    """Say where the command was and how it goes on, if it told, and end."""
    remove_unfinished()
    message = _fold_lines(str(stop)) or "To begin anew, run the same command again."
    warn(f"{what}. {message}")
    sys.exit(code)


def _fold_lines(message: str) -> str:
    """The message in one line, but for the entries of its lists, which are indented and keep theirs."""
    parts, was_entry = [""], False
    for line in filter(str.strip, message.splitlines()):
        is_entry = line[0].isspace()
        if is_entry or was_entry:
            parts.append(line.rstrip())
        else:
            parts[-1] = " ".join([*parts[-1].split(), *line.split()])
        was_entry = is_entry
    return "\n".join(parts).strip()


app = typer.Typer(
    name="itaclip",
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from ..version import __version__

        say(f"itaclip_hf {__version__}")
        raise typer.Exit


@app.callback()
def _take_general_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the program an error arose.")] = False,
) -> None:
    """Open-vocabulary segmentation with CLIP, no training: name the classes and get label maps.

    Exit codes: 0 done, 1 done in part or a fault of the program, 2 an error of use, 130 interrupted, 143 terminated.
    """


for _command in COMMANDS:
    app.command(cls=PlainCommand)(take_groups(_command))


def main() -> None:
    """Entry point of the `itaclip` program."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal cannot show, such as "…" in ASCII or a broken file name, is no reason to stop.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
