"""What the program does with terminals that show little, readers that leave, signals, messages and devices."""

import os
import re
import subprocess
import sys

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from itaclip_hf.cli.main import COMMANDS, ErrorReportingGroup, app
from itaclip_hf.plain_text import show_name


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "itaclip_hf.cli", *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def fail_with(error):
    app = typer.Typer(cls=ErrorReportingGroup)

    @app.callback()
    def options() -> None: ...

    @app.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(app, ["fail"])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["evaluate", "segment"])
def test_help_is_shown_in_any_encoding(command, encoding):
    process = start(command, "--help", PYTHONIOENCODING=encoding, PYTHONWARNINGS="default")
    printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert b"--help" in printed


@pytest.mark.parametrize("name", list(get_command(app).commands))
def test_help_cuts_no_name_on_a_narrow_terminal(name):
    result = CliRunner().invoke(app, [name, "--help"])  # 80 columns
    names = [
        option for each in get_command(app).commands[name].params for option in (*each.opts, *each.secondary_opts)
    ]
    words = result.stdout.replace(",", " ").split()
    assert [option for option in names if option.startswith("-") and option not in words] == []
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\n\nOptions:\n" in result.stdout


def test_the_list_of_commands_has_whole_sentences():
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for command in COMMANDS:
        assert " ".join(command.__doc__.split("\n")[0].split()) in text


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "itaclip_hf.cli", "evaluate", "--help"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert process.communicate()[1] == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="other systems have no such device")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compare", "--help"]])
def test_an_output_without_room_is_told_in_one_line(arguments):
    with open("/dev/full", "wb") as full:
        program = [sys.executable, "-m", "itaclip_hf.cli", *arguments]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"Error: .*No space left on device.*\n", done.stderr)


def test_messages_are_one_line():
    result = fail_with(ValueError("Expected a  file,\nbut got\n\nnone."))
    assert (result.exit_code, result.stderr) == (2, "Error: Expected a file, but got none.\n")


def test_lists_in_messages_stay_lists():
    result = fail_with(OSError("Expected one of\n  a/b\n  c/d\nbut found\nnone."))
    assert result.stderr == "Error: Expected one of\n  a/b\n  c/d\nbut found none.\n"


def test_a_name_of_a_file_is_one_line():
    assert show_name("a\nb\x1b[31m\ufeff\u2028.png") == r"a\x0ab\x1b[31m\xfeff\x2028.png"


def test_ctrl_c_is_told_in_one_line():
    result = fail_with(KeyboardInterrupt("Stopped at the third image.\nGo on with --existing skip."))
    assert (result.exit_code, result.stderr) == (
        130,
        "Interrupted. Stopped at the third image. Go on with --existing skip.\n",
    )
    assert fail_with(KeyboardInterrupt()).stderr == "Interrupted. To begin anew, run the same command again.\n"


@pytest.mark.parametrize("device", ["toaster", "meta", "mps", "xpu", "cuda:7", "cuda:x", "cpu:-2"])
def test_devices_that_are_not_there_are_refused(itaclip, checkpoint, photo, tmp_path, device):
    segment = ["segment", photo, "--classes", "cat", "--model", checkpoint, "--out", tmp_path / "out"]
    (tmp_path / "classes.txt").write_text("cat\n")
    texts = ["texts", "--classes", tmp_path / "classes.txt", "--llm", tmp_path, "--out", tmp_path / "texts.json"]
    for arguments in (segment, texts):
        result = itaclip(*arguments, "--device", device)
        assert result.exit_code == 2
        assert "Expected a device of this machine" in result.stderr
        assert repr(device) in result.stderr
        assert len(result.stderr.splitlines()) == 1
