"""`itaclip segment` on videos: clips made here, and what comes out decoded by FFmpeg."""

import json
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="pip install itaclip_hf[video]")

SIZE = (48, 65)  # one odd side
FAST = ("--preset", "live", "--pamr-steps", "0", "--classes", "cat; dog; sky")


def draw_frames(count, size=SIZE):
    coarse = np.random.default_rng(0).integers(0, 255, (count, 4, 5, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC)) for frame in coarse]


def save_clip(path, frames, times, codec="ffv1", pixel_format="bgr0"):
    """A clip without losses, its frames at times in tenths of a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 10)
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def read_clip(path):
    with av.open(str(path)) as file:
        frames = file.decode(video=0)
        return [(float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")) for frame in frames]


def read_png(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def segment(itaclip, checkpoint, tmp_path):
    """Runs `itaclip segment` fast and into tmp_path / "out"."""
    options = ["--model", checkpoint, "--out", tmp_path / "out", *FAST]
    return lambda *arguments: itaclip("segment", *arguments, *options)


def test_every_frame_is_segmented_as_the_picture_that_it_is(segment, tmp_path):
    frames, times = draw_frames(4), [0, 1, 5, 6]  # the second one stays longer
    save_clip(tmp_path / "clip.mkv", frames, times)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number:06}.png")
    result = segment(tmp_path / "clip.mkv", *sorted(tmp_path.glob("0*.png")), "--confidence")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    for name in ("labels", "confidence"):
        found = sorted((out / f"clip_{name}").iterdir())
        assert [path.name for path in found] == [f"{number:06}.png" for number in range(4)]
        for path in found:
            assert np.array_equal(read_png(path), read_png(out / f"{path.stem}_{name}.png"))
    description = json.loads((out / "clip.json").read_text())
    assert (description["frames"], description["height"], description["width"]) == (4, *SIZE)
    labels = np.stack([read_png(path) for path in sorted((out / "clip_labels").iterdir())])
    shares = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert [entry["share"] for entry in description["classes"]] == pytest.approx(shares, abs=1e-5)

    overlays = read_clip(out / "clip_overlay.mp4")
    assert [time for time, _ in overlays] == pytest.approx([0, 0.1, 0.5, 0.6], abs=1e-3)
    for number, (_, pixels) in enumerate(overlays):
        assert pixels.shape == (48, 66, 3)
        expected = read_png(out / f"{number:06}_overlay.png")[:, :65]  # the legend is beside it
        assert np.abs(pixels[:, :65].astype(float) - expected).mean() < 12  # H.264 halves the resolution of colours


def test_every_so_many_frames(segment, tmp_path):
    save_clip(tmp_path / "clip.mkv", draw_frames(7), range(7))
    result = segment(tmp_path / "clip.mkv", "--every", "3")
    assert result.exit_code == 0, result.output
    labels = sorted((tmp_path / "out" / "clip_labels").iterdir())
    assert [path.name for path in labels] == ["000000.png", "000003.png", "000006.png"]
    assert [time for time, _ in read_clip(tmp_path / "out" / "clip_overlay.mp4")] == pytest.approx([0, 0.3, 0.6])
    assert "1 of 1 images are finished" in segment(tmp_path / "clip.mkv", "--every", "3", "--existing", "skip").stdout
    assert segment(tmp_path / "clip.mkv", "--every", "5", "--existing", "overwrite").exit_code == 0
    labels = sorted((tmp_path / "out" / "clip_labels").iterdir())
    assert [path.name for path in labels] == ["000000.png", "000005.png"]


def test_a_film_from_a_telephone_is_turned_upright(segment, tmp_path):
    frames = draw_frames(1, (48, 64))
    path = save_clip(tmp_path / "turned.mp4", frames, [0], "libx264rgb", "rgb24")
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: so many bytes before the matrix
    content[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 * 65536, 0, 1 << 30)
    path.write_bytes(content)  # to be shown with its left side up
    Image.fromarray(np.rot90(read_clip(path)[0][1], -1)).save(tmp_path / "upright.png")
    assert segment(path, tmp_path / "upright.png").exit_code == 0
    expected = read_png(tmp_path / "out" / "upright_labels.png")
    assert expected.shape == (64, 48)
    assert np.array_equal(read_png(tmp_path / "out" / "turned_labels" / "000000.png"), expected)


def test_a_stopped_run_leaves_no_video_and_can_go_on(segment, tmp_path, monkeypatch):
    save_clip(tmp_path / "clip.mkv", draw_frames(4), range(4))
    from itaclip_hf.media import videos

    segment_frame, done = videos.segment_picture, []

    def stop_at_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return segment_frame(*arguments)

    monkeypatch.setattr(videos, "segment_picture", stop_at_third)
    result = segment(tmp_path / "clip.mkv")
    assert result.exit_code == 130
    assert "run it again with --existing skip" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip_labels"]
    monkeypatch.setattr(videos, "segment_picture", segment_frame)
    assert segment(tmp_path / "clip.mkv", "--existing", "skip").exit_code == 0
    assert len(read_clip(tmp_path / "out" / "clip_overlay.mp4")) == 4


def test_what_is_no_video_is_that_inputs_error(segment, photo, tmp_path):
    whole = save_clip(tmp_path / "whole.mkv", draw_frames(3), range(3))
    (tmp_path / "text.mp4").write_text("no video")
    with av.open(str(tmp_path / "sound.mkv"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    result = segment(tmp_path / "text.mp4", tmp_path / "none.mp4", tmp_path / "sound.mkv", whole)
    assert result.exit_code == 1
    assert f"{tmp_path}/text.mp4: Expected a video, but got: " in result.stderr
    assert f"{tmp_path}/none.mp4: Expected a video, but got: " in result.stderr
    assert f"{tmp_path}/sound.mkv: Expected a video, but it has no pictures" in result.stderr
    assert (tmp_path / "out" / "whole.json").exists()


def test_a_name_that_leaves_no_room_for_the_film_is_that_inputs_error(segment, tmp_path):
    too_long = save_clip(tmp_path / f"{'a' * 244}.mkv", draw_frames(1), range(1))
    result = segment(too_long, save_clip(tmp_path / "whole.mkv", draw_frames(1), range(1)))
    assert result.exit_code == 1
    assert f"{too_long}: Expected a name that leaves room" in result.stderr
    assert (tmp_path / "out" / "whole.json").exists()


def test_every_without_a_video_is_refused(segment, photo):
    result = segment(photo, "--every", "2")
    assert (result.exit_code, "Expected a video with --every, but got none" in result.stderr) == (2, True)
