"""The scripts in benchmarks/ run and write what they say; how fast is not tested."""

import importlib
import json

import pytest
import torch

from benchmarks.measuring import Stopwatch, can_measure_peak, measure_peak
from benchmarks.presets import VIEW_SETS, select_views
from benchmarks.workload import parse_size
from itaclip_hf import ITACLIPImageProcessor

SCRIPTS = ("memory", "methods", "naive_itaclip", "presets", "ratios", "roofline", "stages")
SMALL = ["--model", "demo", "--size", "64x48", "--stride", "224", "--threads", "1"]


def run_script(name, arguments):
    importlib.import_module(f"benchmarks.{name}").main(arguments)


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(name, ["--help"])
    assert stopped.value.code == 0
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("path", [[], ["--labels-only"]], ids=["class maps", "labels only"])
def test_stages_book_all_time_and_name_the_roofline(path, tmp_path, capsys):
    run_script("stages", [*SMALL, *path, "--repeats", "1", "--texts", "1", "--json", str(tmp_path / "stages.json")])
    printed = capsys.readouterr().out
    assert "| encoder (the ViT) |" in printed and "**time outside the ViT**" in printed
    measured = json.loads((tmp_path / "stages.json").read_text())
    assert all(seconds > 0 for seconds in measured["seconds"].values())
    assert measured["workload"]["queries"] == 80
    assert measured["texts"]["texts"] == 1


@pytest.mark.slow
def test_methods_of_all_kinds_are_timed_on_one_image(tmp_path, capsys):
    file = tmp_path / "methods.json"
    small = ["--model", "demo", "--size", "40x30", "--threads", "1", "--json", str(file)]
    run_script("methods", [*small, "--methods", "maskclip", "tagclip", "groupvit"])
    assert "| TagCLIP |" in capsys.readouterr().out
    measured = json.loads(file.read_text())
    assert measured["workload"]["image"] == "40x30" and measured["workload"]["words"] == "80 of voc21"
    assert set(measured["results"]) == {"maskclip", "tagclip", "groupvit"}
    assert all(row["seconds"] > 0 and row["labels"] > 0 for row in measured["results"].values())


@pytest.mark.slow
def test_stages_go_on_without_a_compiler(monkeypatch, capsys):
    def compile_nothing(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", compile_nothing)
    run_script("stages", [*SMALL, "--compile", "--labels-only", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "torch.compile failed, so the encoder runs as it is: RuntimeError" in printed
    assert "| **all** |" in printed


@pytest.mark.slow
def test_ratios_compare_labels_of_the_whole_loop(tmp_path):
    run_script("ratios", [*SMALL, "--no-memory", "--dtypes", "float32", "--json", str(tmp_path / "ratios.json")])
    results = json.loads((tmp_path / "ratios.json").read_text())["results"]
    assert results["float32, stride 224"]["equal labels"] >= 0.999


@pytest.mark.slow
def test_ratios_say_that_only_a_share_was_run(capsys):
    run_script("ratios", [*SMALL, "--no-memory", "--dtypes", "float32", "--share", "0.5"])
    assert "Only 50 % of the naive loop's windows and PAMR steps were run" in capsys.readouterr().out


@pytest.mark.slow
def test_presets_go_on_where_they_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("itaclip_hf.processing.processing_itaclip.IMAGENET_TEMPLATES", ["a photo of a {}."])
    arguments = ["--strides", "224", "--threads", "1", "--out", str(tmp_path)]
    run_script("presets", [*arguments, "--scenes", "1"])
    first = (tmp_path / "scenes" / "0000.json").read_bytes()
    run_script("presets", [*arguments, "--scenes", "2"])
    assert (tmp_path / "scenes" / "0000.json").read_bytes() == first
    lines = (tmp_path / "presets.csv").read_text().splitlines()
    assert lines[0] == "stride,views,window_views,seconds,agreement,mean_iou,difference,low,high"
    assert lines[1].startswith("224,all five,20,") and len(lines) == 1 + len(VIEW_SETS)
    assert (tmp_path / "presets.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="another --out"):
        run_script("presets", [*arguments, "--scenes", "1", "--world", "world-20"])


def test_fewer_views_share_the_weight_by_kind():
    inputs = dict(ITACLIPImageProcessor(photometric_weight=0.7)(torch.zeros(3, 8, 8), return_tensors="pt"))
    weights = {name: select_views(inputs, kept)["augmentation_weight"][0].tolist() for name, kept in VIEW_SETS.items()}
    third = pytest.approx(1 / 3)
    assert weights["all five"] == pytest.approx([0.7 / 3] * 3 + [0.15] * 2)
    assert weights["three photometric"] == [third] * 3
    assert weights["plain and mirrored"] == pytest.approx([0.7, 0.3])
    assert weights["plain"] == [1.0]


def test_inner_stages_are_not_counted_for_outer_ones(monkeypatch):
    times = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr("benchmarks.measuring.time.perf_counter", lambda: next(times))
    stopwatch = Stopwatch(torch.device("cpu"))
    with stopwatch.stage("outer"), stopwatch.stage("inner"):
        pass
    assert stopwatch.seconds == {"outer": 1.0 + 3.0, "inner": 2.0}


def test_watched_functions_are_left_as_they_were():
    stopwatch = Stopwatch(torch.device("cpu"))
    original = torch.Tensor.tolist
    with stopwatch.watch([("listing", torch.Tensor, "tolist")]):
        assert torch.ones(2).tolist() == [1.0, 1.0]
    assert torch.Tensor.tolist is original
    assert set(stopwatch.seconds) == {"listing"}


@pytest.mark.skipif(not can_measure_peak(torch.device("cpu")), reason="needs the kernel of Linux")
def test_peak_memory_sees_what_was_freed_again():
    with measure_peak(torch.device("cpu")) as memory:
        torch.ones(2**25)  # 128 MiB
    assert 120 < memory.above / 2**20 < 300


@pytest.mark.parametrize("text", ["640", "640x", "0x5", "axb"])
def test_size_that_is_none_is_refused(text):
    with pytest.raises(Exception, match="Expected a size like 640x586"):
        parse_size(text)
