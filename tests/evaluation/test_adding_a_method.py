"""The how-to as a reader follows it: its code is taken from the page and run."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from itaclip_hf.cli.main import app
from itaclip_hf.methods import get_method, method_names

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_method.md"


def read_code() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_made_up_method_takes_fewer_than_30_lines() -> None:
    lines = [line for code in read_code() for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 30


def test_the_page_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in read_code():
        exec(compile(code, str(PAGE), "exec"), names)
    printed = re.findall(r"^(NACLIP|AngleCLIP) (\d+)% of the pixels right$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in printed] == ["NACLIP", "AngleCLIP"]
    on_the_page = re.findall(r"^(?:NACLIP|AngleCLIP) (\d+)% of", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    for (_, found), stated in zip(printed, on_the_page, strict=True):
        assert abs(int(found) - int(stated)) <= 2  # other kernels, other roundings
    assert {path.name for path in Path("reports").iterdir()} == {"naclip", "angleclip"}


def test_the_file_serves_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("angleclip.py").write_text(read_code()[0].replace("angle", "corner"))  # the other test made it known
    result = CliRunner().invoke(app, ["evaluate", "voc21", "--data", "nowhere", "--method", "angleclip.py:cornerclip"])
    assert "Check `--data`" in result.output  # the method was found, the data was not
    assert get_method("cornerclip").title == "AngleCLIP"


def test_the_table_states_the_declared_settings() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(method_names()[:6])
