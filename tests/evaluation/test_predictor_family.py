"""Several methods at once: each gets its own counts, resumes by itself, and survives kills on many processes."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from scripted_evaluation import (
    PixelFamily,
    PixelPredictor,
    expected_confusion,
    family_folders,
    load_folders,
    start_processes,
    write_folders,
)

from itaclip_hf import Vocabulary
from itaclip_hf.evaluation.running.runner import RunOptions, run_evaluation, run_family

QUIET = RunOptions(num_workers=0, save_interval=0.0, show_progress=False)
NAMES = [f"{index:03d}" for index in range(7)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path, num_images=len(NAMES))
    return tmp_path


def check(root: Path, results: list, names: list[str] = NAMES) -> None:
    for number, result in enumerate(results):
        assert np.array_equal(result.confusion, expected_confusion(root, names, number))


def test_each_method_of_a_family_gets_its_own_counts(root: Path) -> None:
    family = PixelFamily(3)
    results = run_family(load_folders(root), family, family_folders(root, 3), QUIET)
    check(root, results)
    assert sorted(family.predicted) == sorted(list(range(3)) * len(NAMES))


def test_a_family_of_one_has_the_progress_of_an_evaluation(root: Path) -> None:
    single = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    settings = json.loads((root / "progress" / "settings.json").read_text())
    assert settings["predictor"] == {"method": "pixels", "classes": 5}
    check(root, [single])


def test_methods_that_came_to_different_points_are_each_brought_to_the_end(root: Path) -> None:
    folders = family_folders(root, 3)
    run_family(load_folders(root), PixelFamily(2), folders[:2], QUIET)
    family = PixelFamily(3)
    results = run_family(load_folders(root), family, folders, QUIET)
    assert family.predicted == [2] * len(NAMES)
    assert [result.resumed for result in results] == [7, 7, 0]
    check(root, results)


def test_an_error_between_two_methods_of_a_batch_loses_nothing(root: Path) -> None:
    class FailingFamily(PixelFamily):
        def predict_each(self, prepared: dict, wanted: list[int]):
            for result in super().predict_each(prepared, wanted):
                yield result
                if len(self.predicted) >= 11:  # in the middle of the second batch of three images
                    raise KeyboardInterrupt

    options = RunOptions(**{**QUIET.__dict__, "batch_size": 3, "save_interval": 1000.0})
    folders = family_folders(root, 3)
    failing = FailingFamily(3)
    with pytest.raises(KeyboardInterrupt):
        run_family(load_folders(root), failing, folders, options)
    family = PixelFamily(3)
    results = run_family(load_folders(root), family, folders, options)
    assert len(failing.predicted) + len(family.predicted) == 3 * len(NAMES)
    check(root, results)


def test_vocabularies_with_other_numbers_of_classes_are_refused(root: Path) -> None:
    family = PixelFamily(2)
    family.vocabularies = (family.vocabularies[0], Vocabulary(["one", "two"]))
    with pytest.raises(ValueError, match=r"labels \(5\), but got 2"):
        run_family(load_folders(root), family, family_folders(root, 2), QUIET)


def test_killed_and_started_again_on_other_numbers_of_processes_gives_the_same_matrices(root: Path) -> None:
    names = [f"{index:03d}" for index in range(21)]
    write_folders(root, num_images=len(names))
    processes = start_processes(root, num_processes=2, seconds_per_image=0.05, family_size=3)
    deadline = time.monotonic() + 60
    while len(list(root.glob("family/*/part-*.npz"))) < 4:
        assert processes[0].is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    for process in processes:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    processes = start_processes(root, num_processes=3, family_size=3)
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    outcome = json.loads((root / "result-1.json").read_text())
    assert (outcome["num_processes"], outcome["images"]) == (3, 21)
    assert 0 < outcome["resumed"] < 21
    for number, confusion in enumerate(outcome["confusions"]):
        assert np.array_equal(confusion, expected_confusion(root, names, number))
