"""`itaclip segment` with large images, with many pictures in a file, and with addresses on the web."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from itaclip_hf.loading import load
from itaclip_hf.media import addresses
from itaclip_hf.media.addresses import name_address
from itaclip_hf.media.tiles import segment_tiles
from itaclip_hf.modeling.query_maps import cut_tiles
from itaclip_hf.processing import Vocabulary, open_image

CLASSES = ("--classes", "cat; dog; sky; grass")


def draw_pixels(height, width, seed=0):
    """Blotches, so that windows differ and refinement has borders to find."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def segment(itaclip, checkpoint, tmp_path):
    """Runs `itaclip segment` fast and into tmp_path / "out"."""
    options = ["--model", checkpoint, "--preset", "live", "--out", tmp_path / "out", *CLASSES]
    return lambda *arguments: itaclip("segment", *arguments, *options)


def list_names(folder):
    return sorted(path.stem for path in folder.glob("*.json"))


def read_png(path):
    with Image.open(path) as image:
        return np.array(image)


def show_steps(steps, total, what):
    return steps


@pytest.mark.parametrize("area_threshold", [None, 0.3])
@pytest.mark.parametrize("pamr_steps", [0, 2])
def test_tiles_are_the_whole_image(checkpoint, area_threshold, pamr_steps):
    height, width = 230, 310
    settings = {"window_size": 64, "window_stride": 24, "pamr_steps": pamr_steps, "pamr_dilations": (2, 4)}
    settings |= {"shortest_edge": height, "area_threshold": area_threshold}
    loaded = load(checkpoint, Vocabulary(["cat", "dog", "sky", "grass"]), settings=settings, dtype="float32")
    model, processor = loaded
    pixels = draw_pixels(height, width)
    whole = model.predict_labels(processor, **processor(images=pixels, return_tensors="pt"))
    labels, scores = np.full((height, width), -1), np.zeros((height, width))
    reads = []

    def read(rows, columns):
        reads.append((rows, columns))
        return pixels[rows, columns]

    for core, *found in segment_tiles(read, (height, width), loaded, 70, show_steps):
        assert (labels[core] == -1).all()
        labels[core], scores[core] = found
    assert len(reads) == (40 if area_threshold else 20)  # 4 x 5 tiles, looked at twice for the shares of classes
    assert len(np.unique(labels)) > 1
    assert np.abs(scores - whole.confidence[0].numpy()).max() < 1e-5
    assert (labels == whole.labels[0].numpy()).mean() > 0.9999


@pytest.mark.parametrize(
    ("size", "side", "halo", "step"), [((100, 61), 30, 17, 8), ((10, 300), 64, 5, 1), ((9, 9), 4, 9, 6)]
)
def test_cut_tiles_cover_an_image_once_and_begin_at_steps(size, side, halo, step):
    covered = np.zeros(size, dtype=int)
    for tile in cut_tiles(size, side, halo, step):
        covered[tile.core] += 1
        for core, reach, length in zip(tile.core, tile.reach, size, strict=True):
            assert core.start % step == reach.start % step == 0
            assert core.stop - core.start <= side + step
            assert (reach.start == 0 or core.start - reach.start >= halo) and reach.start >= 0
            assert (reach.stop == length or reach.stop - core.stop >= halo) and reach.stop <= length
    assert (covered == 1).all()


def test_a_picture_is_done_in_tiles_at_its_own_resolution(segment, checkpoint, tmp_path):
    Image.fromarray(draw_pixels(150, 200)).save(tmp_path / "photo.png")
    result = segment(tmp_path / "photo.png", "--tile", "64", "--confidence")
    assert result.exit_code == 0, result.output
    description = json.loads((tmp_path / "out" / "photo.json").read_text())
    assert description["settings"]["tile"] == 64
    assert sum(entry["share"] for entry in description["classes"]) == pytest.approx(1, abs=1e-5)
    for name in ("labels", "confidence"):
        assert read_png(tmp_path / "out" / f"photo_{name}.png").shape == (150, 200)


def test_sizes_with_tiles_are_refused(segment, photo):
    result = segment(photo, "--tile", "64", "--shortest-edge", "100")
    assert (result.exit_code, "Expected no --shortest-edge with --tile" in result.stderr) == (2, True)


