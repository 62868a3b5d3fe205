"""Datasets from `datasets` tables and streams: palette ids kept, rows by name, every row once."""

import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from scripted_evaluation import NUM_CLASSES, PixelPredictor, expected_confusion, load_folders, write_folders

from itaclip_hf.evaluation.data.dataset_layouts import pair_folders
from itaclip_hf.evaluation.data.label_mapping import LabelMapping
from itaclip_hf.evaluation.data.segmentation_datasets import SampleError, StreamedDataset, TableDataset
from itaclip_hf.evaluation.running.runner import RunOptions, run_evaluation
from itaclip_hf.evaluation.running.sample_batches import batch_source

MAPPING = LabelMapping.shifted(NUM_CLASSES)
NAMES = [f"{index:03d}" for index in range(7)]
QUIET = RunOptions(num_workers=0, show_progress=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folders(tmp_path, num_images=len(NAMES))
    return tmp_path


def load_table(root: Path) -> datasets.Dataset:
    columns = {
        "picture": [str(root / "images" / f"{name}.png") for name in NAMES],
        "annotation": [str(root / "labels" / f"{name}.png") for name in NAMES],
    }
    features = datasets.Features({"picture": datasets.Image(), "annotation": datasets.Image()})
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_table_gives_what_the_folders_give(root: Path) -> None:
    table = TableDataset(load_table(root), MAPPING, "picture", "annotation")
    folders = load_folders(root)
    assert len(table) == len(folders)
    for index in range(len(table)):
        assert np.array_equal(table.load(index).labels, folders.load(index).labels)
        assert np.array_equal(np.array(table.load(index).image), np.array(folders.load(index).image))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_is_scored_like_the_folders(root: Path, num_workers: int) -> None:
    stream = StreamedDataset(load_table(root).to_iterable_dataset(num_shards=2), MAPPING, "picture", "annotation")
    options = RunOptions(num_workers=num_workers, batch_size=2, show_progress=False)
    result = run_evaluation(stream, PixelPredictor(), root / "progress", options)
    assert np.array_equal(result.confusion, expected_confusion(root, NAMES))
    again = run_evaluation(stream, PixelPredictor(), root / "progress", options)
    assert again.resumed == len(NAMES)


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_a_stream_without_overlap(root: Path, num_processes: int) -> None:
    stream = StreamedDataset(load_table(root).to_iterable_dataset(), MAPPING, "picture", "annotation")
    shares = []
    for rank in range(num_processes):
        source, size = batch_source(stream, PixelPredictor().prepare_images, 2, 6, frozenset({1}), rank, num_processes)
        assert size is None
        shares.append([index for batch in source for index in batch.indices])
    assert sorted(index for share in shares for index in share) == [0, 2, 3, 4, 5]
    assert all(shares)


def test_arrays_in_place_of_images_are_taken(root: Path) -> None:
    table = datasets.Dataset.from_dict({"image": [[[0, 16], [32, 48]]], "label": [[[0, 1], [2, 255]]]})
    sample = TableDataset(table, MAPPING).load(0)
    assert sample.labels.tolist() == [[0, 1], [2, -1]]
    assert sample.image.size == (2, 2)


def test_what_is_wrong_with_a_row_names_it(root: Path) -> None:
    (root / "images" / "002.png").write_bytes(b"nothing")
    (root / "labels" / "003.png").unlink()
    table = TableDataset(load_table(root), MAPPING, "picture", "annotation", title="mine")
    with pytest.raises(SampleError, match=r"unreadable image: mine, row 2, column picture \(.*002\.png\)"):
        table.load(2)
    with pytest.raises(SampleError, match=r"missing label: mine, row 3, column annotation \(.*003\.png\)"):
        table.load(3)
    empty = datasets.Dataset.from_dict({"image": [[[0]]], "label": [None]})
    with pytest.raises(SampleError, match="missing label: dataset, row 0, column label: expected a value"):
        TableDataset(empty, MAPPING).load(0)


def test_columns_that_are_missing_or_would_change_ids_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"\['image', 'label'\] is not among \['picture', 'annotation'\]"):
        TableDataset(load_table(root), MAPPING)
    table = load_table(root).cast_column("annotation", datasets.Image(mode="L"))
    with pytest.raises(ValueError, match=r"Image\(mode='L'\).*changes the ids"):
        TableDataset(table, MAPPING, "picture", "annotation")


def test_folders_pair_by_name_in_subfolders_too(tmp_path: Path) -> None:
    write_folders(tmp_path / "images" / "a", 1)
    with pytest.raises(FileNotFoundError, match="Check `--images` and `--labels`"):
        pair_folders(tmp_path / "images", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Expected images"):
        pair_folders(tmp_path / "empty", tmp_path / "images/a/labels")
    (pair,) = pair_folders(tmp_path / "images/a/images", tmp_path / "images/a/labels")
    assert (pair.name, pair.label.name) == ("000.png", "000.png")


def test_a_label_map_belongs_to_one_image_and_is_none_itself(tmp_path: Path) -> None:
    write_folders(tmp_path, 1)
    (tmp_path / "images" / "000.jpg").touch()
    with pytest.raises(ValueError, match=r"images/000\.jpg and \S+images/000\.png would share \S+labels/000\.png"):
        pair_folders(tmp_path / "images", tmp_path / "labels")
    for images in (tmp_path, tmp_path / "labels"):
        with pytest.raises(ValueError, match="Expected label maps in a folder that is not among the images"):
            pair_folders(images, tmp_path / "labels")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_file_names_of_other_bytes_than_utf_8_are_described(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / kind / "001.png").rename(root / kind / os.fsdecode(b"\xff.png"))
    result = run_evaluation(load_folders(root), PixelPredictor(), root / "progress", QUIET)
    assert result.counts.names[-1] == "\udcff.png"
    assert len(result.counts) == len(NAMES)
