"""The web page of `itaclip app`: a picture and words in, an overlay that tells each pixel's class out.

`answers` does the work and knows no page, `page` is the page, in Gradio, and `space` is a Hugging Face Space of it.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio

    from ..loading import Loaded

__all__ = ["check_installed", "serve"]


def check_installed() -> None:
    """Make sure that Gradio is there, before anything takes time.

    Raises:
        ImportError: If it is not.
    """
    if find_spec("gradio") is None:
        raise ImportError("Expected gradio, but it is not installed. Run `pip install 'itaclip_hf[app]'`.")


def serve(loaded: "Loaded", name: str, **launch: Any) -> "gradio.Blocks":
    """Make the page and serve it from another thread; `block_thread()` of what comes back waits for its end.

    Args:
        loaded: Model and processor; from then on the page's own.
        name: What the checkpoint is called.
        **launch: Arguments of Gradio's `launch`, such as `server_name` and `server_port`.

    Raises:
        ImportError: If Gradio is not installed.
        OSError: If the port is taken.
    """
    check_installed()
    from .page import LAUNCH, build_page

    page = build_page(loaded, name)
    page.launch(**{**LAUNCH, **launch}, prevent_thread_lock=True)
    return page
