"""The script that times starts, on processes that do nothing and a tiny checkpoint."""

import json

import pytest

from benchmarks import startup


def test_prints_tables_and_writes_its_numbers(checkpoint, monkeypatch, tmp_path, capsys):
    names = ["import transformers", "import transformers, itaclip_hf"]
    monkeypatch.setattr(startup, "STARTS", {name: ["-c", "pass"] for name in names})
    startup.main(["--model", str(checkpoint), "--repeats", "1", "--json", str(tmp_path / "startup.json")])
    printed = capsys.readouterr().out
    assert "`import itaclip_hf` adds" in printed
    assert "171 classes x 80 templates" in printed
    assert "The three results are the same bits." in printed
    written = json.loads((tmp_path / "startup.json").read_text())
    assert written["processes"].keys() == set(names)
    assert written["vocabulary"]["times"].keys() == set(startup.BAKINGS)
    added = written["import_adds"]["seconds"]
    first, second = (written["processes"][name]["seconds"] for name in names)
    assert added == pytest.approx(second - first)
