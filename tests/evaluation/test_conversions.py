"""Conversions: Pascal Context from its annotations."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scripted_evaluation import write_image, write_labels

from itaclip_hf.evaluation.data.benchmarks import get_benchmark
from itaclip_hf.evaluation.data.conversions import CONTEXT_ANNOTATION_IDS, convert_pascal_context
from itaclip_hf.evaluation.data.segmentation_datasets import load_benchmark_dataset

scipy_io = pytest.importorskip("scipy.io")


def context_tree(root: Path, ids: np.ndarray, name: str = "LabelMap") -> Path:
    write_image(root / "VOC2010/JPEGImages/2008_000002.jpg", seed=1)
    (root / "trainval").mkdir()
    scipy_io.savemat(root / "trainval/2008_000002.mat", {name: ids.astype(np.uint16)})
    (root / "VOC2010/ImageSets/Main").mkdir(parents=True)
    (root / "VOC2010/ImageSets/Main/val.txt").write_text("2008_000002\n")
    return root / "trainval"


def test_context_keeps_59_classes_and_makes_the_rest_background(tmp_path: Path) -> None:
    ids = np.array([[1, 2, 284, 458, 459, 0, 440, 3]] * 6)  # aeroplane, person, wood and wall among others
    annotations = context_tree(tmp_path, ids)
    assert convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False) == 1
    labels = load_benchmark_dataset(get_benchmark("context60"), tmp_path).load(0).labels
    names = [get_benchmark("context60").vocabulary().labels[class_id] for class_id in labels[0]]
    assert names == ["background", "aeroplane", "person", "wood", "background", "background", "wall", "background"]


def test_context_ids_are_in_label_order() -> None:
    assert len(CONTEXT_ANNOTATION_IDS) == 59
    assert list(CONTEXT_ANNOTATION_IDS) == sorted(CONTEXT_ANNOTATION_IDS)


def test_the_list_of_names_is_held_against_the_ids(tmp_path: Path) -> None:
    annotations = context_tree(tmp_path, np.zeros((6, 8)))
    labels = get_benchmark("context59").vocabulary("none").labels
    published = {"tv monitor": "tvmonitor", "potted plant": "pottedplant"}
    lines = [f"{i}: {published.get(n, n)}" for i, n in zip(CONTEXT_ANNOTATION_IDS, labels, strict=True)]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    assert convert_pascal_context(annotations, tmp_path / "VOC2010", tmp_path / "labels.txt", show_progress=False) == 1
    (tmp_path / "labels.txt").write_text("\n".join(lines).replace("2: aeroplane", "2: zebra"))
    with pytest.raises(ValueError, match=r"id 2 to be 'aeroplane' in .*labels\.txt, but it is 'zebra'"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", tmp_path / "labels.txt", show_progress=False)
    (tmp_path / "labels.txt").write_text("id: name")
    with pytest.raises(ValueError, match=r"id 2 to be 'aeroplane' in .*labels\.txt, but it is None"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", tmp_path / "labels.txt", show_progress=False)


def test_a_source_file_with_other_ids_is_named(tmp_path: Path) -> None:
    annotations = context_tree(tmp_path, np.full((6, 8), 460))
    with pytest.raises(ValueError, match=r"2008_000002\.mat: .*but got 460"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False)


def test_annotations_that_are_missing_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected annotations"):
        convert_pascal_context(tmp_path, tmp_path)
    annotations = context_tree(tmp_path, np.zeros((6, 8)), name="Other")
    with pytest.raises(ValueError, match=r"`LabelMap` in .*2008_000002\.mat, but it holds \['Other'\]"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False)


def test_without_scipy_it_stops_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = context_tree(tmp_path, np.zeros((6, 8)))
    for name in ("scipy", "scipy.io"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"with SciPy, which is not installed\. Run `pip install scipy`"):
        convert_pascal_context(annotations, tmp_path / "VOC2010")
    assert capsys.readouterr().out == ""  # no progress bar either


def test_a_broken_source_file_is_named(tmp_path: Path) -> None:
    annotations = context_tree(tmp_path, np.zeros((6, 8)))
    (annotations / "2008_000003.mat").write_bytes(b"no MATLAB")
    with pytest.raises(ValueError, match=r"2008_000003\.mat: Expected a file of MATLAB"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False)


def test_what_another_tool_converted_is_kept_and_a_stopped_conversion_goes_on(tmp_path: Path) -> None:
    annotations = context_tree(tmp_path, np.full((6, 8), 2))
    for _ in range(2):
        assert convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False) == 1
    path = tmp_path / "VOC2010/SegmentationClassContext/2008_000002.png"
    write_labels(path, np.zeros((6, 8)))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"2008_000002\.png to be an earlier result.*move it away"):
        convert_pascal_context(annotations, tmp_path / "VOC2010", show_progress=False)
    assert path.read_bytes() == before
