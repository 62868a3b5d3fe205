"""What README and documentation print runs as printed, page by page, from top to bottom.

Python blocks and `itaclip segment` run, with a local stand-in for the model on the hub; a block with a title is a
file; a block of text after Python is what that prints; other `itaclip` commands are read with all their options. A
block after a comment `<!-- not run: reason -->` is left out, but for reading its commands. Notebooks run as well.
"""

import contextlib
import io
import json
import re
import runpy
import shlex
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer
from PIL import Image

from itaclip_hf.cli.main import app
from itaclip_hf.methods import PRESETS, Settings
from itaclip_hf.methods.settings import SETTING_NAMES

ROOT = Path(__file__).parents[2]
DESCRIPTION = ROOT / "DESCRIPTION.md"
README, START, SETTINGS = ROOT / "README.md", ROOT / "docs" / "index.md", ROOT / "docs" / "settings.md"
PAGES = [README, DESCRIPTION, *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
OWN_TESTS = {
    "docs/adding_a_method.md": "tests/evaluation/test_adding_a_method.py",
    "docs/export.md": "tests/test_onnx_export.py",
    "docs/take_along.md": "tests/cli/test_take_along.py",
}
LANGUAGES = ("python", "console", "bash")
HUB_ID = "openai/clip-vit-base-patch16"
FENCE = re.compile(
    r"(?P<skip>^<!-- not run: .+ -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
COMMAND = re.compile(r"^(?:\$ )?(?:.*-m itaclip_hf\.cli|itaclip) ([a-z].*?)(?:  +#.*| #.*)?$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str | None
    code: str
    is_run: bool


def read_blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, of some languages or of all."""
    blocks = [
        Block(match["language"], match["title"], textwrap.dedent(match["code"]), not match["skip"])
        for match in FENCE.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in blocks if not languages or block.language in languages]


def read_commands(block: Block) -> list[list[str]]:
    """The `itaclip` commands of a block, in words."""
    return [shlex.split(command) for command in COMMAND.findall(block.code.replace("\\\n", " "))]


def name_page(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def mark_slow(page: Path) -> Any:
    """Pages that run the embedded checkpoint, which is larger than the stand-in for the model on the hub."""
    return pytest.param(page, marks=pytest.mark.slow) if "load_demo" in page.read_text(encoding="utf-8") else page


WITH_CODE = [page for page in PAGES if name_page(page) not in OWN_TESTS and read_blocks(page, *LANGUAGES)]


@pytest.fixture
def user_folder(tmp_path, monkeypatch, photo):
    """A user's folder with a picture of their own in it."""
    folder = tmp_path / "user"
    (folder / "folder").mkdir(parents=True)
    photo.rename(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def given(user_folder) -> dict[str, Any]:
    """What pages speak of without making it: an image, and label maps of two classes."""
    maps = list(np.random.default_rng(0).integers(0, 2, (2, 8, 8)))
    with Image.open("photo.jpg") as photo:
        image = photo.convert("RGB")
    return {"image": image, "predicted_maps": maps, "label_maps": maps[::-1]}


@pytest.mark.parametrize("page", [mark_slow(page) for page in WITH_CODE], ids=name_page)
def test_page_runs_as_printed(page, given, checkpoint, itaclip):
    run_page(page, given, checkpoint, itaclip)
    if page in (README, START):
        assert {segment["label"] for segment in given["segments"]} <= {"background", "cat", "dog"}
        assert Path("results/photo_labels.png").exists()
    if page == START:
        assert given["labels"].shape == (40, 60)


def run_page(page: Path, given: dict[str, Any], checkpoint: Path, itaclip) -> None:
    printed = ""
    for block in read_blocks(page):
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python" and block.is_run:
            printed = run_python(block.code.replace(HUB_ID, str(checkpoint)), page, given)
        elif block.language == "text" and printed:
            expect_printed(block.code, printed)
            printed = ""
        elif block.language in ("console", "bash"):
            run_commands(block, checkpoint, itaclip)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_page)
def test_notebook_runs_from_top_to_bottom(notebook, user_folder, checkpoint):
    content, names = json.loads(notebook.read_text(encoding="utf-8")), {}
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert content["nbformat"] == 4 and cells
    for cell in cells:
        assert cell["outputs"] == [] and cell["execution_count"] is None, "keep it without outputs"
        run_python("".join(cell["source"]).replace(HUB_ID, str(checkpoint)), notebook, names)


def run_python(code: str, page: Path, names: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, str(page), "exec"), names)
    return output.getvalue()


def expect_printed(expected: str, found: str) -> None:
    """The same text, and numbers that differ by no more than other kernels' roundings make of them."""
    number = r"-?\d+(?:\.\d+)?"
    assert re.sub(number, "#", found) == re.sub(number, "#", expected), found
    values = [[float(value) for value in re.findall(number, text)] for text in (found, expected)]
    assert values[0] == pytest.approx(values[1], rel=0.05, abs=0.02), found


def run_commands(block: Block, checkpoint: Path, itaclip) -> None:
    for name, *options in read_commands(block):
        if name == "segment" and block.is_run:
            model = [] if "--model" in options else ["--model", checkpoint]
            result = itaclip(name, *[str(checkpoint) if word == HUB_ID else word for word in options], *model)
            assert result.exit_code == 0, result.output
        else:
            typer.main.get_command(app).commands[name].make_context(name, options)


def test_quickstarts_are_short():
    offline, quickstart = (block.code for block in read_blocks(README, "python"))
    assert "load_demo()" in offline and HUB_ID in quickstart
    assert max(len(code.splitlines()) for code in (offline, quickstart)) <= 15


def test_what_an_index_of_packages_shows_is_readmes_and_has_no_links_to_neighbours():
    of_readme, shown = ([block.code for block in read_blocks(page, "python")] for page in (README, DESCRIPTION))
    assert shown == of_readme[:2]
    assert "](" not in DESCRIPTION.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for block in read_blocks(page, *LANGUAGES):
        for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", block.code, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_settings_table_is_that_of_the_settings():
    script = runpy.run_path(str(ROOT / "docs" / "make_settings_table.py"))
    (table,) = script["TABLE"].findall(SETTINGS.read_text(encoding="utf-8"))
    assert table == script["make_table"](), "run docs/make_settings_table.py"
    shown = {name: eval(value) for name, value in re.findall(r"`(\w+) = ([^`]+)`", table)}
    assert shown == {name: getattr(Settings(), name) for name in SETTING_NAMES}


def test_presets_table_has_every_preset():
    table = SETTINGS.read_text(encoding="utf-8").split("## Presets")[1]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [name for name in PRESETS if name != "demo"]
