"""Benchmarks as data: published settings, words of every class, and miniature trees of each layout on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scripted_evaluation import write_image, write_labels
from transformers import AutoTokenizer

from itaclip_hf.cli.options.vocabulary import Texts, VocabularyOptions
from itaclip_hf.evaluation.data.benchmarks import (
    BENCHMARKS,
    COCO_STUFF_UNUSED_IDS,
    coco_object_mapping,
    coco_stuff_mapping,
    get_benchmark,
)
from itaclip_hf.evaluation.data.label_mapping import LabelIdError, LabelMapping
from itaclip_hf.evaluation.data.segmentation_datasets import load_benchmark_dataset
from itaclip_hf.evaluation.metrics.confusion_matrix import IGNORED
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.methods import get_method

# Benchmark: texts, α, λ, similarity scale, score threshold, area threshold, shortest edge, queries, classes, mIoU.
PUBLISHED = {
    "coco_stuff": ("definitions", 0.2, 0.75, 40, 0.0, None, 448, 183, 171, 27.0),
    "coco_object": ("synonyms", 0.1, 0.75, 50, 0.1, None, 336, 119, 81, 37.7),
    "voc21": ("definitions", 0.05, 0.7, 60, 0.1, 0.1, 336, 80, 21, 67.9),
    "context60": ("definitions", 0.15, 0.75, 55, 0.1, None, 336, 75, 60, 37.5),
    "cityscapes": ("synonyms", 0.05, 0.7, 40, 0.0, None, 560, 26, 19, 40.2),
}
NUM_CLASSES = {
    "voc21": 21,
    "voc20": 20,
    "context60": 60,
    "context59": 59,
    "coco_stuff": 171,
    "coco_object": 81,
    "cityscapes": 19,
    "ade20k": 150,
}
LONGEST_TEMPLATE = "a black and white photo of the {}."


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_the_published_ones(name: str) -> None:
    benchmark = get_benchmark(name)
    method, vocabulary = get_method("itaclip"), benchmark.vocabulary()
    settings = method.settings(name)
    assert PUBLISHED[name] == (
        benchmark.auxiliary_texts,
        settings.auxiliary_weight,
        settings.photometric_weight,
        settings.similarity_scale,
        settings.score_threshold,
        settings.area_threshold,
        settings.shortest_edge,
        len(vocabulary.query_names),
        len(vocabulary.labels),
        method.published[name],
    )


def test_numbers_of_classes_are_the_datasets_own() -> None:
    assert {name: benchmark.num_classes for name, benchmark in BENCHMARKS.items()} == NUM_CLASSES
    for benchmark in BENCHMARKS.values():
        assert {layout.mapping.num_classes for layout in benchmark.layouts} == {benchmark.num_classes}


def test_background_lists_have_the_published_lengths() -> None:
    assert len(get_benchmark("voc21").vocabulary().background) == 44
    assert len(get_benchmark("coco_object").vocabulary().background) == 26
    assert get_benchmark("context60").vocabulary().background == ("background",)
    assert get_benchmark("voc20").vocabulary().background == ()


def test_class_order_is_the_label_order() -> None:
    voc = get_benchmark("voc21").vocabulary().labels
    assert (voc[0], voc[1], voc[15], voc[20]) == ("background", "aeroplane", "person", "tv monitor")
    context = get_benchmark("context60").vocabulary().labels
    assert (context[1], context[12], context[59]) == ("aeroplane", "bus", "wood")
    assert context[1:] == sorted(context[1:], key=lambda label: label.replace(" ", ""))
    stuff = get_benchmark("coco_stuff").vocabulary().labels
    assert (stuff[0], stuff[79], stuff[80], stuff[170]) == ("person", "toothbrush", "banner", "wood")
    assert get_benchmark("coco_object").vocabulary().labels[1:] == stuff[:80]
    cityscapes = get_benchmark("cityscapes").vocabulary().labels
    assert (cityscapes[0], cityscapes[10], cityscapes[18]) == ("road", "sky", "bicycle")
    ade = get_benchmark("ade20k").vocabulary().labels
    assert (ade[0], ade[12], ade[149]) == ("wall", "person", "flag")


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("kind", ["definitions", "synonyms"])
def test_every_class_has_a_short_text_that_fits_the_longest_template(name: str, kind: str) -> None:
    # This tokenizer has a small vocabulary and splits words more finely than CLIP's: what fits here fits there.
    tokenizer = AutoTokenizer.from_pretrained(DEMO_CHECKPOINT)
    for entry in get_benchmark(name).vocabulary(kind).classes:  # type: ignore[arg-type]
        (text,) = entry.auxiliary_texts
        assert text.casefold() not in {known.casefold() for known in entry.names}
        assert len(text.split()) == 1 if kind == "synonyms" else 4 <= len(text.split()) < 40
        assert len(tokenizer(LONGEST_TEMPLATE.format(text)).input_ids) <= 77


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_synonym_is_no_other_class(name: str) -> None:
    vocabulary = get_benchmark(name).vocabulary("synonyms")
    for entry in vocabulary.classes:
        assert entry.auxiliary_texts[0] not in vocabulary.query_names


def test_no_texts_on_request() -> None:
    assert all(entry.auxiliary_texts == () for entry in get_benchmark("voc21").vocabulary("none").classes)


def test_an_unknown_benchmark_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"voc21, voc20, context60.*but got 'voc'"):
        get_benchmark("voc")


def test_coco_stuff_mapping_keeps_171_of_182_ids() -> None:
    raw = np.arange(182, dtype=np.uint8)[None]
    raw = raw[~np.isin(raw, list(COCO_STUFF_UNUSED_IDS))][None]
    assert coco_stuff_mapping().apply(raw)[0].tolist() == list(range(171))
    assert coco_stuff_mapping().apply(np.array([[255]])).item() == IGNORED
    # the last thing (toothbrush, 89) and the first stuff (banner, 91), counted from 0
    assert coco_stuff_mapping().apply(np.array([[0, 89, 91, 181]])).tolist() == [[0, 79, 80, 170]]
    with pytest.raises(LabelIdError, match="but got 11"):
        coco_stuff_mapping().apply(np.array([[11]]))


def test_coco_object_counts_stuff_and_unlabelled_pixels_as_background() -> None:
    mapping = coco_object_mapping(coco_stuff_mapping())
    assert mapping.apply(np.array([[0, 89, 91, 181, 255]])).tolist() == [[1, 80, 0, 0, 0]]
    assert not mapping.ignored


def test_label_ids_out_of_range_are_named() -> None:
    mapping = LabelMapping.shifted(3)
    with pytest.raises(LabelIdError, match=r"label ids 0…2 or 255 \(not scored\), but got 3, 7\."):
        mapping.apply(np.array([[0, 3, 7]], dtype=np.uint8))
    with pytest.raises(LabelIdError, match=r"but got -5, 70000\."):
        mapping.apply(np.array([[0, -5, 70000]], dtype=np.int32))
    with pytest.raises(LabelIdError, match=r"but got -1\."):  # which is not the highest id
        LabelMapping({0: 0, 2**16 - 1: 1}).apply(np.array([[0, -1]], dtype=np.int8))
    with pytest.raises(LabelIdError, match=r"one integer channel, but got shape \(2, 2, 3\)"):
        mapping.apply(np.zeros((2, 2, 3), dtype=np.uint8))


def test_bilevel_label_maps_are_looked_up() -> None:
    assert LabelMapping.shifted(2).apply(np.array([[True, False]])).tolist() == [[1, 0]]


def voc_tree(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("2007_000001", "2007_000002", "2007_000003"):
        write_image(base / "JPEGImages" / f"{name}.jpg", seed=1)
    write_labels(base / "SegmentationClass" / "2007_000001.png", np.array([[0, 1, 20, 255]] * 6).repeat(2, axis=1))
    write_labels(base / "SegmentationClass" / "2007_000003.png", np.zeros((6, 8)))
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n2007_000003\n")


def context_tree(root: Path) -> None:
    base = root / "VOC2010"
    write_image(base / "JPEGImages" / "2008_000002.jpg", seed=1)
    write_labels(
        base / "SegmentationClassContext" / "2008_000002.png", np.array([[0, 1, 58, 59]] * 6).repeat(2, axis=1)
    )
    (base / "ImageSets/SegmentationContext").mkdir(parents=True)
    (base / "ImageSets/SegmentationContext/val.txt").write_text("2008_000002\n")


def coco_raw_tree(root: Path) -> None:
    write_image(root / "val2017" / "000000000139.jpg", seed=1)
    path = root / "stuffthingmaps_trainval2017/val2017/000000000139.png"
    write_labels(path, np.array([[0, 89, 91, 255]] * 6).repeat(2, axis=1), palette=False)


def coco_converted_tree(root: Path) -> None:
    write_image(root / "images/val2017/000000000139.jpg", seed=1)
    ids = np.array([[0, 79, 80, 255]] * 6).repeat(2, axis=1)
    write_labels(root / "annotations/val2017/000000000139_labelTrainIds.png", ids, palette=False)


def coco_object_tree(root: Path) -> None:
    write_image(root / "images/val2017/000000000139.jpg", seed=1)
    raw = np.array([[0, 89, 91, 255]] * 6).repeat(2, axis=1)
    write_labels(root / "annotations/val2017/000000000139.png", raw, palette=False)
    ids = np.array([[1, 80, 0, 0]] * 6).repeat(2, axis=1)
    write_labels(root / "annotations/val2017/000000000139_instanceTrainIds.png", ids, palette=False)


def cityscapes_tree(root: Path) -> None:
    for city in ("lindau", "munster"):
        name = f"{city}/{city}_000000_000019"
        write_image(root / "leftImg8bit/val" / f"{name}_leftImg8bit.png", seed=1)
        train_ids = np.array([[0, 10, 18, 255]] * 6).repeat(2, axis=1)
        write_labels(root / "gtFine/val" / f"{name}_gtFine_labelTrainIds.png", train_ids, palette=False)
        raw = np.array([[7, 23, 33, 0]] * 6).repeat(2, axis=1)
        write_labels(root / "gtFine/val" / f"{name}_gtFine_labelIds.png", raw, palette=False)


def cityscapes_raw_tree(root: Path) -> None:
    cityscapes_tree(root)
    for path in root.rglob("*_labelTrainIds.png"):
        path.unlink()


def ade_tree(root: Path) -> None:
    base = root / "ADEChallengeData2016"
    write_image(base / "images/validation/ADE_val_00000001.jpg", seed=1)
    ids = np.array([[1, 2, 150, 0]] * 6).repeat(2, axis=1)
    write_labels(base / "annotations/validation/ADE_val_00000001.png", ids, palette=False)


TREES: list[tuple[str, Callable[[Path], None], int, list[int]]] = [
    ("voc21", voc_tree, 2, [0, 1, 20, IGNORED]),
    ("voc20", voc_tree, 2, [IGNORED, 0, 19, IGNORED]),
    ("context60", context_tree, 1, [0, 1, 58, 59]),
    ("context59", context_tree, 1, [IGNORED, 0, 57, 58]),
    ("coco_stuff", coco_raw_tree, 1, [0, 79, 80, IGNORED]),
    ("coco_stuff", coco_converted_tree, 1, [0, 79, 80, IGNORED]),
    ("coco_object", coco_raw_tree, 1, [1, 80, 0, 0]),
    ("coco_object", coco_converted_tree, 1, [1, 80, 0, 0]),
    ("coco_object", coco_object_tree, 1, [1, 80, 0, 0]),
    ("coco_stuff", coco_object_tree, 1, [0, 79, 80, IGNORED]),
    ("cityscapes", cityscapes_tree, 2, [0, 10, 18, IGNORED]),
    ("cityscapes", cityscapes_raw_tree, 2, [0, 10, 18, IGNORED]),
    ("ade20k", ade_tree, 1, [0, 1, 149, IGNORED]),
]


@pytest.mark.parametrize(("name", "build", "size", "classes"), TREES)
def test_a_miniature_tree_is_found_and_its_ids_are_mapped(
    tmp_path: Path, name: str, build: Callable[[Path], None], size: int, classes: list[int]
) -> None:
    build(tmp_path)
    dataset = load_benchmark_dataset(get_benchmark(name), tmp_path)
    assert len(dataset) == size
    sample = dataset.load(0)
    assert sample.labels[0, ::2].tolist() == classes
    assert (sample.image.height, sample.image.width) == sample.labels.shape
    assert len({pair.name for pair in dataset.pairs}) == size


# Benchmark, tree, and the folder that holds it where the dataset preparation of mmsegmentation (or of COCO-Stuff's
# authors) puts it; above that, any names.
PLACES = [
    ("voc21", voc_tree, "data"),
    ("context60", context_tree, "data/VOCdevkit"),
    ("coco_stuff", coco_raw_tree, "data/coco_stuff164k"),
    ("coco_stuff", coco_converted_tree, "data/coco_stuff164k"),
    ("coco_stuff", coco_raw_tree, "coco-stuff/dataset"),
    ("coco_stuff", coco_raw_tree, "dataset"),
    ("coco_object", coco_object_tree, "data/coco_object"),
    ("cityscapes", cityscapes_tree, "data/cityscapes"),
    ("cityscapes", cityscapes_raw_tree, "dataset/cityscapes"),
    ("ade20k", ade_tree, "data/ade"),
    ("ade20k", ade_tree, "dataset"),
]


@pytest.mark.parametrize(("name", "build", "place"), PLACES)
def test_a_tree_is_found_from_each_of_its_levels_and_two_above(
    tmp_path: Path, name: str, build: Callable[[Path], None], place: str
) -> None:
    folder = tmp_path / "work/mmsegmentation" / place
    build(folder)
    levels = [tmp_path / "work", *(above for above in (folder, *folder.parents) if "mmsegmentation" in above.parts)]
    (size,) = {len(load_benchmark_dataset(get_benchmark(name), level)) for level in levels}
    assert size > 0


def test_a_tree_is_found_from_its_own_folders(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    for level in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit/VOC2012"):
        assert len(load_benchmark_dataset(get_benchmark("voc21"), level)) == 2


def test_another_year_is_not_taken_for_the_benchmark(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012").rename(tmp_path / "VOCdevkit/VOC2007")
    with pytest.raises(FileNotFoundError, match="VOC2012"):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path)


def test_of_two_places_alike_one_is_to_be_named(tmp_path: Path) -> None:
    for copy in ("new", "old"):
        voc_tree(tmp_path / copy)
    (tmp_path / "linked").symlink_to(tmp_path / "new")  # the same place twice is one place
    with pytest.raises(ValueError, match=r"in one place, but found it in\n  .*new.*\n  .*old.*\nGive one of them"):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path)
    assert len(load_benchmark_dataset(get_benchmark("voc21"), tmp_path / "old")) == 2


def test_a_listed_image_without_label_file_stays_in_the_dataset(tmp_path: Path) -> None:
    voc_tree(tmp_path)
    with (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").open("a") as names:
        names.write("2007_000002\n")
    assert len(load_benchmark_dataset(get_benchmark("voc21"), tmp_path)) == 3


def test_a_missing_tree_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no Pascal VOC 2012 \(21\).*\n  JPEGImages/NAME\.jpg \+ SegmentationClass"
    ):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path)
    with pytest.raises(FileNotFoundError, match="Check `--data`"):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("SegmentationClass", r"\n  images in \S+/JPEGImages, but no folder of labels"),
        ("JPEGImages", r"\n  labels in \S+/SegmentationClass, but no folder of images"),
        ("ImageSets", r"\n  images and labels in \S+, but not the list of names \S+/Segmentation/val\.txt"),
        ("SegmentationClass/*.png", r"but no label file NAME\.png of one of them in \S+/SegmentationClass"),
    ],
)
def test_a_half_of_a_tree_is_said_to_be_there(tmp_path: Path, missing: str, message: str) -> None:
    voc_tree(tmp_path)
    for path in (tmp_path / "VOCdevkit/VOC2012").glob(missing):
        path.rename(tmp_path / path.name)
    with pytest.raises(FileNotFoundError, match=message):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path)


def test_annotations_of_context_that_are_not_converted_name_the_command(tmp_path: Path) -> None:
    context_tree(tmp_path)
    (tmp_path / "VOC2010/SegmentationClassContext").rename(tmp_path / "VOC2010/trainval")
    with pytest.raises(FileNotFoundError, match=r"images in \S+/JPEGImages, but no .*(?s:.*)`itaclip convert context"):
        load_benchmark_dataset(get_benchmark("context59"), tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2007_000001", r"val\.txt:3: Expected every name once, but got '2007_000001' as on line 1"),
        ("./2007_000001", r"val\.txt:3: Expected every name once, but got '2007_000001' as on line 1"),
        ("a/../2007_000001", r"val\.txt:3: Expected the name of an image in its folder"),
        (".", r"val\.txt:3: Expected the name of an image in its folder"),
        ("../../secret", r"val\.txt:3: Expected the name of an image in its folder, but got '\.\./\.\./secret'"),
        ("/etc/secret", r"val\.txt:3: Expected the name of an image in its folder"),
        ("\udcff", r"val\.txt: Expected UTF-8 text"),
    ],
)
def test_lists_of_names_name_each_image_once_and_inside(tmp_path: Path, line: str, message: str) -> None:
    voc_tree(tmp_path)
    with (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").open("ab") as names:
        names.write(line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(ValueError, match=message):
        load_benchmark_dataset(get_benchmark("voc21"), tmp_path)


def test_the_description_does_not_depend_on_the_place(tmp_path: Path) -> None:
    for place in ("a", "b"):
        ade_tree(tmp_path / place)
    first, second = (load_benchmark_dataset(get_benchmark("ade20k"), tmp_path / place) for place in ("a", "b"))
    assert first.describe() == second.describe()


# The authors' files by their shape: numbers of background words, of classes and of synonyms, in the published lines.
AUTHORS_FILES = {"voc21": (44, 20, 16), "context60": (1, 59, 15), "coco_object": (26, 80, 13)}
AUTHORS_FILES |= {"coco_stuff": (0, 171, 12), "cityscapes": (0, 19, 7)}


def write_authors_files(root: Path, name: str) -> VocabularyOptions:
    """A class file and a text file in the authors' form: names without spaces, a background word that is a class."""
    background, classes, synonyms = AUTHORS_FILES[name]
    names = [label.replace(" ", "") for label in get_benchmark(name).vocabulary("none").labels[-classes:]]
    names = names if name != "coco_object" else get_benchmark(name).vocabulary("none").labels[-classes:]
    words = [f"thing{index}" for index in range(background - 1)]
    lines = [", ".join([*words, "bed" if name == "coco_object" else "background"])] * bool(background)
    lines += [", ".join([names[0], *(f"{names[0]} in a coat{index}" for index in range(synonyms))]), *names[1:]]
    (root / "classes.txt").write_text("\n".join(lines) + " ")  # neither file ends as the other
    (root / "texts.txt").write_text("".join(f"{label} >=Something, called so.\n" for label in names))
    return VocabularyOptions(vocabulary=root / "classes.txt", definitions=root / "texts.txt")


