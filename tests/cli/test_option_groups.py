"""Option groups: dataclasses in a command's signature become options and come back as instances."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from itaclip_hf.cli.main import PlainCommand
from itaclip_hf.cli.options.groups import take_groups


@dataclass(frozen=True)
class Size:
    panel = "Size of it"

    height: Annotated[int, typer.Option(help="Rows.")] = 4
    is_wide: Annotated[bool | None, typer.Option("--wide/--narrow", help="Whether it is wide.")] = None
    names: Annotated[list[str] | None, typer.Option(help="Names.")] = None


@dataclass(frozen=True)
class DeepSize(Size):
    depth: Annotated[int, typer.Option(help="Layers.")] = 1


HIGH = Size(height=9)


def run(command, *arguments):
    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=PlainCommand)(take_groups(command))
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def test_a_command_gets_an_instance_of_each_group():
    def show(path: Annotated[Path, typer.Argument()], size: Size, number: Annotated[int, typer.Option()] = 3) -> None:
        typer.echo(repr((path, size, number)))

    assert run(show, "a.png").stdout.strip() == repr((Path("a.png"), Size(), 3))
    given = run(show, "a.png", "--height", 5, "--narrow", "--names", "x", "--names", "y", "--number", 7)
    assert given.stdout.strip() == repr((Path("a.png"), Size(5, False, ["x", "y"]), 7))


def test_defaults_are_those_of_the_commands_own_instance():
    def show(size: Size = HIGH) -> None:
        typer.echo(repr(size))

    assert run(show).stdout.strip() == repr(HIGH)
    assert run(show, "--wide").stdout.strip() == repr(replace(HIGH, is_wide=True))
    assert "[default: 9]" in run(show, "--help").stdout


@pytest.mark.parametrize("number", ["nan", "-inf", "1e999"])
def test_numbers_are_finite(number):
    def show(
        share: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
        other: Annotated[float | None, typer.Option()] = None,
    ) -> None:
        typer.echo(repr((share, other)))

    assert run(show).stdout.strip() == "(0.5, None)"
    assert run(show, "--share", "0.25", "--other", "7").stdout.strip() == "(0.25, 7.0)"
    assert run(show, "--share", number).exit_code == 2
    result = run(show, "--other", number)
    assert result.exit_code == 2 and f"Expected a number, but got {float(number)}. Write one." in result.output


def test_a_group_may_extend_another():
    def show(size: DeepSize) -> None:
        typer.echo(repr(size))

    assert run(show, "--height", 2, "--depth", 3).stdout.strip() == repr(DeepSize(2, depth=3))


def test_help_has_a_heading_for_each_group():
    def show(size: Size) -> None:
        """Show a size."""

    help_text = run(show, "--help").stdout
    assert "\nSize of it:\n" in help_text
    assert "Show a size." in help_text
    assert all(part in help_text for part in ("--height", "--wide", "--narrow", "Rows."))


def test_two_options_of_one_name_are_a_fault_of_the_command():
    def show(size: Size, height: Annotated[int, typer.Option()] = 1) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'height'"):
        take_groups(show)
