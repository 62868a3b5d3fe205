"""The `itaclip` program: puts the commands together and turns errors of use into one line and exit code 2.

A new command is a function with typed options in a module of its own and a line in `COMMANDS`. Modules import typer
alone at the top and everything heavy inside their functions.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .ablate import ablate
from .compare import compare
from .convert import convert
from .demo_scenes import demo_scenes
from .evaluate import evaluate
from .options.groups import take_groups
from .segment import segment
from .texts import texts
from .tune import tune

__all__ = ["COMMANDS", "app", "main"]

COMMANDS: tuple[Callable[..., None], ...] = (segment, demo_scenes, evaluate, tune, ablate, compare, convert, texts)


class ErrorReportingGroup(TyperGroup):
    """Commands whose errors of use (wrong values, missing files or extras) are reported without traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ImportError, OSError, TypeError, ValueError) as error:
            if ctx.params.get("traceback"):
                raise
            typer.secho(f"Error: {' '.join(str(error).split())}", fg="red", err=True)
            sys.exit(2)


app = typer.Typer(
    name="itaclip",
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from .. import __version__

        typer.echo(f"itaclip_hf {__version__}")
        raise typer.Exit


@app.callback()
def _take_general_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the program an error arose.")] = False,
) -> None:
    """Open-vocabulary segmentation with CLIP, no training: name the classes and get label maps."""


for _command in COMMANDS:
    app.command()(take_groups(_command))


def main() -> None:
    """Entry point of the `itaclip` program."""
    app()
