"""Every command in terminals that show ASCII alone, before readers that leave, and with inputs that never end."""

import os

import pytest
from watched_programs import join, read_results, replaced, start

pytestmark = pytest.mark.slow
COMMANDS = ("segment", "evaluate", "ablate", "texts", "tune", "compare", "demo-scenes")


def fill_in(world, command, tmp_path):
    """Arguments of any command, and what they read."""
    out = tmp_path / "out"
    if command == "tune":
        data = world.arguments("evaluate", out)
        return (
            command, *data[1:7], "--model", world.root / "clip", "--cpu", "--shortest-edge", 32, "--workers", 0,
            "--pixels", 50, "--sureness", 0, "--out", out,
        )  # fmt: skip
    if command == "demo-scenes":
        picture = world.root / "pictures" / "0" / "0.png"
        model = ("--model", world.root / "clip", "--window-stride", 16)
        return (command, *model, "--image", picture, "--classes", "cat; sky", "--out", out)
    if command == "compare":
        program = start(tmp_path / "evaluate.log", *world.arguments("evaluate", tmp_path / "a"))
        assert join([program]) == [0], program.printed
        return (command, tmp_path / "a", tmp_path / "a", "--out", tmp_path / "difference.json")
    return world.arguments(command, out)


@pytest.mark.parametrize(
    ("command", "encoding"), [*((command, "ascii") for command in COMMANDS), ("evaluate", "latin-1")]
)
def test_output_comes_in_any_encoding(world, tmp_path, command, encoding):
    program = start(tmp_path / "log", *fill_in(world, command, tmp_path), encoding=encoding)
    assert join([program])[0] in (0, 1), program.printed
    assert "Traceback" not in program.printed and "Error" not in program.printed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_leaves_ends_a_command_quietly(world, tmp_path, command):
    read, write = os.pipe()
    os.close(read)
    program = start(tmp_path / "log", *fill_in(world, command, tmp_path), output=write)
    os.close(write)
    assert join([program])[0] in (0, 1), program.printed
    assert "Traceback" not in program.printed and "rror" not in program.printed


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("segment", "--vocabulary"),
        ("segment", "--definitions"),
        ("segment", "segment"),
        ("segment", "--model"),
        ("segment", "--out"),
        ("segment", "--method"),
        ("evaluate", "--vocabulary"),
        ("evaluate", "--definitions"),
        ("evaluate", "--out"),
        ("evaluate", "--images"),
        ("evaluate", "--labels"),
        ("ablate", "ablate"),
        ("texts", "--classes"),
        ("texts", "--llm"),
        ("texts", "--out"),
        ("compare", "compare"),
        ("convert", "--names"),
        ("convert", "--annotations"),
    ],
)
def test_a_pipe_is_no_input(world, tmp_path, command, option):
    pipe = tmp_path / ("pipe.yaml" if command == "ablate" else "pipe.py" if option == "--method" else "pipe.png")
    os.mkfifo(pipe)
    value = f"{pipe}:mine" if option == "--method" else pipe
    if command == "compare":
        arguments = [command, pipe, pipe]
    elif command == "convert":
        annotations = tmp_path / "annotations"
        annotations.mkdir()
        (annotations / "a.mat").write_bytes(b"")
        arguments = [command, "context", "--data", tmp_path, "--annotations", annotations, option, pipe]
    else:
        arguments = list(world.arguments(command, tmp_path / "out"))
        if option == "--vocabulary" and command == "segment":
            position = arguments.index("--classes")
            arguments[position : position + 2] = [option, value]
        elif option in arguments:
            arguments[arguments.index(option) + 1] = value
        else:
            arguments += [option, value]
    program = start(tmp_path / "log", *arguments)
    assert join([program], seconds=40)[0] in (1, 2), program.printed
    assert "Traceback" not in program.printed
    assert pipe.name in program.last_line or "pipe.png: " in program.printed


def test_a_pipe_among_images_and_labels_is_named_and_the_others_are_scored(world, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for path in (world.root / kind).iterdir():
            (tmp_path / kind / path.name).symlink_to(path)
    os.mkfifo(tmp_path / "images" / "pipe.png")
    os.mkfifo(tmp_path / "labels" / "piped.png")
    (tmp_path / "images" / "piped.png").symlink_to(world.root / "images" / "000.png")
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images")
    arguments = list(world.arguments("evaluate", tmp_path / "out"))
    for kind in ("images", "labels"):
        arguments[arguments.index(f"--{kind}") + 1] = tmp_path / kind
    program = start(tmp_path / "log", *arguments)
    assert join([program]) == [1], program.printed
    assert "pipe.png" in program.printed and "piped.png" in program.printed
    assert "2 images could not be scored" in program.last_line


@pytest.mark.parametrize("number", ["1e21", str(10**21), str(10**7)])
def test_numbers_that_would_take_for_ever_are_refused(world, tmp_path, number):
    compare = ("compare", tmp_path, tmp_path, "--replicates", number)
    ablate = (*world.arguments("ablate", tmp_path / "out"), "--replicates", number)
    for arguments in (compare, ablate):
        program = start(tmp_path / "log", *arguments)
        assert join([program], seconds=20) == [2], program.printed
    assert "--replicates" in program.printed


def test_a_cache_that_is_no_folder_changes_nothing(world, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for index, place in enumerate((tmp_path / "pipe", "/proc/nowhere", "~nobody-of-that-name/c", tmp_path / "log0")):
        out = tmp_path / f"out{index}"
        program = start(tmp_path / f"log{index}", *world.arguments("segment", out), ITACLIP_TEXT_CACHE=str(place))
        assert join([program], seconds=40) == [0], program.printed
        assert read_results(out) == read_results(tmp_path / "out0")


def test_without_a_home_nothing_is_written_beside_the_results(world, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ITACLIP_TEXT_CACHE")
    monkeypatch.setitem(
        replaced, "huggingface_hub.constants.HF_HOME", "~/.cache/huggingface"
    )  # what is left of it then
    program = start(tmp_path / "log", *world.arguments("segment", tmp_path / "out"))
    assert join([program]) == [0], program.printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "out"]
