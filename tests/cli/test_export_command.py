"""`itaclip export`: a checkpoint with words and settings of the command line as an ONNX file."""

import json

import onnxruntime
import pytest


@pytest.mark.slow
def test_words_and_settings_go_into_the_files(itaclip, checkpoint, tmp_path):
    out = tmp_path / "out"
    words = ["--classes", "cat; dog, puppy", "--background", "sky"]
    result = itaclip("export", checkpoint, "--format", "onnx", "--out", out, "--method", "sclip", "--window-size", 64,
                     "--window-stride", 32, *words)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"{out / 'vision.onnx'}: 4 queries of 3 classes, pieces of 64 x 64 pixels; at most" in result.output
    description = json.loads((out / "vision.json").read_text())
    assert description["labels"] == ["background", "cat", "dog"]
    assert description["settings"]["window_stride"] == 32 and description["settings"]["intermediate_layers"] == []
    (given,) = onnxruntime.InferenceSession(out / "vision.onnx").get_inputs()
    assert given.shape == ["batch", 3, 64, 64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "480"], "Expected `--image-size` like 480x640"),
        (["--image-size", "0x640"], "Expected `--image-size` like 480x640"),
        (["--image-size", f"480x{10**9}"], "height first, each up to 9999, but got"),
        (
            ["--image-size", "480x640", "--classes", "cat"],
            "Expected an --image-size that changes something, but got 480x640",
        ),
        ([], "Expected a model with a vocabulary, but it has none. Name the classes"),
        (["--classes", "cat", "--format", "tflite"], "Invalid value for '--format'"),
    ],
)
def test_wrong_use_is_told_and_nothing_written(itaclip, checkpoint, tmp_path, options, message):
    result = itaclip("export", checkpoint, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_of_somebody_else_stays(itaclip, checkpoint, tmp_path):
    (tmp_path / "vision.onnx").write_text("mine")
    result = itaclip("export", checkpoint, "--out", tmp_path, "--classes", "cat", "--preset", "live")
    assert result.exit_code == 2 and "Expected" in result.output
    assert (tmp_path / "vision.onnx").read_text() == "mine"
