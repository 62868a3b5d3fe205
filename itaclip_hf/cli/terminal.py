"""What commands say: names of files and words of others come with it, and shall not steer the terminal."""

import typer

from ..plain_text import show_control_characters

__all__ = ["say", "warn"]


def say(text: str) -> None:
    """Print what was asked for."""
    typer.echo(show_control_characters(text))


def warn(text: str, color: str | None = "red") -> None:
    """Print what else the user should know, beside the output."""
    typer.secho(show_control_characters(text), fg=color, err=True)
