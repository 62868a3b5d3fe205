"""`itaclip segment` on GeoTIFFs: place, bands, values and memory, read back by rasterio itself."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

rasterio = pytest.importorskip("rasterio", reason="pip install itaclip_hf[raster]")

from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

PLACE = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_700_000, 0.2, 0.2)}
FAST = ("--preset", "live", "--pamr-steps", "2", "--classes", "cat; dog; sky")


def draw_bands(height, width, bands=3, seed=0):
    """Blotches, (bands, height, width)."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 20 + 1, width // 20 + 1, bands), dtype=np.uint8)
    planes = [np.asarray(Image.fromarray(plane).resize((width, height))) for plane in np.moveaxis(coarse, -1, 0)]
    return np.stack(planes)


def save_raster(path, values, **profile):
    count, height, width = values.shape
    size = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    place = {} if "gcps" in profile else PLACE
    with rasterio.open(path, "w", driver="GTiff", **{**place, **size, **profile}) as file:
        file.write(values)
    return path


def read_raster(path):
    with rasterio.open(path) as file:
        return file.read(1), file.profile


@pytest.fixture
def segment(itaclip, checkpoint, tmp_path):
    """Runs `itaclip segment` fast and into tmp_path / "out"."""
    options = ["--model", checkpoint, "--out", tmp_path / "out", *FAST]
    return lambda *arguments: itaclip("segment", *arguments, *options)


def test_a_geotiff_keeps_its_place(segment, tmp_path):
    bands = draw_bands(150, 200)
    save_raster(tmp_path / "field.tif", bands)
    result = segment(tmp_path / "field.tif", "--confidence", "--tile", "64")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "field.json", "field_confidence.tif", "field_labels.tif", "field_overlay.png",
    ]  # fmt: skip
    labels, profile = read_raster(out / "field_labels.tif")
    assert (profile["crs"], profile["transform"]) == (PLACE["crs"], PLACE["transform"])
    assert (profile["dtype"], profile["nodata"], labels.shape) == ("uint8", 255, (150, 200))
    with rasterio.open(out / "field_labels.tif") as file:
        assert [file.tags(1)[f"CLASS_{label}"] for label in range(3)] == ["cat", "dog", "sky"]
        assert len({file.colormap(1)[label] for label in range(3)}) == 3
    description = json.loads((out / "field.json").read_text())
    shares = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert [entry["share"] for entry in description["classes"]] == pytest.approx(shares, abs=1e-5)
    assert (description["bands"], description["stretch"]) == ([1, 2, 3], None)
    scores, profile = read_raster(out / "field_confidence.tif")
    assert (profile["dtype"], profile["transform"]) == ("uint16", PLACE["transform"])
    scores = (scores - 1.0) / 65534
    for entry in description["classes"]:
        if entry["share"]:
            assert entry["mean_score"] == pytest.approx(scores[labels == entry["id"]].mean(), abs=1e-4)
    assert "1 of 1 images are finished already" in segment(
        tmp_path / "field.tif", "--confidence", "--tile", "64", "--existing", "skip"
    ).stdout  # fmt: skip


def test_labels_are_those_of_the_same_picture_in_tiles(segment, tmp_path):
    bands = draw_bands(150, 200)
    save_raster(tmp_path / "field.tif", bands)
    Image.fromarray(np.moveaxis(bands, 0, -1)).save(tmp_path / "photo.png")
    segment(tmp_path / "field.tif", tmp_path / "photo.png", "--tile", "64")
    with Image.open(tmp_path / "out" / "photo_labels.png") as image:
        assert np.array_equal(np.array(image), read_raster(tmp_path / "out" / "field_labels.tif")[0])


def test_where_there_is_no_data_there_are_no_labels(segment, tmp_path):
    bands = draw_bands(300, 200).clip(1)
    bands[:, :120] = 0  # whole tiles, too
    bands[:, 200:220, 50:90] = 0
    save_raster(tmp_path / "declared.tif", bands, nodata=0)
    alpha = np.where((bands == 0).all(0, keepdims=True), 0, 255).astype(np.uint8)
    save_raster(tmp_path / "alpha.tif", np.concatenate([bands, alpha]), photometric="RGB", alpha="YES")
    result = segment(tmp_path / "declared.tif", tmp_path / "alpha.tif", "--tile", "64")
    assert result.exit_code == 0, result.output
    for name in ("declared", "alpha"):
        labels, profile = read_raster(tmp_path / "out" / f"{name}_labels.tif")
        assert np.array_equal(labels == profile["nodata"], (bands == 0).all(0))
        classes = json.loads((tmp_path / "out" / f"{name}.json").read_text())["classes"]
        assert sum(entry["share"] for entry in classes) == pytest.approx(1, abs=1e-5)


def test_bands_are_chosen(segment, tmp_path):
    bands = draw_bands(60, 80, 5)
    save_raster(tmp_path / "five.tif", bands, photometric="MINISBLACK")
    save_raster(tmp_path / "three.tif", bands[[4, 2, 0]])
    result = segment(tmp_path / "five.tif")
    assert result.exit_code == 1
    assert "Expected red, green and blue, but got 5 bands that do not say which they are" in result.stderr
    result = segment(tmp_path / "five.tif", "--bands", "5", "3", "9")
    assert "Expected bands from 1 to 5, but got 5 3 9" in result.stderr
    assert segment(tmp_path / "five.tif", "--bands", "5", "3", "1").exit_code == 0
    assert segment(tmp_path / "three.tif").exit_code == 0
    five, three = (read_raster(tmp_path / "out" / f"{name}_labels.tif")[0] for name in ("five", "three"))
    assert np.array_equal(five, three)


