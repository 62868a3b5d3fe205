"""Pictures of every kind: what can be read is read right, and of the rest an error says why not."""

import numpy as np
import PIL.Image
import torch
from hypothesis import given, strategies as st

from itaclip_hf.processing import ITACLIPImageProcessor

from . import strategies as ours
from .outcomes import attempt

SMALL = ITACLIPImageProcessor(size={"shortest_edge": 24, "longest_edge": 240})


def check_inputs(inputs):
    pixels = inputs["pixel_values"]
    assert torch.isfinite(pixels).all(), "not finite"
    assert pixels.ndim == 4 and pixels.shape[1] == 3, pixels.shape
    assert (inputs["image_sizes"] > 0).all() and (inputs["original_sizes"] > 0).all()


def check_maps(model, maps, sizes):
    assert [tuple(of_image.shape) for of_image in maps] == [tuple(size) for size in sizes]
    for of_image in maps:
        assert int(of_image.min()) >= 0 and int(of_image.max()) < model.config.num_labels


def segment(loaded, images, **options):
    """From images to label maps, with the checks that hold for all."""
    model, processor = loaded
    inputs = processor(images=images, **options)
    check_inputs(inputs)
    with torch.inference_mode():
        outputs = model(**inputs)
    for logits in outputs.logits:
        scores = logits.exp()
        assert torch.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-5, "scores"
    maps = processor.post_process_semantic_segmentation(outputs)
    check_maps(model, maps, inputs["original_sizes"].tolist())
    return maps


@given(
    st.one_of(ours.arrays(), st.lists(ours.arrays(), max_size=3)),
    st.booleans(),
    st.sampled_from([None, "channels_first", "channels_last", "channels_middle", 3]),
)
def test_arrays(loaded, images, as_tensor, layout):
    if as_tensor:
        images = _to_tensors(images)

    def check(maps):
        single = not isinstance(images, list)
        for image, of_image in zip([images] if single else images, maps, strict=False):
            if single or all(each.ndim < 4 for each in images):
                assert set(of_image.shape) <= set(image.shape), (of_image.shape, image.shape)

    options = {} if layout is None else {"input_data_format": layout}
    about = [(each.shape, str(each.dtype)) for each in (images if isinstance(images, list) else [images])]
    attempt("arrays", lambda: segment(loaded, images, **options), check, f"{about} {layout}")


def _to_tensors(images):
    if isinstance(images, list):
        return [_to_tensors(image) for image in images]
    try:
        return torch.from_numpy(images.copy())
    except TypeError:
        return images


@given(ours.pictures(), st.data())
def test_one_picture_in_many_forms(picture, data):
    forms = {
        "float": lambda: picture.astype(data.draw(st.sampled_from(["f2", "f4", "f8"]))),
        "signed": lambda: picture.astype(data.draw(st.sampled_from(["i2", "i4", "i8"]))),
        "16 bits": lambda: picture.astype("u2") * 257,
        "32 bits": lambda: picture.astype("u4") * 16843009,
        "tensor": lambda: torch.from_numpy(picture).permute(2, 0, 1),
        "Fortran": lambda: np.asfortranarray(picture),
        "PIL": lambda: PIL.Image.fromarray(picture),
        "opaque": lambda: PIL.Image.fromarray(picture).convert("RGBA"),
        "alpha": lambda: np.dstack([picture, np.full(picture.shape[:2], 255, dtype=np.uint8)]),
        "bfloat16": lambda: torch.from_numpy(picture).bfloat16(),
        "list": lambda: [picture],
    }
    name = data.draw(st.sampled_from(sorted(forms)))
    form = forms[name]()
    expected = SMALL(PIL.Image.fromarray(picture), return_tensors="pt")["pixel_values"]

    def check(inputs):
        # Floats are not rounded after resizing, which is half a grey level; bfloat16 has 8 bits.
        tolerance = 0.02 if name in ("float", "bfloat16") else 1e-6
        assert (inputs["pixel_values"] - expected).abs().max() <= tolerance

    attempt("one picture in many forms", lambda: SMALL(form, return_tensors="pt"), check, f"{name} {picture.shape}")


@given(ours.pil_images())
def test_pil_images(loaded, image):
    def check(maps):
        assert set(maps[0].shape) == set(image.size)

    attempt("PIL images", lambda: segment(loaded, image), check, f"{image.mode} {image.size}")


@given(ours.image_files(), st.sampled_from([".png", ".jpg", ".tif", "", ".txt"]))
def test_image_files(loaded, tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"picture{suffix}"
    path.write_bytes(content)

    def check(maps):
        assert path.read_bytes() == content, "the file has changed"

    attempt("image files", lambda: segment(loaded, str(path)), check, f"{content[:40]!r} of {len(content)} bytes")


@given(st.one_of(ours.VALUES, st.lists(ours.VALUES, max_size=2)))
def test_what_is_no_picture(loaded, value):
    attempt("no pictures", lambda: segment(loaded, value), about=(type(value), value))


LOGITS_SHAPES = [(1, 3, 5, 6), (2, 3, 5, 6), (1, 1, 1, 1), (3, 5, 6), (1, 0, 5, 6), (0, 3, 5, 6)]
TARGET_SIZES = st.one_of(
    st.none(),
    st.lists(st.tuples(st.integers(-1, 60), st.integers(0, 60)), max_size=3),
    ours.VALUES,
    st.tuples(ours.VALUES),
)


@given(st.data())
def test_target_sizes_and_thresholds(loaded, data):
    processor = loaded.processor
    shape = data.draw(st.sampled_from(LOGITS_SHAPES))
    scores = torch.from_numpy(np.random.default_rng(data.draw(ours.SEEDS)).random(shape)).float()
    logits = scores.log()
    if data.draw(st.integers(0, 4)) == 0 and logits.numel():
        logits.view(-1)[0] = data.draw(st.sampled_from([float("nan"), float("inf"), 5.0]))
    if data.draw(st.integers(0, 4)) == 0:
        logits = data.draw(st.sampled_from([logits.double(), logits.half(), list(logits), logits.numpy(), None, "x"]))
    sizes = data.draw(TARGET_SIZES)
    options = data.draw(
        st.dictionaries(
            st.sampled_from(["score_threshold", "area_threshold", "closing", "return_segmentation_scores"]),
            st.one_of(st.booleans(), st.floats(0, 1), ours.SCALARS),
            max_size=2,
        )
    )
    outputs = type("Outputs", (), {"logits": logits})()

    def check(results):
        for index, result in enumerate(results):
            labels = result if isinstance(result, torch.Tensor) else result["segmentation"]
            assert labels.dtype == torch.int64 and labels.min() >= 0 and labels.max() < shape[-3]
            assert not torch.isnan(torch.as_tensor(logits[index])).any(), "labels of nothing"
            if sizes is not None:
                assert list(labels.shape) == [int(side) for side in sizes[index]]
            if not isinstance(result, torch.Tensor):
                found = result["segmentation_scores"]
                assert torch.isfinite(found).all() and found.min() >= 0 and found.max() <= 1 + 1e-5

    def call():
        return processor.post_process_semantic_segmentation(outputs, sizes, **options)

    attempt("target sizes and thresholds", call, check, (shape, sizes, options))