@pytest.mark.parametrize("name", AUTHORS_FILES)
def test_files_of_the_authors_shape_give_the_published_numbers_of_queries(tmp_path: Path, name: str) -> None:
    vocabulary = write_authors_files(tmp_path, name).read(get_benchmark(name))
    assert (len(vocabulary.query_names), len(vocabulary.labels)) == PUBLISHED[name][7:9]
    assert len(vocabulary.background) == AUTHORS_FILES[name][0]
    assert all(entry.auxiliary_texts == ("Something, called so.",) for entry in vocabulary.classes)


def test_a_background_word_that_is_a_class_keeps_both_queries(tmp_path: Path) -> None:
    vocabulary = write_authors_files(tmp_path, "coco_object").read(get_benchmark("coco_object"))
    bed = [query for query, word in enumerate(vocabulary.query_names) if word == "bed"]
    assert [vocabulary.labels[vocabulary.query_classes[query]] for query in bed] == ["background", "bed"]


@pytest.mark.parametrize("name", AUTHORS_FILES)
def test_texts_on_the_datasets_own_names_go_to_the_classes_that_are_called_otherwise_here(
    tmp_path: Path, name: str
) -> None:
    write_authors_files(tmp_path, name)
    own = get_benchmark(name)
    vocabulary = VocabularyOptions(definitions=tmp_path / "texts.txt").read(own)
    assert vocabulary.query_names == own.vocabulary().query_names
    assert all(entry.auxiliary_texts == ("Something, called so.",) for entry in vocabulary.classes)
    assert vocabulary.metadata is not None and vocabulary.metadata["auxiliary_texts"] == "texts.txt"


