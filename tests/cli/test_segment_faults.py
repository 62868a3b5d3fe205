"""`itaclip segment` with files as users really have them: broken, foreign, in the way, with names of all kinds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itaclip_hf.media.pictures import find_images


def save_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def segment(itaclip, checkpoint):
    """Runs `itaclip segment` fast."""

    def run(*arguments):
        return itaclip("segment", *arguments, "--model", checkpoint, "--preset", "fast", "--classes", "cat; sky")

    return run


def start_program(checkpoint, *arguments, **environment):
    options = ["--model", checkpoint, "--preset", "fast", "--classes", "cat; sky"]
    # Tests that a script starts in the background ignore Ctrl-C, and would pass that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "itaclip_hf.cli", "segment", *map(str, (*arguments, *options))],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def names_of(out):
    return sorted(path.name for path in out.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("bad tile"), NotImplementedError("pixel format"), MemoryError()])
def test_whatever_a_decoder_raises_the_other_images_are_done(segment, photo, tmp_path, monkeypatch, error):
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile._open", fail)
    result = segment(tmp_path / "broken.gif", photo, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path / 'broken.gif'}: " in result.stderr
    assert "1 of 2 images failed" in result.stderr
    assert "photo.json" in names_of(tmp_path / "out")


def test_pixels_that_mean_nothing_are_that_images_error(segment, photo, tmp_path):
    Image.fromarray(np.full((40, 60), np.nan, dtype=np.float32)).save(tmp_path / "nan.tiff")
    Image.fromarray(np.full((40, 60), -5, dtype=np.int32)).save(tmp_path / "negative.tiff")
    result = segment(tmp_path / "nan.tiff", tmp_path / "negative.tiff", photo, "--out", tmp_path / "out")
    assert result.exit_code == 1
    for name, message in (("nan", "Expected finite pixels"), ("negative", "Expected integer pixels from 0 on")):
        assert f"{tmp_path / name}.tiff: {message}" in result.stderr
    assert "photo.json" in names_of(tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_links_in_a_circle_pipes_and_dangling_links_are_reported(segment, tmp_path):
    folder = tmp_path / "in"
    save_picture(folder / "good.png")
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "nowhere.png").symlink_to(folder / "none.png")
    os.mkfifo(folder / "pipe.png")
    result = segment(folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    for name in ("circle", "nowhere", "pipe"):
        assert f"{folder / name}.png: " in result.stderr
    assert names_of(tmp_path / "out") == ["good.json", "good_labels.png", "good_overlay.png"]


def test_folders_that_cannot_be_looked_into_are_reported(segment, tmp_path, monkeypatch):
    save_picture(tmp_path / "in" / "good.png")
    closed = tmp_path / "in" / "closed"
    closed.mkdir()
    scan_folder = os.scandir

    def refuse(path="."):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan_folder(path)

    monkeypatch.setattr("os.scandir", refuse)
    result = segment(tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{closed}: Expected a folder that may be looked into" in result.stderr
    assert "good.json" in names_of(tmp_path / "out")


def test_long_names_are_used_in_full_or_refused(segment, tmp_path):
    longest = save_picture(tmp_path / f"{'a' * 240}.png")
    too_long = save_picture(tmp_path / f"{'b' * 241}.png")
    result = segment(longest, too_long, "--confidence", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{too_long}: Expected a name that leaves room" in result.stderr
    assert len(names_of(tmp_path / "out")) == 4


def test_an_empty_path_is_not_the_current_folder(itaclip, tmp_path, monkeypatch):
    save_picture(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    result = itaclip("segment", "", "--classes", "cat")
    assert result.exit_code == 2
    assert "Expected a path, but got an empty one" in result.output
    assert [file.path for file in find_images([Path(".")], tmp_path / "out")] == [Path("image.png")]


@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_an_image_is_never_overwritten(segment, tmp_path, existing):
    first, second = save_picture(tmp_path / "a.png"), save_picture(tmp_path / "a_labels.png", 1)
    before = second.read_bytes()
    result = segment(first, second, "--out", tmp_path, "--existing", existing)
    assert result.exit_code == 2
    assert f"but {second} is an image itself. Use another --out." in result.stderr
    assert second.read_bytes() == before


@pytest.mark.parametrize("existing", ["overwrite", "skip"])
@pytest.mark.parametrize("name", ["photo_overlay.png", "photo.json"])
def test_files_of_others_are_never_overwritten(segment, photo, tmp_path, existing, name):
    file = tmp_path / "out" / name
    file.parent.mkdir()
    if name.endswith("png"):
        save_picture(file)
    else:
        file.write_text('{"camera": "mine"}')
    before = file.read_bytes()
    result = segment(photo, "--out", tmp_path / "out", "--existing", existing)
    assert result.exit_code == 2
    assert f"Expected {file} to be an earlier result, but it is another file" in result.stderr
    assert file.read_bytes() == before


def test_pictures_of_a_stopped_run_are_replaced(segment, photo, tmp_path):
    segment(photo, "--out", tmp_path / "out")
    (tmp_path / "out" / "photo.json").unlink()
    result = segment(photo, "--out", tmp_path / "out", "--existing", "skip")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "photo.json").exists()


def test_results_of_other_settings_or_of_none_are_not_skipped(segment, photo, tmp_path):
    segment(photo, "--out", tmp_path / "out")
    result = segment(photo, "--out", tmp_path / "out", "--existing", "skip", "--score-threshold", 0.5)
    assert (result.exit_code, "or other settings" in result.stderr) == (2, True)
    file = tmp_path / "out" / "photo.json"
    content = json.loads(file.read_text())
    content["settings"].pop("score_threshold")  # as an older version wrote it
    file.write_text(json.dumps(content))
    result = segment(photo, "--out", tmp_path / "out", "--existing", "skip")
    assert (result.exit_code, "or other settings" in result.stderr) == (2, True)


def test_a_full_disk_is_told_with_the_file(segment, photo, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("itaclip_hf.files.os.fsync", fail)
    result = segment(photo, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"No space left on device: '{tmp_path / 'out' / 'photo_labels.png'}'" in result.stderr
    assert names_of(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_name_of_broken_bytes_is_segmented_and_shown(checkpoint, photo, tmp_path):
    strange = os.fsencode(tmp_path) + b"/caf\xe9.png"
    os.rename(photo, strange)
    process = start_program(checkpoint, os.fsdecode(strange), "--out", tmp_path / "out")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert rb"caf\udce9.png -> " in printed
    description = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert description["image"] == os.fsdecode(strange)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, b"Interrupted"), (signal.SIGTERM, 143, b"Terminated")]
)
def test_a_signal_ends_with_a_line_that_says_how_to_go_on(checkpoint, tmp_path, number, code, word):
    images = [save_picture(tmp_path / f"{index}.png", index) for index in range(150)]
    process = start_program(checkpoint, *images, "--out", tmp_path / "out")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    printed, errors = process.communicate()
    assert process.returncode == code, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(word + b". ")
    assert last.endswith(b"To go on, run it again with --existing skip.")
    assert b"Traceback" not in errors
    done = len(printed.splitlines())
    assert f" {done} of 150 images are done, not {tmp_path}".encode() in last
    assert not list((tmp_path / "out").glob(".*"))
