"""`itaclip app`: a web page that segments pictures into classes that are typed there."""

from typing import Annotated

import typer

from .options.model import DEMO_MODEL, ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions
from .terminal import say

__all__ = ["app"]

DEMO = ModelOptions(DEMO_MODEL)


def app(
    host: Annotated[
        str, typer.Option(help="Address to listen on: this machine alone, or 0.0.0.0 for all that reach it.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; by default the first free one from 7860 on.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Also open a public address for three days, by Gradio.")
    ] = False,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: DeviceOption = "auto",
    model: ModelOptions = DEMO,
) -> None:
    """Serve a web page: choose a picture, type classes, click the result to see class, score and runner-up.

    With the embedded checkpoint it needs no network; no page asks another host for anything. Several people may use it
    at once; they share the model in turns.
    """
    from ..app import check_installed, serve

    check_installed()
    loaded = model.load(SettingOptions(), device)
    page = serve(loaded, model.model, server_name=host, server_port=port, share=share, inbrowser=open)
    say(f"{page.local_url} (Ctrl-C ends it)")
    if page.share_url:
        say(f"{page.share_url} for others")
    page.block_thread()