def test_a_large_image_that_is_scaled_down_is_said_once(segment, tmp_path):
    for name in ("first", "second"):
        Image.fromarray(draw_pixels(120, 160)).save(tmp_path / f"{name}.png")
    result = segment(tmp_path / "first.png", tmp_path / "second.png", "--shortest-edge", "48")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert line.startswith(f"Note: {tmp_path}/first.png has 120 x 160 pixels, and the model sees 48 x 64.")
    assert "add --tile 1024" in line
    assert "Note: " not in segment(tmp_path / "first.png", "--existing", "overwrite").stderr


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_every_picture_of_a_file_is_done(segment, checkpoint, tmp_path, suffix):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue", "white")]
    frames[0].save(tmp_path / f"many.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    for number, frame in enumerate(frames, 1):
        frame.save(tmp_path / f"single_{number}.png")
    result = segment(tmp_path / f"many.{suffix}", *sorted(tmp_path.glob("single*")))
    assert result.exit_code == 0, result.output
    names = [f"{name}{number}" for name in ("many_000", "single_") for number in (1, 2, 3)]
    assert list_names(tmp_path / "out") == names
    description = json.loads((tmp_path / "out" / "many_0002.json").read_text())
    assert description["image"] == f"{tmp_path}/many.{suffix} [2]"
    for number in (1, 2, 3):
        overlays = (read_png(tmp_path / "out" / f"{name}{number}_overlay.png") for name in ("many_000", "single_"))
        assert np.array_equal(*overlays)


@pytest.mark.parametrize("pages", [[((60, 40), 0), ((30, 20), 1)], [((30, 20), 1), ((60, 40), 0)]])
def test_smaller_copies_in_a_tiff_are_no_pictures(segment, tmp_path, pages):
    with AppendingTiffWriter(str(tmp_path / "one.tif"), new=True) as file:
        for size, kind in pages:
            Image.new("RGB", size).save(file, "TIFF", tiffinfo={254: kind})
            file.newFrame()
    assert segment(tmp_path / "one.tif").exit_code == 0
    assert list_names(tmp_path / "out") == ["one"]
    assert read_png(tmp_path / "out" / "one_labels.png").shape == (40, 60)
    assert open_image(tmp_path / "one.tif").size == (60, 40)


def test_what_a_camera_puts_behind_a_photograph_is_no_picture(segment, tmp_path):
    preview = Image.new("RGB", (30, 20))
    Image.new("RGB", (60, 40)).save(tmp_path / "one.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "one.jpg") as image:
        assert image.n_frames == 2
    assert segment(tmp_path / "one.jpg").exit_code == 0
    assert list_names(tmp_path / "out") == ["one"]


def test_many_pictures_behind_the_name_of_one_are_refused(segment, tmp_path):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    result = segment(tmp_path / "moving.png")
    assert result.exit_code == 1
    assert f"{tmp_path}/moving.png: Expected one picture, but it has 2." in result.stderr


@pytest.fixture
def website(monkeypatch):
    """A server on this machine; pages are what the test puts into it: bytes, or a status."""
    pages = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = pages.get(self.path, 404)
            if isinstance(content, int):
                self.send_error(content)
                return
            self.send_response(200)
            declared = len(content) + (5 if "cut" in self.path else 0)
            self.send_header("Content-Length", str(declared))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield pages, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_images_at_addresses_are_done(segment, website, photo, tmp_path):
    pages, site = website
    pages["/my%20cat.jpg?size=1//2"] = photo.read_bytes()
    address = f"{site}/my%20cat.jpg?size=1//2"
    result = segment(address, photo)
    assert result.exit_code == 0, result.output
    assert list_names(tmp_path / "out") == ["my_cat", "photo"]
    assert json.loads((tmp_path / "out" / "my_cat.json").read_text())["image"] == address
    assert (tmp_path / "out" / "my_cat_labels.png").read_bytes() == (
        tmp_path / "out" / "photo_labels.png"
    ).read_bytes()
    assert "1 of 1 images are finished already" in segment(address, "--existing", "skip").stdout


def test_what_is_wrong_with_an_address_is_that_images_error(segment, website, photo, tmp_path, monkeypatch):
    pages, site = website
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    pages |= {"/text.jpg": b"no image", "/cut.png": photo.read_bytes(), "/large.png": bytes(2**21), "/gone": 410}
    pages["/moving.gif"] = moving.getvalue()
    with io.BytesIO() as file:
        Image.new("RGB", (60, 40)).save(
            file, "TIFF", tiffinfo={33550: (1.0, 1.0, 0.0)}
        )  # the size of a pixel on Earth
        pages["/map.tif"] = file.getvalue()
    monkeypatch.setattr(addresses, "LARGEST_DOWNLOAD", 2**20)
    expected = {
        "text.jpg": "Expected an image in JPEG, PNG",
        "none.jpg": "but got: Not Found",
        "gone": "but got: Gone",
        "cut.png": "as the connection broke",
        "large.png": "Expected at most 1 MiB, but got more",
        "moving.gif": "Expected one picture, but it has 2",
        "map.tif": "Expected a picture, but it is a map",
    }
    result = segment(*(f"{site}/{name}" for name in expected), "http://127.0.0.1:1/no.jpg", "http://[", photo)
    assert result.exit_code == 1
    for name, message in expected.items():
        assert any(f"{site}/{name}: " in line and message in line for line in result.stderr.splitlines()), name
    assert "http://127.0.0.1:1/no.jpg: Expected an image at this address" in result.stderr
    assert list_names(tmp_path / "out") == ["photo"]


def test_an_answer_that_takes_too_long_is_given_up(website, monkeypatch):
    pages, site = website
    pages["/slow.png"] = bytes(10)
    monkeypatch.setattr(addresses, "SECONDS_IN_ALL", -1)
    with pytest.raises(OSError, match="Expected it within -1 seconds, but got a part"):
        addresses.fetch(f"{site}/slow.png")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://a.org/x/cat.jpg", "cat"),
        ("https://a.org/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://a.org/%2e%2e", "image"),
        ("https://a.org", "image"),
        ("https://a.org/a%00b%0A$(rm).png", "a_b_rm"),
        (f"https://a.org/{'x' * 300}.png", "x" * 100),
    ],
)
def test_names_of_addresses_are_safe(address, name):
    assert name_address(address) == name
