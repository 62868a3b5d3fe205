"""What the README prints runs as printed; a local stand-in takes the place of the model on the hub."""

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
HUB_ID = "openai/clip-vit-base-patch16"


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def user_folder(tmp_path, monkeypatch, photo):
    """A user's empty folder with a picture of their own in it."""
    folder = tmp_path / "user"
    (folder / "folder").mkdir(parents=True)
    photo.rename(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    return folder


def test_python_examples_run_one_after_the_other(user_folder, checkpoint):
    names = {}
    for block in read_blocks("python"):
        exec(compile(block.replace(HUB_ID, str(checkpoint)), str(README), "exec"), names)
    assert names["labels"].shape == (40, 60)
    assert {segment["label"] for segment in names["segments"]} <= {"background", "cat", "dog"}


def test_quickstart_is_short():
    quickstart = read_blocks("python")[0]
    assert HUB_ID in quickstart
    assert len(quickstart.splitlines()) <= 15


def test_segment_commands_run(user_folder, itaclip, checkpoint):
    commands = re.findall(r"^\$ itaclip (segment .*)$", "\n".join(read_blocks("console")), re.MULTILINE)
    assert commands
    for command in commands:
        result = itaclip(*shlex.split(command), "--model", checkpoint)
        assert result.exit_code == 0, result.output
    assert (user_folder / "results" / "photo_labels.png").exists()


def test_make_targets_exist():
    targets = re.findall(r"^\$ make (\S+)", "\n".join(read_blocks("console")), re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text()
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert target.startswith("http") or (README.parent / target).exists(), target


def test_parameter_table_has_the_defaults():
    from itaclip_hf import ITACLIPConfig, ITACLIPImageProcessor

    table = README.read_text(encoding="utf-8").split("## Parameters")[1].split("## Limits")[0]
    config, image_processor = ITACLIPConfig(), ITACLIPImageProcessor()
    for name, value in re.findall(r"`(\w+) = ([^`]+)`", table):
        owner = next((part for part in (config, image_processor) if hasattr(part, name)), None)
        if owner is not None:
            actual = getattr(owner, name)
            assert (dict(actual) if name == "size" else actual) == eval(value), name
