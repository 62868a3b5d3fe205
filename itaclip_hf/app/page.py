"""The page, in Gradio: picture, words and a button on the left, what was found on the right.

The first answer is that of the preset "live"; the chosen preset refines it. Both wait in one queue for the model,
each on its own, so that nobody waits for another one's refinement to see a first answer. What a user has asked and
been told is in their session alone. Nothing is asked of other hosts: fonts are the system's, and nothing is reported.
"""

import html
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported, and at every launch

import gradio as gr
from gradio.themes.utils.fonts import Font
from gradio.utils import get_upload_folder

from ..image_errors import find_image_error
from ..loading import Loaded
from ..methods import PRESETS, method_names
from ..samples import ASSETS, list_samples
from .answers import FIRST_PRESET, Answer, Segmenter, read_request

__all__ = ["LAUNCH", "build_page"]

HOUR = 3600
OPACITY = 0.55
WAITING = '<p class="faint">Choose a picture, name what to look for, and press the button.</p>'
CLICK = '<span class="faint">Click the picture to see class, score and runner-up of a pixel.</span>'
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto; }
#title h1 { margin: 0; font-size: 1.5rem; }
#title p { margin: 0.2rem 0 0; color: var(--body-text-color-subdued); }
.faint { color: var(--body-text-color-subdued); }
.swatch { display: inline-block; width: 0.9em; height: 0.9em; margin-right: 0.45em; border-radius: 3px;
    border: 1px solid rgb(0 0 0 / 35%); vertical-align: -0.08em; }