def test_16_bits_are_stretched_from_the_2nd_to_the_98th_percentile_and_said(segment, tmp_path):
    values = draw_bands(60, 80).astype(np.float64)
    low, high = (np.percentile(values, share, axis=(1, 2)) for share in (2, 98))
    stretched = ((values - low[:, None, None]) * (255 / (high - low)[:, None, None])).clip(0, 255).round()
    save_raster(tmp_path / "deep.tif", (values * 100 + 2000).astype(np.uint16))
    save_raster(tmp_path / "real.tif", (values / 100 - 3).astype(np.float32))
    save_raster(tmp_path / "eight.tif", stretched.astype(np.uint8))
    result = segment(*(tmp_path / f"{name}.tif" for name in ("deep", "real", "eight")))
    assert result.exit_code == 0, result.output
    deep, real, eight = (read_raster(tmp_path / "out" / f"{name}_labels.tif")[0] for name in ("deep", "real", "eight"))
    assert (deep == eight).mean() > 0.999 and (real == eight).mean() > 0.999
    stretch = json.loads((tmp_path / "out" / "deep.json").read_text())["stretch"]
    assert np.allclose(stretch, np.stack([low, high], axis=1) * 100 + 2000)
    assert f"Note: {tmp_path}/deep.tif has more than 8 bits; black to white are " in result.stderr


def test_values_that_single_precision_cannot_tell_apart_are_one_grey(segment, tmp_path):
    save_raster(tmp_path / "high.tif", 1e9 + draw_bands(40, 60) / 255)
    result = segment(tmp_path / "high.tif")
    assert result.exit_code == 0, result.output
    for low, high in json.loads((tmp_path / "out" / "high.json").read_text())["stretch"]:
        assert np.float32(high) > np.float32(low)


def test_ground_control_points_are_kept(segment, tmp_path):
    points = [
        GroundControlPoint(row, column, 10 + column / 100, 50 - row / 100)
        for row, column in ((0, 0), (59, 0), (0, 79))
    ]
    path = save_raster(tmp_path / "scan.tif", draw_bands(60, 80), gcps=points, crs="EPSG:4326")
    assert segment(path).exit_code == 0
    with rasterio.open(tmp_path / "out" / "scan_labels.tif") as file:
        found, crs = file.gcps
    assert crs == "EPSG:4326"
    assert [(point.row, point.col, point.x, point.y) for point in found] == [
        (point.row, point.col, point.x, point.y) for point in points
    ]


def test_what_is_no_raster_is_that_inputs_error(segment, photo, tmp_path):
    path = save_raster(tmp_path / "cut.tif", draw_bands(400, 300))
    path.write_bytes(path.read_bytes()[:9000])
    result = segment(path, photo)
    assert result.exit_code == 1
    assert f"{path}: Expected a raster that is whole" in result.stderr or f"{path}: Expected a raster" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "photo.json", "photo_labels.png", "photo_overlay.png",
    ]  # fmt: skip


def test_maps_of_a_stopped_run_are_replaced_and_those_of_others_stay(segment, tmp_path):
    path = save_raster(tmp_path / "field.tif", draw_bands(60, 80))
    assert segment(path).exit_code == 0
    description, labels = (tmp_path / "out" / f"field{end}" for end in (".json", "_labels.tif"))
    description.unlink()
    assert segment(path, "--existing", "skip").exit_code == 0
    description.unlink()
    save_raster(labels, draw_bands(60, 80))
    result = segment(path, "--existing", "skip")
    assert (result.exit_code, f"Expected {labels} to be an earlier result" in result.stderr) == (2, True)


def test_options_that_mean_nothing_for_a_raster_are_refused(segment, tmp_path):
    path = save_raster(tmp_path / "field.tif", draw_bands(60, 80))
    for options, message in (
        (("--format", "masks"), "Expected pictures with --format"),
        (("--shortest-edge", "100"), "Expected no --shortest-edge with --tile or a raster"),
    ):
        result = segment(path, *options)
        assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_plain_tiff_is_a_picture(segment, tmp_path):
    Image.fromarray(np.moveaxis(draw_bands(60, 80), 0, -1)).save(tmp_path / "photo.tif")
    assert segment(tmp_path / "photo.tif").exit_code == 0
    assert (tmp_path / "out" / "photo_labels.png").exists()


MEASURE = """
import resource, sys
from itaclip_hf.cli.main import app
try:
    app(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_any_picture_may_be_read_as_a_raster(segment, photo, tmp_path):
    result = segment(photo, "--bands", "1", "2", "3")
    assert result.exit_code == 0, result.output
    assert read_raster(tmp_path / "out" / "photo_labels.tif")[0].shape == (40, 60)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(checkpoint, tmp_path):
    peaks = []
    for height, width in ((1500, 2000), (6000, 8000)):
        path = save_raster(
            tmp_path / f"{width}.tif", np.tile(draw_bands(1500, 2000), (height // 1500, width // 2000)), tiled=True
        )
        options = ["--preset", "live", "--pamr-steps", "0", "--tile", "512", "--classes", "cat; dog"]
        arguments = ["segment", path, "--model", checkpoint, "--out", tmp_path / "out", "--dtype", "float32", *options]
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, *map(str, arguments)],
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout.splitlines()[-1]))
    labels, profile = read_raster(tmp_path / "out" / "8000_labels.tif")
    assert (labels.shape, profile["crs"]) == ((6000, 8000), PLACE["crs"])
    assert len(np.unique(labels)) == 2
    # MiB. Of the whole raster, pixels would take 137, class ids 366, scores 183; what is measured varies by 100.
    assert peaks[1] - peaks[0] < 300, peaks
