"""What docs/take_along.md prints runs as printed, and its figures are those of the code."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from itaclip_hf import ITACLIPConfig
from itaclip_hf.modeling.query_maps import cut_tiles
from itaclip_hf.modeling.windows import plan_windows

av = pytest.importorskip("av", reason="pip install itaclip_hf[video]")
rasterio = pytest.importorskip("rasterio", reason="pip install itaclip_hf[raster]")
pytest.importorskip("pycocotools", reason="pip install itaclip_hf[formats]")

PAGE = (Path(__file__).parents[2] / "docs" / "take_along.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?<!-->\n)^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ itaclip (.*)$", "".join(BLOCKS).replace("\\\n", " "), re.MULTILINE)


@pytest.fixture
def user_folder(tmp_path, monkeypatch, photo):
    """What the page speaks of."""
    (tmp_path / "folder").mkdir()
    photo.rename(tmp_path / "photo.jpg")
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(500_000, 5_700_000, 10, 10)}
    for name, bands in (("field", 3), ("scene", 4)):
        values = np.random.default_rng(0).integers(0, 255, (bands, 60, 70), dtype=np.uint8)
        size = {"count": bands, "height": 60, "width": 70, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **size, **place) as file:
            file.write(values)
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(6):
            file.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), "green"))))
        file.mux(stream.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run(user_folder, itaclip, checkpoint):
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        result = itaclip(*shlex.split(command), "--model", checkpoint)
        assert result.exit_code == 0, result.output
    written = {path.relative_to(user_folder).as_posix() for path in user_folder.rglob("*")}
    assert written >= {
        "native/photo_labels.png", "map/field_labels.tif", "map/scene_confidence.tif", "video/clip_labels/000005.png",
        "video/clip_overlay.mp4", "drafts/coco.json", "drafts/yolo/data.yaml", "drafts/masks/photo",
    }  # fmt: skip


@pytest.mark.parametrize(("preset", "stride"), [("paper", 28), ("balanced", 56), ("fast", 112)])
def test_numbers_of_windows_are_those_of_the_code(preset, stride):
    config, size = ITACLIPConfig(window_stride=stride), (6000, 8000)
    counts = [plan_windows(each, 224, stride).num_windows for each in ((336, 448), size)]
    for side in (1024, 2048):
        reaches = [tile.reach for tile in cut_tiles(size, side, config.tile_overlap, config.tile_step)]
        sizes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in reaches]
        counts.append(sum(plan_windows(each, 224, stride).num_windows for each in sizes))
    assert f"| `{preset}` | " + " | ".join(f"{count:,}" for count in counts) + " |" in PAGE
    assert f"({config.tile_overlap} pixels with the paper's" in PAGE
