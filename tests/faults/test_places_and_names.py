"""No command writes where another file is or outside its folder, and nothing from files steers what reads them."""

import json
import os
import pickle
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner
from watched_programs import join, start, start_pair

from itaclip_hf.cli.main import app
from itaclip_hf.cli.terminal import say

ESCAPE = "\x1b[31m"


@pytest.fixture
def itaclip():
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def replace_option(arguments, name, value):
    position = arguments.index(name) + 1
    return (*arguments[:position], value, *arguments[position + 1 :])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("segment", "0/0_labels.png"),
        ("segment", "0/0_overlay.png"),
        ("segment", "1/1.json"),
        ("evaluate", "report.json"),
        ("evaluate", "report.md"),
        ("evaluate", "vocabulary.json"),
        ("evaluate", "per_image.npz"),
        ("evaluate", "gallery.png"),
        ("evaluate", "progress/settings.json"),
        ("evaluate", "progress/part-mine.npz"),
        ("ablate", "tables.md"),
        ("ablate", "rows.csv"),
        ("ablate", "rows.json"),
        ("ablate", "rows.png"),
        ("texts", "words.json"),
        ("texts", "words.json.progress.json"),
        ("tune", "settings.json"),
        ("tune", "report.md"),
        ("tune", "model/config.json"),
        ("tune", "tuned/report.json"),
        ("demo-scenes", "scenes.png"),
        ("demo-scenes", "image.png"),
        ("convert", "SegmentationClassContext/a.png"),
        ("compare", "comparison.json"),
    ],
)
def test_files_of_others_stay(world, itaclip, tmp_path, command, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text('{"mine": true}')
    if command == "demo-scenes":
        arguments = (command, "--out", out)
    elif command == "convert":
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations" / "a.mat").write_text("")
        arguments = (command, "context", "--data", out, "--annotations", tmp_path / "annotations")
    elif command == "compare":
        arguments = (command, tmp_path / "a", tmp_path / "b", "--out", out / name)
    elif command == "tune":
        data = world.arguments("evaluate", out)
        arguments = (command, *data[1:7], "--model", world.root / "clip", "--cpu", "--save-model", "--out", out)
    else:
        arguments = world.arguments(command, out)
        if command == "segment":
            arguments = replace_option(arguments, "--existing", "overwrite")
        if command == "evaluate":
            arguments = (*arguments, "--restart")
    before = snapshot(out)
    result = itaclip(*arguments)
    assert result.exit_code == 2, result.output
    # The name, or the folder of it that would be replaced as a whole.
    assert any(str(out / part) in result.stderr for part in (name, name.partition("/")[0])), result.stderr
    assert "another file" in result.stderr
    assert snapshot(out) == before


def test_two_processes_are_both_told_of_another_file(world, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("mine")
    programs = start_pair(tmp_path / "log", *world.arguments("evaluate", out))
    assert join(programs) == [2, 2], [program.printed for program in programs]
    assert all("another file" in program.last_line for program in programs)
    assert (out / "report.md").read_text() == "mine"


def test_a_result_that_is_an_input_stays(world, itaclip, tmp_path):
    out = tmp_path / "out"
    arguments = world.arguments("evaluate", out)
    assert itaclip(*arguments).exit_code == 0
    before = snapshot(out)
    result = itaclip(*replace_option(arguments, "--vocabulary", out / "vocabulary.json"))
    assert (result.exit_code, "is a result to be replaced. Use another --out" in result.stderr) == (2, True)
    assert snapshot(out) == before
    assert itaclip(*arguments, "--restart").exit_code == 0


class Attack:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_checkpoints_run_no_code(world, itaclip, tmp_path):
    clip, trap = tmp_path / "clip", tmp_path / "trap"
    shutil.copytree(world.root / "clip", clip)
    (clip / "model.safetensors").unlink()
    (clip / "pytorch_model.bin").write_bytes(pickle.dumps(Attack(trap), protocol=2))
    picture = world.root / "pictures" / "0" / "0.png"
    result = itaclip("segment", picture, "--model", clip, "--classes", "cat", "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert not trap.exists()


def test_code_in_a_folder_is_not_run_and_the_advice_can_be_followed(world, itaclip, tmp_path):
    clip, trap = tmp_path / "clip", tmp_path / "trap"
    shutil.copytree(world.root / "clip", clip)
    config = json.loads((clip / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (clip / "config.json").write_text(json.dumps(config))
    (clip / "code.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    picture = world.root / "pictures" / "0" / "0.png"
    result = itaclip("segment", picture, "--model", clip, "--classes", "cat", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert not trap.exists()
    assert "trust_remote_code" not in result.stderr


def test_tags_and_aliases_in_tables_are_refused(world, itaclip, tmp_path):
    trap, table = tmp_path / "trap", tmp_path / "rows.yaml"
    arguments = replace_option(world.arguments("ablate", tmp_path / "out"), "ablate", table)
    laughs = "a: &a [x, x]\nb: &b [*a, *a]\nrows: [*b, *b]\n"
    for text, message in (
        (f"rows: !!python/object/apply:os.mkdir ['{trap}']", "could not determine a constructor"),
        (laughs, "Expected no aliases"),
        ("rows: " + "[" * 5000, "recursion"),
        ("grid: {pamr_steps: [" + "0, " * 999 + "0], auxiliary_weight: [" + "0, " * 999 + "0]}", "at most 1000 rows"),
    ):
        table.write_text(text)
        result = itaclip(*arguments)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not trap.exists()


def test_names_do_not_steer_the_terminal(world, tmp_path, capsys):
    strange = tmp_path / f"[red]{ESCAPE}.png"
    shutil.copy(world.root / "pictures" / "0" / "0.png", strange)
    (tmp_path / f"broken{ESCAPE}.png").write_bytes(b"none")
    arguments = ("--model", world.root / "clip", "--classes", "[red]cat[/]; [bold]sky", "--device", "cpu")
    program = start(tmp_path / "log", "segment", tmp_path, *arguments, "--out", tmp_path / "out")
    assert join([program]) == [1], program.printed
    assert "\x1b" not in program.printed.replace("\x1b[0m", "").replace("\x1b[31mbroken", "")
    assert "[red]\\x1b[31m.png -> " in program.printed
    assert "[red]cat[/]" in program.printed or "[bold]sky" in program.printed
    say(f"a{ESCAPE}\rb\nc\u202e")
    assert capsys.readouterr().out == "a\\x1b[31m\\x0db\nc\\x202e\n"


@pytest.mark.parametrize("name", ["..png", "...png"])
def test_a_name_of_dots_alone_takes_no_results_out_of_their_folder(itaclip, tmp_path, name):
    Image.new("RGB", (40, 30)).save(tmp_path / name, "PNG")
    before = snapshot(tmp_path)
    result = itaclip("segment", tmp_path / name, "--model", "demo", "--classes", "sky", "--out", tmp_path / "a" / "b")
    assert result.exit_code == 2 and "Expected an image with a name, but got" in result.output
    assert snapshot(tmp_path) == before
