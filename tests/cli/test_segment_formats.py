"""What `itaclip segment --format` writes, read by the readers of others: COCO's own, PIL's polygons, YAML."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

pytest.importorskip("pycocotools", reason="pip install itaclip_hf[formats]")

from pycocotools.coco import COCO

from itaclip_hf.media import Finished, ImageFile, ResultFiles, coco, masks, yolo
from itaclip_hf.media.outlines import find_parts, join_rings, trace_rings

# The library's compiled reader has an array type that NumPy 2 wants a keyword of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NAMES = ("background", "cat", "cup/of coffee", "sky")
LABELS = {
    "blotches": np.repeat(np.repeat(np.random.default_rng(0).integers(0, 4, (7, 9)), 5, 0), 4, 1),
    "noise": np.random.default_rng(1).integers(0, 4, (20, 30)),
    "rings": np.pad(np.pad(np.pad(np.full((6, 6), 3), 4, constant_values=1), 5, constant_values=2), 3),
    "one": np.full((12, 10), 2),
    "none": np.zeros((8, 9), dtype=int),
}


def fill(rings, size):
    """Polygons in integers as PIL fills them: points on the border belong to them, so corners go to pixel centres."""
    scale = 8
    image = Image.new("1", (size[1] * scale, size[0] * scale))
    for ring in rings:
        ImageDraw.Draw(image).polygon([tuple(corner) for corner in (np.asarray(ring) * scale).tolist()], fill=1)
    return np.array(image)[scale // 2 :: scale, scale // 2 :: scale]


def compute_area(ring):
    """With a sign that says which way round it runs."""
    x, y = ring.T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


@pytest.fixture
def finished(tmp_path):
    """Results on disk, as the command leaves them."""

    def make(name, labels, has_background=True):
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{name}_labels.png")
        Image.new("RGB", labels.shape[::-1]).save(tmp_path / f"{name}.png")
        names = NAMES if has_background else ("tree", *NAMES[1:])
        shares = np.bincount(labels.ravel(), minlength=4) / labels.size
        classes = [
            {"id": id, "name": name, "share": share, "mean_score": 0.25 * id if share else None}
            for id, (name, share) in enumerate(zip(names, shares, strict=True))
        ]
        description = {"height": labels.shape[0], "width": labels.shape[1], "classes": classes}
        results = ResultFiles(*(tmp_path / f"{name}_{part}.png" for part in ("labels", "overlay", "scores", "json")))
        file = ImageFile(tmp_path / f"{name}.png", tmp_path.relative_to(tmp_path) / name)
        return Finished(file, results, description)

    return make


@pytest.mark.parametrize("name", LABELS)
def test_parts_are_the_connected_regions(name):
    labels = LABELS[name]
    rebuilt = np.zeros_like(labels)
    for part in find_parts(labels, has_background=True):
        height, width = part.mask.shape
        there = rebuilt[part.top : part.top + height, part.left : part.left + width]
        assert not (there[part.mask] != 0).any()
        there[part.mask] = part.label
    assert np.array_equal(rebuilt, labels)


@pytest.mark.parametrize("name", LABELS)
def test_outlines_hold_their_part_exactly(name):
    for part in find_parts(LABELS[name], has_background=False):
        rings = [ring - (part.left, part.top) for ring in trace_rings(part)]
        holes = fill(rings[1:], part.mask.shape)
        assert np.array_equal(fill(rings[:1], part.mask.shape) & ~holes, part.mask)
        assert [compute_area(ring) > 0 for ring in rings] == [True] + [False] * (len(rings) - 1)
        assert compute_area(join_rings(rings)) == sum(map(compute_area, rings)) == part.mask.sum()
        cut = fill([join_rings(rings)], part.mask.shape)
        assert (cut != part.mask).mean() < 0.1 if len(rings) > 1 else np.array_equal(cut, part.mask)


@pytest.mark.parametrize("has_background", [True, False])
def test_coco_reads_back_the_label_maps(finished, tmp_path, has_background):
    results = [finished(name, labels, has_background) for name, labels in LABELS.items()]
    coco.write(results, tmp_path / "coco.json")
    data = COCO(tmp_path / "coco.json")
    shift = 0 if has_background else 1
    names = {entry["id"]: entry["name"] for entry in data.loadCats(data.getCatIds())}
    assert (
        names == {1: "cat", 2: "cup/of coffee", 3: "sky"}
        if has_background
        else {1: "tree", 2: "cat"}.items() <= names.items()
    )
    kinds = set()
    for image, result in zip(data.loadImgs(data.getImgIds()), results, strict=True):
        assert image["file_name"] == str(result.file)
        labels = result.read_labels()
        rebuilt, covered = np.zeros_like(labels), np.zeros(labels.shape, dtype=int)
        for annotation in data.loadAnns(data.getAnnIds(image["id"])):
            mask = data.annToMask(annotation).astype(bool)
            rebuilt[mask] = annotation["category_id"] - shift
            covered += mask
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) == (left, top, width, height)
            assert annotation["score"] == 0.25 * (annotation["category_id"] - shift)
            kinds.add(type(annotation["segmentation"]))
        assert np.array_equal(rebuilt, labels)
        assert covered.max() <= 1
    assert kinds == {list, dict}


def test_cocos_own_reader_of_results_takes_them(finished, tmp_path):
    coco.write([finished(name, labels) for name, labels in LABELS.items()], tmp_path / "coco.json")
    truth = COCO(tmp_path / "coco.json")
    keys = ("image_id", "category_id", "score")
    entries = [
        {**{key: annotation[key] for key in keys}, "segmentation": truth.annToRLE(annotation)}
        for annotation in truth.loadAnns(truth.getAnnIds())
    ]
    found = truth.loadRes(entries)
    assert [a["area"] for a in found.loadAnns(found.getAnnIds())] == [
        a["area"] for a in truth.loadAnns(truth.getAnnIds())
    ]


def test_yolo_polygons_are_the_label_maps(finished, tmp_path):
    results = [finished(name, labels) for name, labels in LABELS.items()]
    yolo.write(results, tmp_path / "yolo")
    data = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert data["names"] == {0: "cat", 1: "cup/of coffee", 2: "sky"}
    assert data["path"] == str(tmp_path / "yolo") and data["train"] == data["val"] == "images"
    for result in results:
        name = result.file.result_name
        size = result.size
        assert (tmp_path / "yolo" / "images" / f"{name}.png").resolve() == result.file.path
        rebuilt = np.zeros(size, dtype=int)
        for line in (tmp_path / "yolo" / "labels" / f"{name}.txt").read_text().splitlines():
            label, *values = line.split()
            corners = np.array(values, dtype=float).reshape(-1, 2)
            assert corners.min() >= 0 and corners.max() <= 1
            rebuilt[fill([(corners * size[::-1]).round()], size)] = int(label) + 1
        assert (rebuilt != result.read_labels()).mean() <= 0.05  # PIL paints the cuts to the holes, too


def test_masks_are_one_of_each_class_that_is_there(finished, tmp_path):
    labels = LABELS["rings"]
    masks.write([finished("rings", labels)], tmp_path / "masks")
    files = sorted((tmp_path / "masks" / "rings").iterdir())
    assert [file.name for file in files] == ["001_cat.png", "002_cup_of_coffee.png", "003_sky.png"]
    for label, file in enumerate(files, 1):
        with Image.open(file) as image:
            assert np.array_equal(np.array(image), 255 * (labels == label))


def test_masks_and_labels_of_classes_that_are_gone_go_with_them(finished, tmp_path):
    def rename(result):
        for entry in result.description["classes"]:
            entry["name"] = entry["name"].replace("cat", "car").replace("sky", "sea")
        return result

    masks.write([finished("rings", LABELS["rings"])], tmp_path / "masks")
    masks.write([rename(finished("rings", LABELS["rings"]))], tmp_path / "masks")
    assert len(list((tmp_path / "masks" / "rings").iterdir())) == 3
    names = list(LABELS)[:2]
    yolo.write([finished(name, LABELS[name]) for name in names], tmp_path / "yolo")
    yolo.write([finished(names[0], LABELS[names[0]])], tmp_path / "yolo")  # the same classes: the other image stays
    kept = len(list((tmp_path / "yolo" / "labels").iterdir()))
    yolo.write([rename(finished(names[0], LABELS[names[0]]))], tmp_path / "yolo")
    assert (kept, [path.stem for path in (tmp_path / "yolo" / "labels").iterdir()]) == (2, names[:1])


def test_masks_of_long_names_of_any_script_have_files(finished, tmp_path):
    result = finished("rings", LABELS["rings"])
    for entry in result.description["classes"]:
        entry["name"] = 120 * "猫"  # of three bytes each
    masks.write([result], tmp_path)
    names = sorted(file.name for file in (tmp_path / "rings").iterdir())
    assert names == [f"{label:03}_{33 * '猫'}.png" for label in np.unique(LABELS["rings"])]


def test_the_command_writes_all_formats_of_all_images(itaclip, checkpoint, photo, tmp_path):
    frames = [Image.new("RGB", (60, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "many.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.png").write_bytes(b"no image")
    options = ["--model", checkpoint, "--preset", "live", "--classes", "cat; sky", "--out", tmp_path / "out"]
    formats = ["--format", "coco", "--format", "yolo", "--format", "masks"]
    images = [photo, tmp_path / "many.gif"]
    assert itaclip("segment", photo, *options).exit_code == 0
    result = itaclip("segment", *images, tmp_path / "broken.png", *options, *formats, "--existing", "skip")
    assert result.exit_code == 1, result.output  # one is broken
    data = json.loads((tmp_path / "out" / "coco.json").read_text())
    shown = [str(photo), *(f"{tmp_path}/many.gif [{frame}]" for frame in (1, 2))]
    assert [image["file_name"] for image in data["images"]] == shown
    names = ["many_0001", "many_0002", "photo"]
    for folder in ("yolo/images", "yolo/labels", "masks"):
        assert sorted(path.stem for path in (tmp_path / "out" / folder).iterdir()) == names
    again = itaclip("segment", *images, *options, *formats, "--existing", "overwrite")
    assert again.exit_code == 0, again.output


def test_a_data_set_of_others_is_never_overwritten(itaclip, checkpoint, photo, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "coco.json").write_text("{}")
    options = ["--model", checkpoint, "--preset", "live", "--classes", "cat", "--out", tmp_path / "out"]
    result = itaclip("segment", photo, *options, "--format", "coco", "--existing", "overwrite")
    assert (result.exit_code, "coco.json to be an earlier result, but it is another file" in result.stderr) == (
        2,
        True,
    )
    assert (tmp_path / "out" / "coco.json").read_text() == "{}"


def test_a_data_set_is_not_replaced_by_that_of_other_images(itaclip, checkpoint, photo, tmp_path):
    options = ["--model", checkpoint, "--preset", "live", "--classes", "cat", "--out", tmp_path / "out"]
    other = photo.with_name("other.png")
    other.write_bytes(photo.read_bytes())
    assert itaclip("segment", photo, *options, "--format", "masks").exit_code == 0
    result = itaclip("segment", other, *options, "--format", "masks")
    assert (result.exit_code, f"Expected no {tmp_path / 'out' / 'masks'} yet" in result.stderr) == (2, True)
    named_so = photo.rename(photo.with_name("coco.png"))
    result = itaclip("segment", named_so, *options, "--format", "coco")
    assert (result.exit_code, "Expected images that leave the name coco.json" in result.stderr) == (2, True)


def test_what_is_not_installed_is_one_sentence(itaclip, checkpoint, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "itaclip_hf.media.coco", None)
    options = ["--model", checkpoint, "--classes", "cat", "--out", tmp_path / "out", "--format", "coco"]
    result = itaclip("segment", photo, *options)
    assert (result.exit_code, "pip install 'itaclip_hf[formats]'" in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
