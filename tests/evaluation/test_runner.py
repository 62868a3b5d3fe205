"""The runner: counts against a plain loop, resuming, many processes, kills, and what is wrong with samples."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_sharer
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scripted_evaluation import (
    PixelPredictor,
    expected_confusion,
    load_folders,
    start_processes,
    write_folders,
    write_image,
    write_labels,
)

from itaclip_hf.evaluation.data.segmentation_datasets import SampleError
from itaclip_hf.evaluation.running import runner
from itaclip_hf.evaluation.running.runner import RunOptions, check_process_count, run_evaluation
from itaclip_hf.evaluation.running.sample_batches import be_quiet_when_left

QUIET = RunOptions(num_workers=0, save_interval=0.0, show_progress=False)
NAMES = [f"{index:03d}" for index in range(11)]
SCRIPT = Path(__file__).with_name("scripted_evaluation.py")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path, num_images=len(NAMES))
    return tmp_path


def quiet(**changes: object) -> RunOptions:
    return RunOptions(**{**QUIET.__dict__, **changes})  # type: ignore[arg-type]


def test_counts_equal_a_plain_loop_over_pixels(root: Path) -> None:
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES))
    assert list(result.counts.names) == [f"{name}.png" for name in NAMES]
    assert result.problems == ()


def test_worker_processes_and_batches_give_the_same_counts(root: Path) -> None:
    settings = quiet(num_workers=1, batch_size=4)
    predictor = PixelPredictor()
    result = run_evaluation(load_folders(root), predictor, root / "progress", settings)
    assert predictor.batches == [4, 4, 3]
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES))


def test_a_worker_does_not_tell_that_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(error))
    be_quiet_when_left(0)
    errors = iter([BrokenPipeError(), ConnectionResetError(), EOFError(), KeyError("a fault of its own")])

    class Listener:
        """One that fails, over and over, until something was told; then it asks the thread to end."""

        def accept(self) -> contextlib.AbstractContextManager[object]:
            if told:
                return contextlib.nullcontext(SimpleNamespace(recv=lambda: None))
            raise next(errors)

    sharer = resource_sharer._ResourceSharer()  # what hands over the tensors
    sharer._listener = Listener()
    thread = threading.Thread(target=sharer._serve)
    thread.start()
    thread.join(10)
    assert [type(error) for error in told] == [KeyError]


def test_limit_takes_the_first_images(root: Path) -> None:
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(limit=3))
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES[:3]))


def test_a_finished_run_started_again_predicts_nothing(root: Path) -> None:
    first = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    predictor = PixelPredictor()
    second = run_evaluation(load_folders(root), predictor, root / "progress", QUIET)
    assert predictor.batches == []
    assert second.resumed == len(NAMES)
    assert np.array_equal(first.confusion, second.confusion)


def test_restart_throws_progress_away(root: Path) -> None:
    run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    predictor = PixelPredictor()
    result = run_evaluation(load_folders(root), predictor, root / "progress", quiet(restart=True))
    assert sum(predictor.batches) == len(NAMES)
    assert result.resumed == 0


def test_an_error_in_the_middle_loses_nothing(root: Path) -> None:
    class FailingPredictor(PixelPredictor):
        def predict(self, prepared: dict) -> list:
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().predict(prepared)

    settings = quiet(save_interval=1000.0)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(load_folders(root), FailingPredictor(), root / "progress", settings)
    predictor = PixelPredictor()
    result = run_evaluation(load_folders(root), predictor, root / "progress", settings)
    assert (result.resumed, sum(predictor.batches)) == (4, len(NAMES) - 4)
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES))


def test_another_setting_refuses_to_resume(root: Path) -> None:
    run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    with pytest.raises(ValueError, match=r"1 changed:\n  batch_size: 1 → 2\n.*--restart"):
        run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(batch_size=2))


def test_two_runs_at_once_in_one_folder_are_refused(root: Path) -> None:
    class NestedPredictor(PixelPredictor):
        def predict(self, prepared: dict) -> list:
            run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
            return []

    with pytest.raises(BlockingIOError, match="another evaluation is at work there"):
        run_evaluation(load_folders(root), NestedPredictor(), root / "progress", QUIET)


def test_leftovers_of_a_killed_write_are_removed(root: Path) -> None:
    run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(limit=2))
    leftover = root / "progress" / ".part-00000002-abc.npz.0123.itaclip-tmp"
    leftover.write_bytes(b"half a file")
    run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(limit=2))
    assert not leftover.exists()


def test_unequal_numbers_of_classes_are_refused(root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"as many classes in the vocabulary as in the dataset's labels \(5\), but got 4"
    ):
        run_evaluation(load_folders(root), PixelPredictor(num_classes=4), root / "progress", QUIET)


def test_a_prediction_of_another_size_names_the_image(root: Path) -> None:
    class CroppingPredictor(PixelPredictor):
        def predict(self, prepared: dict) -> list:
            return [result._replace(labels=result.labels[1:]) for result in super().predict(prepared)]

    with pytest.raises(ValueError, match=r"result for 000\.png does not fit.*\(6, 8\), but got \(5, 8\)"):
        run_evaluation(load_folders(root), CroppingPredictor(), root / "progress", QUIET)


def spoil_samples(root: Path) -> None:
    (root / "labels" / "001.png").unlink()
    write_labels(root / "labels" / "003.png", np.full((6, 8), 77))
    (root / "images" / "005.png").write_bytes((root / "images" / "005.png").read_bytes()[:40])
    write_image(root / "images" / "007.png", seed=7, size=(3, 3))
    (root / "labels" / "009.png").write_bytes(b"no image")


def test_unusable_samples_are_named_and_counted_and_the_rest_goes_on(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil_samples(root)
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(batch_size=3))
    found = [(problem.index, problem.kind, Path(problem.path).name) for problem in result.problems]
    assert found == [
        (1, "missing label", "001.png"),
        (3, "label id", "003.png"),
        (5, "unreadable image", "005.png"),
        (7, "size mismatch", "007.png"),
        (9, "unreadable label", "009.png"),
    ]
    assert "but got 77" in caplog.text
    assert np.array_equal(result.confusion, expected_confusion(root, ["000", "002", "004", "006", "008", "010"]))


def test_what_the_predictor_refuses_does_not_take_its_batch_along(root: Path) -> None:
    refused = np.array(Image.open(root / "images" / "004.png"))

    class ChoosyPredictor(PixelPredictor):
        def predict(self, prepared: dict) -> list:
            results = super().predict(prepared)
            if any(np.array_equal(image, refused) for image in prepared["images"]):
                raise ValueError("Expected another image.")
            return results

    predictor = ChoosyPredictor()
    result = run_evaluation(load_folders(root), predictor, root / "progress", quiet(batch_size=4))
    assert predictor.batches == [4, 4, 1, 1, 1, 1, 3]
    assert [(problem.index, problem.message) for problem in result.problems] == [(4, "Expected another image.")]
    assert np.array_equal(result.confusion, expected_confusion(root, [name for name in NAMES if name != "004"]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_strict_stops_at_the_first_unusable_sample(root: Path, num_workers: int) -> None:
    spoil_samples(root)
    with pytest.raises(SampleError, match=r"missing label: .*labels/001\.png"):
        run_evaluation(
            load_folders(root), PixelPredictor(), root / "progress", quiet(strict=True, num_workers=num_workers)
        )


def test_a_repaired_sample_is_scored_on_the_next_run(root: Path) -> None:
    kept = (root / "labels" / "001.png").read_bytes()
    (root / "labels" / "001.png").unlink()
    assert len(run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET).problems) == 1
    (root / "labels" / "001.png").write_bytes(kept)
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    assert (result.resumed, result.problems) == (len(NAMES) - 1, ())
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES))


def test_an_image_turned_by_exif_is_matched_with_its_label_map(root: Path) -> None:
    pixels = np.array(Image.open(root / "images" / "000.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    stored.save(root / "images" / "000.png", exif=exif)
    sample = load_folders(root).load(0)
    assert np.array_equal(np.array(sample.image), pixels)
    write_labels(root / "labels" / "000.png", np.zeros(stored.size[::-1]))
    sample = load_folders(root).load(0)
    assert np.array_equal(np.array(sample.image), np.array(stored))
    assert not sample.image.getexif()


def test_launched_processes_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lonely:
        num_processes = 1

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="ACCELERATE_USE_CPU=1 torchrun"):
        check_process_count(Lonely())  # type: ignore[arg-type]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`batch_size` >= 1, but got 0"):
        RunOptions(batch_size=0)
    with pytest.raises(ValueError, match="at most 256 worker processes, but got 1000"):
        RunOptions(num_workers=1000)


def check_results(root: Path, num_processes: int) -> None:
    results = [json.loads((root / f"result-{rank}.json").read_text()) for rank in range(num_processes)]
    assert [result["num_processes"] for result in results] == [num_processes] * num_processes
    assert sum(result["predicted_here"] for result in results) == len(NAMES)
    assert all(result["predicted_here"] > 0 for result in results)
    for result in results:
        assert np.array_equal(result["confusion"], expected_confusion(root, NAMES))


@pytest.mark.slow
def test_torchrun_with_two_processes_gives_the_matrix_of_one(root: Path) -> None:
    environment = {
        **os.environ,
        "SCRIPTED_ROOT": str(root),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    check_results(root, num_processes=2)


def test_three_processes_with_uneven_shares_count_every_image_once(root: Path) -> None:
    processes = start_processes(root, num_processes=3)
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    check_results(root, num_processes=3)


def test_killed_again_and_again_and_started_again_gives_the_same_matrix(root: Path) -> None:
    write_folders(root, num_images=41)  # enough work that no run between two kills comes to its end
    for wait in (0.0, 0.15, 0.3):
        parts_before = count_parts(root)
        processes = start_processes(root, num_processes=2, seconds_per_image=0.1)
        wait_for_new_part(root, parts_before, processes[0])
        time.sleep(wait)
        for process in processes:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        assert not list(root.glob("result-*.json"))
        assert count_parts(root) > parts_before
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(batch_size=2))
    assert 3 <= result.resumed < 41
    assert len(result.counts) == 41
    assert np.array_equal(result.confusion, expected_confusion(root, [f"{index:03d}" for index in range(41)]))


def count_parts(root: Path) -> int:
    return len(list((root / "progress").glob("part-*.npz")))


def wait_for_new_part(root: Path, parts_before: int, process: BaseProcess) -> None:
    deadline = time.monotonic() + 60
    while count_parts(root) == parts_before:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_log_file_gets_lines_of_progress(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_LOG_LINES", 0.0)
    run_evaluation(load_folders(root), PixelPredictor(), root / "progress", quiet(show_progress=True))
    assert "3 of 11 images, " in capsys.readouterr().out