.name { font-weight: 600; }
#pixel { min-height: 1.6rem; font-size: 1.02rem; }
#pixel .error, #pixel .clear-status { display: none; }  /* a message tells what is wrong */
#samples .gallery { flex-wrap: nowrap; }
#samples .gallery-item { flex: 0 1 5rem; min-width: 0; }
#samples .gallery-item img { width: 100%; height: 3rem; }
table.legend { width: 100%; border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.legend tr { border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
table.legend td, table.legend th { padding: 0.2rem 0.3rem !important; border: 0 !important; text-align: left; }
table.legend th { font-weight: 400 !important; color: var(--body-text-color-subdued); }
table.legend td:not(:first-child), table.legend th:not(:first-child) { text-align: right; width: 6rem; }
#overlay img, #confidence img { cursor: crosshair; }
"""
SYSTEM_FONTS = [Font("system-ui"), Font("sans-serif")]
LAUNCH: dict[str, Any] = {
    "theme": gr.themes.Soft(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        font=SYSTEM_FONTS,
        font_mono=[Font("ui-monospace"), Font("monospace")],
    ),
    "css": CSS,
    "allowed_paths": [str(ASSETS)],  # the samples
    "footer_links": [],
    "max_file_size": "100mb",
    "quiet": True,
    "ssr_mode": False,
}


def build_page(loaded: Loaded, name: str) -> gr.Blocks:
    """The page, not served yet; see [`itaclip_hf.app.serve`]."""
    segmenter = Segmenter(loaded, name)
    with gr.Blocks(title="ITACLIP", analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        gr.HTML(_introduce(name), elem_id="title")
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                asked = _ask(is_demo=name == "demo")
                button = gr.Button("Segment", variant="primary", size="lg", interactive=False, elem_id="segment")
            with gr.Column(scale=6, min_width=320):
                answer, opacity, told = _tell()
        _connect(segmenter, button, asked, answer, opacity, told)
        # Fields are seen before the page listens to them; what was asked then would be lost.
        page.load(
            lambda: gr.Button(interactive=True),
            None,
            button,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return page.queue(max_size=64, default_concurrency_limit=8)


def _introduce(name: str) -> str:
    about = "Name what to look for, and every pixel gets its class. No training."
    if name == "demo":
        about += " The embedded checkpoint knows drawings of its classes; on photographs its answers mean nothing."
    return f"<h1>ITACLIP</h1><p>{about} <span>Model: <code>{html.escape(name)}</code></span></p>"


def _ask(is_demo: bool) -> list[gr.components.Component]:
    """Picture and words, and what is done with them; the preset comes last."""
    samples = list_samples(is_demo)
    picture = gr.Image(
        str(samples[0].path),
        label="Picture",
        type="filepath",
        sources=["upload", "clipboard"],
        height=250,
        elem_id="picture",
        buttons=[],
    )
    # The file as it was given: read as everywhere in this package, and what is no picture is told in our words.
    picture.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    chosen = gr.Dataset(
        components=[gr.Image(visible=False)],
        samples=[[str(sample.path)] for sample in samples],
        label="or a sample",
        type="index",
        elem_id="samples",
    )
    classes = gr.Textbox(
        samples[0].classes,
        label="Classes",
        info="One a line or between semicolons, synonyms after commas: dog, puppy",
        lines=3,
        max_lines=8,
        elem_id="classes",
    )
    background = gr.Textbox(
        "",
        label="Background words (optional)",
        info="What else is there, as one class: wall, floor",
        elem_id="background",
    )
    with gr.Accordion("Definitions, method, preset", open=False):
        definitions = gr.Textbox(
            "",
            label="Definitions (optional)",
            info="One a line: dog >=a loyal pet",
            lines=2,
            max_lines=8,
            elem_id="definitions",
        )
        method = gr.Dropdown(
            [("the checkpoint's own", ""), *((each, each) for each in method_names())],
            value="",
            label="Method",
            elem_id="method",
        )
        preset = gr.Radio(
            list(PRESETS),
            value="demo" if is_demo else "balanced",
            label="Preset",
            info=f"“{FIRST_PRESET}” answers first, this one refines",
            elem_id="preset",
        )
    chosen.click(
        lambda index: [str(samples[index].path), samples[index].classes, samples[index].background],
        chosen,
        [picture, classes, background],
        api_visibility="private",
    )
    return [picture, classes, background, definitions, method, preset]


def _tell() -> tuple[gr.State, gr.Slider, list[gr.components.Component]]:
    """Where answers are kept and seen: the state, the slider, and all that a new answer changes."""
    answer = gr.State(time_to_live=HOUR)
    with gr.Tabs():
        with gr.Tab("Classes"):
            overlay = _make_view("overlay")
        with gr.Tab("Confidence"):
            confidence = _make_view("confidence")
    pixel = gr.HTML(WAITING, elem_id="pixel")
    opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the classes", elem_id="opacity")
    legend = gr.HTML(elem_id="legend")
    with gr.Row():
        labels = gr.DownloadButton("Label map (PNG)", size="sm", interactive=False, elem_id="labels")
        description = gr.DownloadButton("Description (JSON)", size="sm", interactive=False, elem_id="description")
    for view in (overlay, confidence):
        view.select(_tell_pixel, answer, pixel, show_progress="hidden", api_visibility="private")
    opacity.release(_draw_overlay, [answer, opacity], overlay, show_progress="hidden", api_visibility="private")
    return answer, opacity, [answer, overlay, confidence, pixel, legend, labels, description]


def _connect(
    segmenter: Segmenter,
    button: gr.Button,
    asked: list[gr.components.Component],
    answer: gr.State,
    opacity: gr.Slider,
    told: list[gr.components.Component],
) -> None:
    """What the button does: a first answer, then the chosen preset's, each with its own place in the queue."""
    first = button.click(
        _telling_errors(segmenter, _answer_first),
        [*asked, opacity],
        told,
        show_progress_on=told[3],  # the line about a pixel
        api_name="segment",
        concurrency_id="model",
        concurrency_limit=1,
    )
    first.success(
        _telling_errors(segmenter, _refine),
        [answer, asked[-1], opacity],
        told,
        show_progress="hidden",  # what was found first stays to be seen, and says what is on its way
        api_visibility="private",
        concurrency_id="model",
        concurrency_limit=1,
    )


def _make_view(name: str) -> gr.Image:
    return gr.Image(
        show_label=False, interactive=False, format="png", height=470, buttons=["fullscreen", "download"], elem_id=name
    )


def _telling_errors(segmenter: Segmenter, function: Callable[..., Any]) -> Callable[..., Any]:
    """What the user got wrong is told in our words; faults of the program stay the server's own matter."""

    def run(*arguments: Any) -> Any:
        try:
            return function(segmenter, *arguments)
        except Exception as error:
            reason = str(error) if isinstance(error, OSError) else find_image_error(error)
            if reason is None:
                raise
            raise gr.Error(html.escape(reason, quote=False), title="Please check", print_exception=False) from None

    return run


def _answer_first(
    segmenter: Segmenter,
    picture: str | None,
    classes: str,
    background: str,
    definitions: str,
    method: str,
    preset: str,
    opacity: float,
) -> list[Any]:
    request = read_request(picture, classes, background, definitions, method or None, FIRST_PRESET)
    answer = segmenter.answer(request)
    note = "" if preset == FIRST_PRESET else f" “{preset}” is on its way …"
    return _show(answer, opacity, note)


def _refine(segmenter: Segmenter, answer: Answer, preset: str, opacity: float) -> Any:
    if preset == FIRST_PRESET:  # it is there already
        return gr.skip()
    return _show(segmenter.answer(replace(answer.request, preset=preset)), opacity)


def _show(answer: Answer, opacity: float, note: str = "") -> list[Any]:
    cache = Path(get_upload_folder())  # what lies there is removed after a day
    cache.mkdir(parents=True, exist_ok=True)
    labels, description = answer.write(Path(tempfile.mkdtemp(dir=cache)))
    return [
        answer,
        answer.draw_overlay(opacity),
        answer.draw_confidence(),
        f'<span class="faint">“{answer.request.preset}” took {answer.seconds:.1f} s.{note}</span> {CLICK}',
        answer.tell_legend(),
        gr.DownloadButton(value=labels, interactive=True),
        gr.DownloadButton(value=description, interactive=True),
    ]


def _tell_pixel(answer: Answer | None, event: gr.SelectData) -> str:
    return WAITING if answer is None else answer.tell_pixel(*(place // answer.zoom for place in event.index))


def _draw_overlay(answer: Answer | None, opacity: float) -> Any:
    return gr.skip() if answer is None else answer.draw_overlay(opacity)