def test_texts_on_the_datasets_own_names_are_no_second_texts() -> None:
    stuff = get_benchmark("coco_stuff")
    words = stuff.vocabulary_with({"Wall-Brick": "rows of blocks", "playingfield": "a lawn"}, "mine")
    texts = {entry.label: entry.auxiliary_texts for entry in words.classes if entry.auxiliary_texts}
    assert texts == {"brick wall": ("rows of blocks",), "playing field": ("a lawn",)}
    with pytest.raises(ValueError, match="one text for each class, but got two for 'wall-brick'"):
        stuff.vocabulary_with({"wall-brick": "one", "brick wall": "two"}, "mine")
    with pytest.raises(ValueError, match="one text for each class, but got two for 'wall-brick'"):
        stuff.vocabulary_with({"wall-brick": "one", "Wall-Brick": "two"}, "mine")
    with pytest.raises(ValueError, match="but got 'wall-bricks'"):
        stuff.vocabulary_with({"wall-bricks": "one"}, "mine")
    with pytest.raises(ValueError, match="`--definitions` or `--texts`, but got both"):
        VocabularyOptions(definitions=Path("texts.txt"), texts=Texts.synonyms).read(stuff)
    voc = get_benchmark("voc21").vocabulary("none")
    # Names of the published files that are no name of the dataset.
    assert [voc.labels[voc.class_id(name)] for name in ("ship", "table", "television monitor")] == [
        "boat",
        "dining table",
        "tv monitor",
    ]


@pytest.mark.parametrize(
    ("name", "label", "meant", "not_meant"),
    [
        ("ade20k", "pot", "plant", "cook"),  # a flowerpot
        ("ade20k", "light", "room", "street"),  # streetlights are another class
        ("cityscapes", "wall", "street", "room"),
        ("coco_stuff", "platform", "stage", "wait for trains"),
        ("context60", "platform", "stage", "wait for trains"),
        ("ade20k", "tank", "storing", "gun"),
        ("ade20k", "case", "shown", "suitcase"),
        ("ade20k", "hood", "stove", "head"),
        ("context60", "mouse", "computer", "animal"),
        ("coco_stuff", "mouse", "computer", "animal"),
    ],
)
def test_a_definition_is_of_the_thing_that_the_dataset_labels(
    name: str, label: str, meant: str, not_meant: str
) -> None:
    (text,) = next(
        e for e in get_benchmark(name).vocabulary("definitions").classes if e.label == label
    ).auxiliary_texts
    assert meant in text
    assert not_meant not in text
