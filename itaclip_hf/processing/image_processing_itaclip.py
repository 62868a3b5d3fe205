"""Images in, model inputs out; model outputs in, label maps out.

Images become CLIP-normalised pixels of a common size, beside their valid and original sizes and ITACLIP's image
engineering as data. Label maps come from class scores through the published method's thresholds and closing.
"""

import difflib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_utils import (
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs
from transformers.utils.generic import TensorType

from .augmentation import View, compute_views, stack_views
from .pixels import check_length, compute_resized_size, list_frames, open_image, read_image, resize_image
from .segmentation_maps import (
    assign_labels,
    close_label_map,
    compute_scores,
    compute_segment_scores,
    count_votes,
    drop_small_classes_,
    find_small_classes,
    find_small_counts,
    pair_with_regions,
    pair_with_target_sizes,
    resize_region_map,
    stack_label_maps,
    stack_region_maps,
)

try:  # types and ranges of settings are said there; code that was loaded from the Hub does without the package
    from itaclip_hf.methods.settings import SETTING_NAMES, check_setting
except ImportError:
    SETTING_NAMES = ()

__all__ = ["ITACLIPImageProcessor", "ITACLIPImageProcessorKwargs", "check_value"]

IMAGE_INPUT_NAMES = ["pixel_values", "image_sizes", "original_sizes"]
AUGMENTATION_INPUT_NAMES = ["augmentation_color", "augmentation_blur", "augmentation_flip", "augmentation_weight"]

# CLIP's mean and standard deviation, rounded on the scale of 0...255 as in the published method. The rounding is below
# 7e-6 of a value, but moves class scores by up to 1e-3.
PUBLISHED_MEAN = [122.771 / 255, 116.746 / 255, 104.094 / 255]
PUBLISHED_STD = [68.501 / 255, 66.632 / 255, 70.323 / 255]

SMALLEST_FACTOR, LARGEST_FACTOR = 1e-6, 1e6
DEEPEST_WHITE = 2550  # ten times that of the integers that are rescaled

PIPELINE_THRESHOLD = 0.9  # of Transformers' pipeline, where nobody asked for one

# What a stock CLIP preprocessor_config.json has to say about pixels. The rest (a crop to 224 pixels, its size, bicubic
# interpolation) prepares images for classification and would cut off what is to be segmented.
PIXEL_FIELDS = ("do_convert_rgb", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


class ITACLIPImageProcessorKwargs(ImagesKwargs, total=False):
    r"""Keyword arguments of `ITACLIPImageProcessor`, on top of Transformers' own.

    image_engineering (`bool`, *optional*, defaults to `self.image_engineering`):
        Whether to hand ITACLIP's augmented views to the model; without, it sees the plain image only.
    photometric_weight (`float`, *optional*, defaults to `self.photometric_weight`):
        Share λ of the original, grayscale and blurred view, between 0 and 1; the flipped views share the rest.
    score_threshold (`float`, *optional*, defaults to `self.score_threshold`):
        Pixels whose best class score is lower, between 0 and 1, get class 0.
    area_threshold (`float`, *optional*, defaults to `self.area_threshold`):
        Classes 1, 2, ... that cover at most this share of the predicted foreground are dropped; between 0 and 1.
    region_vote (`bool`, *optional*, defaults to `self.region_vote`):
        Whether all pixels of a region get the label that most of them have, where there are region maps.
    closing (`bool`, *optional*, defaults to `self.closing`):
        Whether to close label maps with a 3x3 neighbourhood.
    """

    image_engineering: bool | None
    photometric_weight: float | int | None
    score_threshold: float | int | None
    area_threshold: float | int | None
    region_vote: bool | None
    closing: bool | None


# Which Transformers itself reads, in several forms.
SIZE_FIELDS = ("size", "crop_size", "pad_size")
NUMBER_FIELDS = ("rescale_factor", "image_mean", "image_std")
LABEL_FIELDS = ("score_threshold", "area_threshold", "region_vote", "closing")  # no call with images reads them

# What Transformers, its Auto classes and pipelines hand from one `from_pretrained` to the next, or write into files.
LIBRARY_KEYWORDS = frozenset(
    [
        "attn_implementation", "auto_map", "backend", "cache_dir", "code_revision", "config", "device_map",
        "dtype", "feature_extractor_type", "force_download", "gguf_file", "image_processor_filename",
        "image_processor_type", "local_files_only", "low_cpu_mem_usage", "mirror", "processor_class", "proxies",
        "resume_download", "return_unused_kwargs", "revision", "subfolder", "token", "torch_dtype",
        "trust_remote_code", "use_auth_token", "use_fast", "use_safetensors", "user_agent", "variant",
    ]
)  # fmt: skip


class ITACLIPImageProcessor(PilBackend):
    """Prepares images for `ITACLIPForSemanticSegmentation` and turns its outputs into label maps.

    Images may be PIL images of any mode, arrays (height, width), (height, width, channels) or (channels, height,
    width), torch tensors, paths or URLs, single or in lists. EXIF rotation is applied, transparency is laid on white,
    unsigned integers of more than 8 bits are scaled by their range. Floats are taken for 0...255 unless
    `do_rescale=False`.

    A stock CLIP preprocessor file can be loaded; its mean and standard deviation are taken over, its classification
    crop, size and interpolation are not.

    Args:
        size: `{"shortest_edge": 336, "longest_edge": 2048}`: the shorter side gets that length, as long as the longer
            one does not exceed its own. One of the two suffices; `{"height": ..., "width": ...}` ignores proportions.
        resample: Interpolation, never antialiased: bilinear (default), bicubic or nearest.
        image_engineering, photometric_weight, score_threshold, area_threshold, region_vote, closing: See
            `ITACLIPImageProcessorKwargs`. Fields about pixels and views can also be given per call, those about
            label maps to `post_process_semantic_segmentation`.

    Example:
        >>> import numpy as np
        >>> processor = ITACLIPImageProcessor()
        >>> inputs = processor(np.zeros((100, 200, 3), dtype=np.uint8), return_tensors="pt")
        >>> tuple(inputs["pixel_values"].shape), inputs["original_sizes"].tolist()
        ((1, 3, 336, 672), [[100, 200]])
    """

    valid_kwargs = ITACLIPImageProcessorKwargs
    size = {"shortest_edge": 336, "longest_edge": 2048}  # every instance gets a copy
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    image_mean = PUBLISHED_MEAN
    image_std = PUBLISHED_STD
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_pad = True
    image_engineering = True
    photometric_weight = 0.75
    score_threshold = 0.0
    area_threshold = None
    region_vote = False
    closing = True

    def __init__(self, **kwargs: Any) -> None:
        check_keywords(kwargs, self.valid_kwargs.__annotations__)
        super().__init__(**kwargs)
        _refuse_crop(getattr(self, "do_center_crop", None))

    # The base class sets the fields of a file one by one, so that these are checked, too.
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, check_value(name, value))

    @property
    def model_input_names(self) -> list[str]:  # type: ignore[override]  # the base class has a fixed list
        """Keys that a call returns."""
        return IMAGE_INPUT_NAMES + (AUGMENTATION_INPUT_NAMES if self.image_engineering else [])

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the fields of a saved image processor; of another model's (stock CLIP's), only those about pixels."""
        if "_from_pipeline" not in kwargs:  # which hands over all that is for the model, too
            check_keywords(kwargs, cls.valid_kwargs.__annotations__)
        values, kwargs = super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        is_own = values.get("image_processor_type") == cls.__name__ or "photometric_weight" in values
        return values if is_own else _select_pixel_fields(values), kwargs

    def _validate_preprocess_kwargs(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._validate_preprocess_kwargs(*args, **kwargs)
        except ValueError as error:
            raise ValueError(
                f"Expected options that go together, but got others: {error} Give all or none."
            ) from error
        _refuse_crop(kwargs.get("do_center_crop"))
        for name, value in kwargs.items():
            check_value(name, value)

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: Any = None,
        do_reduce_labels: bool = False,
        region_maps: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare images, and label maps for a loss or regions beside them.

        Args:
            images: One image or a list.
            segmentation_maps: For each image a map (height, width) of class ids: an array, a tensor or a PIL image.
                They come out as `labels`, at original size, which is the size of the model's results.
            do_reduce_labels: Whether the maps call the first class 1 and unlabelled pixels 0, as those of ADE20K do:
                these become 255, and the classes 0, 1, ...
            region_maps: For each image its regions, of any segmenter: a map of whole numbers at any size, 0 for none,
                or masks; see `make_region_map`. They come out as `region_maps`, (batch, height, width) int64 at the
                size of `pixel_values`, and as `original_region_maps`, for the vote, at original sizes. Ids stay as
                they are, but for those below 0, which become 0; none are blended.
            **kwargs: Fields of the image processor, for this call.

        Raises:
            TypeError: If an image or a field has another type than expected.
            ValueError: If there is no such field, or something cannot be prepared.
            OSError: If a file cannot be read.
        """
        check_options(kwargs, self.valid_kwargs)
        check_switch("do_reduce_labels", do_reduce_labels)
        for name in LABEL_FIELDS:
            if name in kwargs:
                raise ValueError(
                    f"Expected fields about pixels and views, but got {name!r}, which is about label maps. Pass it to "
                    "`post_process_semantic_segmentation`, or set it on the processor."
                )
        inputs = super().preprocess(images, **make_floats(kwargs))
        if segmentation_maps is not None:
            labels = stack_label_maps(
                segmentation_maps, np.asarray(inputs["original_sizes"]).tolist(), do_reduce_labels
            )
            inputs.update(BatchFeature({"labels": labels}, tensor_type=kwargs.get("return_tensors")))
        if region_maps is not None:
            maps = pair_with_regions(region_maps, len(inputs["pixel_values"]))
            sizes = {name: np.asarray(inputs[name]).tolist() for name in ("image_sizes", "original_sizes")}
            data = {
                "region_maps": stack_region_maps(maps, sizes["image_sizes"], inputs["pixel_values"].shape[-2:]),
                "original_region_maps": stack_region_maps(maps, sizes["original_sizes"]),
            }
            inputs.update(BatchFeature(data, tensor_type=kwargs.get("return_tensors")))
        return inputs

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open paths and URLs; images pass through. Files keep their mode, so that depth and transparency survive."""
        source = image_url_or_urls
        if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
            try:
                return super().fetch_images(source)
            except Exception as error:  # of the connection, or of a decoder
                raise OSError(f"Expected an image at {source:.200}, but got: {error}. Correct the address.") from error
        if isinstance(source, str | os.PathLike):
            path = os.fspath(source)
            try:
                image = open_image(source)
                _warn_of_further_frames(source)
                return image
            except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
                if getattr(error, "filename", None) is not None or path in str(error):
                    raise  # it names the file, which not every decoder does
                raise OSError(f"{path}: {error}") from error
        if isinstance(source, list | tuple):
            return [self.fetch_images(each) for each in source]
        return source

    def _prepare_image_like_inputs(
        self,
        images: ImageInput,
        *args: Any,
        expected_ndims: int = 3,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        prepared = []
        for index, image in enumerate(_flatten_images(self.fetch_images(images))):
            try:
                prepared.append(read_image(image, bool(do_convert_rgb), input_data_format))
            except ValueError as error:
                raise ValueError(f"Image {index}: {error}") from error
        if not prepared:
            raise ValueError("Expected at least one image, but got none. Pass an image or a list of images.")
        return prepared

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | None,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | list[float] | None,
        image_std: float | list[float] | None,
        do_pad: bool | None,
        pad_size: SizeDict | None,
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        original_sizes = [image.shape[-2:] for image in images]
        if do_rescale:
            _check_numbers("rescale_factor", rescale_factor)
            _warn_of_rescaled_images(images, rescale_factor)
        elif do_normalize:
            _warn_of_unscaled_images(images, image_mean)
        if do_resize:
            images = [self.resize(image, size, resample) for image in images]
        image_sizes = [image.shape[-2:] for image in images]
        images = [
            self._scale_pixels(
                image, rescale_factor if do_rescale else None, image_mean, image_std if do_normalize else None
            )
            for image in images
        ]
        # After normalising: what is added is 0, and left out by the model, which knows the sizes without it.
        if do_pad:
            images = cast(list[np.ndarray], self.pad(images, cast(SizeDict, pad_size)))
        data: dict[str, np.ndarray] = {
            "pixel_values": _stack_images(images),
            "image_sizes": np.array(image_sizes, dtype=np.int64),
            "original_sizes": np.array(original_sizes, dtype=np.int64),
        }
        if kwargs["image_engineering"]:
            data.update(stack_views(compute_views(kwargs["photometric_weight"]), len(images)))
        return BatchFeature(data, tensor_type=return_tensors)

    def choose_views(self) -> tuple[View, ...]:
        """The views that a call hands to the model with every image; none without image engineering."""
        return compute_views(self.photometric_weight) if self.image_engineering else ()

    def _scale_pixels(
        self,
        image: np.ndarray,
        rescale_factor: float | None,
        image_mean: float | Sequence[float] | None,
        image_std: float | Sequence[float] | None,
    ) -> np.ndarray:
        """Rescale and normalize, as far as asked for; both in one step, `(value - mean * 255) / (std * 255)`.

        The published method computes just this; two steps round differently, and attention can blow that up.
        """
        if image_mean is None or image_std is None:
            return image if rescale_factor is None else self.rescale(image, rescale_factor)
        levels = 1.0 if rescale_factor is None else rescale_factor
        _check_numbers("image_mean", image_mean, lowest=-LARGEST_FACTOR, channels=len(image))
        _check_numbers("image_std", image_std, channels=len(image))
        mean, std = (np.asarray(values, dtype=np.float64) / levels for values in (image_mean, image_std))
        return self.normalize(image.astype(np.float32), mean.tolist(), std.tolist())

    def resize(
        self,
        image: np.ndarray,
        size: SizeDict,
        resample: PILImageResampling | None = None,
        reducing_gap: int | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Resize an image (channels, height, width) as the published method does; see `resize_image`."""
        return resize_image(image, compute_resized_size(image.shape[-2], image.shape[-1], size), resample)

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
        return_segmentation_scores: bool = False,
        score_threshold: float | None = None,
        area_threshold: float | None = None,
        closing: bool | None = None,
        region_maps: Any = None,
        region_vote: bool | None = None,
        return_regions: bool = False,
    ) -> list[Any]:
        """Turn outputs of `ITACLIPForSemanticSegmentation` into label maps.

        Args:
            outputs: Outputs whose `logits` are logarithms of class scores, (batch, classes, height, width) or a list
                of (classes, height, width).
            target_sizes: Size (height, width) of each map. Scores of another size are interpolated (bilinear). By
                default maps have the size of the logits, which is that of the original image.
            return_segmentation_scores: Whether to return the class scores along with the maps.
            score_threshold: Pixels whose best score is lower get class 0. Default: the image processor's.
            area_threshold: Classes 1, 2, ... that cover at most this share of the predicted foreground are dropped; 0
                drops none. Default: the image processor's.
            closing: Whether to close the maps with a 3x3 neighbourhood. Default: the image processor's.
            region_maps: Regions of each image, as for `preprocess`; brought to the size of the maps.
            region_vote: Whether all pixels of a region get the label that most of them have. Default: the image
                processor's.
            return_regions: Whether to say which class each region is.

        Returns:
            One map of class ids (height, width) per image, int64. With `return_segmentation_scores` or
            `return_regions`, one `SemanticSegmentationPostProcessorOutput` per image instead, with the map as
            `segmentation`; the class scores after the area threshold, (classes, height, width) between 0 and 1, as
            `segmentation_scores`; and as `regions`, ascending, a dictionary for each region: its `id`, `label_id` (the
            label that most of its pixels have before the vote), `share` (of its pixels that have it) and `score`
            (mean confidence of these).

        Raises:
            ValueError: If logits, target sizes, thresholds or regions are not as expected.
        """
        check_switch("return_segmentation_scores", return_segmentation_scores)
        check_switch("return_regions", return_regions)
        score_threshold = self._choose("score_threshold", score_threshold)
        area_threshold = self._choose("area_threshold", area_threshold)
        closing = self._choose("closing", closing)
        vote = self._choose("region_vote", region_vote)
        pairs = pair_with_target_sizes(outputs.logits, target_sizes)
        maps = _pair_with_regions(region_maps, len(pairs), is_needed=bool(region_vote or return_regions))
        results: list[Any] = []
        for (logits, target_size), region_map in zip(pairs, maps, strict=True):
            scores = compute_scores(logits, target_size)
            if area_threshold:
                drop_small_classes_(scores, area_threshold)
            labels = assign_labels(scores, score_threshold)
            values: dict[str, Any] = {"segmentation_scores": scores} if return_segmentation_scores else {}
            if region_map is not None and (vote or return_regions):
                labels, regions = _ask_regions(labels, scores.amax(dim=0), region_map, vote, return_regions)
                values.update(regions)
            results.append(_finish_map(labels, closing, values))
        return results

    def post_process_panoptic_segmentation(
        self,
        outputs: Any,
        threshold: float = PIPELINE_THRESHOLD,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.5,
        target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None = None,
    ) -> list[dict[str, Any]]:
        """Label maps with a score for each class, in the form in which `pipeline("image-segmentation")` reads scores.

        Args:
            outputs: As for `post_process_semantic_segmentation`.
            threshold: Classes whose score is lower are left out. The pipeline always says one, 0.9 unless it was
                asked for another; that is far above what a softmax over many words reaches and means none.
            mask_threshold: There for the pipeline; a pixel has one class, so there is none to choose.
            overlap_mask_area_threshold: As `mask_threshold`.
            target_sizes: As for `post_process_semantic_segmentation`.

        Returns:
            For each image `segmentation`, the map of class ids, and `segments_info`: for each class found its `id`
            and `label_id`, both the class id, and `score`, the mean confidence of its pixels.

        Raises:
            ValueError: If `mask_threshold` or `overlap_mask_area_threshold` was changed, or as in
                `post_process_semantic_segmentation`.
        """
        if (mask_threshold, overlap_mask_area_threshold) != (0.5, 0.5):
            raise ValueError(
                "Expected no `mask_threshold` and no `overlap_mask_area_threshold`, as every pixel has one class, but "
                f"got {mask_threshold} and {overlap_mask_area_threshold}. Leave them out."
            )
        if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= threshold <= 1:
            raise ValueError(f"Expected `threshold` to be a number from 0 to 1, but got {threshold!r}. Correct it.")
        lowest = 0.0 if threshold == PIPELINE_THRESHOLD else threshold
        results = []
        mapped: Any = self.post_process_semantic_segmentation(outputs, target_sizes, return_segmentation_scores=True)
        for result in mapped:
            labels = result["segmentation"]
            scores = compute_segment_scores(labels, result["segmentation_scores"].amax(dim=0))
            found = [{"id": id, "label_id": id, "score": score} for id, score in scores.items() if score >= lowest]
            results.append({"segmentation": labels, "segments_info": found})
        return results

    def post_process_label_maps(
        self,
        best_classes: Sequence[Any],
        score_threshold: float | None = None,
        area_threshold: float | None = None,
        closing: bool | None = None,
        region_maps: Any = None,
        region_vote: bool | None = None,
        return_regions: bool = False,
    ) -> list[Any]:
        """Finish label maps of which the best class of each pixel alone is known.

        `ITACLIPForSemanticSegmentation.predict_labels` calls it; the results are those of
        `post_process_semantic_segmentation`.

        Args:
            best_classes: One object for each image, with `labels` and `confidence`, both (height, width),
                `num_classes`, and `drop_classes_`, which gives the pixels of some classes to the best of the others,
                in place.
            score_threshold: As for `post_process_semantic_segmentation`.
            area_threshold: As there.
            closing: As there.
            region_maps: As there.
            region_vote: As there.
            return_regions: As there.

        Returns:
            One map of class ids (height, width) per image, int64; with `return_regions`, one
            `SemanticSegmentationPostProcessorOutput` with `segmentation` and `regions` instead.

        Raises:
            ValueError: If a threshold is no share, or regions are not as expected.
        """
        check_switch("return_regions", return_regions)
        score_threshold = self._choose("score_threshold", score_threshold)
        area_threshold = self._choose("area_threshold", area_threshold)
        closing = self._choose("closing", closing)
        vote = self._choose("region_vote", region_vote)
        maps = _pair_with_regions(region_maps, len(best_classes), is_needed=bool(region_vote or return_regions))
        results: list[Any] = []
        for best, region_map in zip(best_classes, maps, strict=True):
            if area_threshold:
                best.drop_classes_(find_small_classes(best.labels, best.num_classes, area_threshold))
            labels = best.labels.masked_fill(best.confidence < score_threshold, 0)
            values: dict[str, Any] = {}
            if region_map is not None and (vote or return_regions):
                labels, values = _ask_regions(labels, best.confidence, region_map, vote, return_regions)
            results.append(_finish_map(labels, closing, values))
        return results

    def finish_tile(self, best: Any, is_dropped: torch.Tensor | None = None) -> torch.Tensor:
        """Finish the label map of a part of an image, as `post_process_label_maps` does with a whole one.

        Args:
            best: As there, of the part.
            is_dropped: Which classes the area threshold drops from the image; see `find_dropped_classes`.

        Returns:
            Class ids (height, width), int64; those up to 2 pixels from where the part was cut may differ.
        """
        if is_dropped is not None:
            best.drop_classes_(is_dropped)
        return self.post_process_label_maps([best], area_threshold=0.0)[0]  # the whole image has decided that

    def find_dropped_classes(self, counts: torch.Tensor) -> torch.Tensor:
        """Which classes the area threshold drops from an image that has so many pixels of each, (num_classes,)."""
        return find_small_counts(counts, self.area_threshold or 0.0)

    @property
    def drops_small_classes(self) -> bool:
        """Whether there is an area threshold, for which one has to see the whole image first."""
        return bool(self.area_threshold)

    def _choose(self, name: str, given: Any) -> Any:
        """A field as it was given for one call, or the image processor's own."""
        return getattr(self, name) if given is None else check_value(name, given)


def _select_pixel_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Of another model's fields, those about pixels; CLIP's mean and std give way to the published rounding."""
    rounded = {"image_mean": PUBLISHED_MEAN, "image_std": PUBLISHED_STD}
    is_clips = all(key in values and np.allclose(values[key], rounded[key], atol=1e-5) for key in rounded)
    return {key: values[key] for key in PIXEL_FIELDS if key in values and not (is_clips and key in rounded)}


def _pair_with_regions(region_maps: Any, count: int, is_needed: bool) -> Sequence[np.ndarray | None]:
    # Needed is what a call asks for: the image processor's own vote takes place only where there are regions.
    if region_maps is None and is_needed:
        raise ValueError(
            "Expected `region_maps`, as regions are asked for, but got none. Pass those of each image, as to the "
            "processor before."
        )
    return [None] * count if region_maps is None else pair_with_regions(region_maps, count)


def _ask_regions(
    labels: torch.Tensor, confidence: torch.Tensor, region_map: np.ndarray, vote: bool, return_regions: bool
) -> tuple[torch.Tensor, dict[str, Any]]:
    """A label map (height, width) after the vote, if there is to be one, and, if asked, which class each region is."""
    height, width = labels.shape
    votes = count_votes(labels, torch.from_numpy(resize_region_map(region_map, (height, width))).to(labels.device))
    described = {"regions": votes.describe(labels, confidence)} if return_regions else {}
    return votes.overrule(labels) if vote else labels, described


def _finish_map(labels: torch.Tensor, closing: bool, values: dict[str, Any]) -> Any:
    """The map, closed if it is to be, alone or with what else was asked for."""
    labels = close_label_map(labels) if closing else labels
    return SemanticSegmentationPostProcessorOutput({"segmentation": labels, **values}) if values else labels


def check_value(name: str, value: Any) -> Any:
    """The value of an attribute: settings are checked where the package is there, other fields of images by type."""
    if name == "size" and hasattr(value, "keys"):
        for side, length in dict(value).items():
            check_length(side, length)
    if name in SETTING_NAMES:
        return check_setting(name, value)
    if name in ITACLIPImageProcessorKwargs.__annotations__ and name not in SIZE_FIELDS and value is not None:
        check_options({name: value}, ITACLIPImageProcessorKwargs)
    return value


def _refuse_crop(do_center_crop: bool | None) -> None:
    if do_center_crop:
        raise ValueError("Expected no `do_center_crop`, as a label map covers the whole image. Crop images before.")


def _check_numbers(
    name: str, values: float | Sequence[float], lowest: float = SMALLEST_FACTOR, channels: int = 1
) -> None:
    """Zeros and numbers near to them would become infinite pixels, which no later step would tell from others."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"Expected `{name}` to be a number or a list of numbers, but got {values!r}. Use numbers.")
    if array.shape not in ((), (channels,)):
        raise ValueError(
            f"Expected `{name}` for {channels} channels, but got {array.size}. Give one number, or so many."
        )
    if not ((array >= lowest).all() and (array <= LARGEST_FACTOR).all()):  # written so that NaN is refused
        raise ValueError(f"Expected `{name}` from {lowest:g} to {LARGEST_FACTOR:g}, but got {values}. Correct it.")


def _flatten_images(images: Any) -> list[Any]:
    """Single images out of lists and batches."""
    if isinstance(images, list | tuple):
        return [image for part in images for image in _flatten_images(part)]
    is_batch = isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4
    return list(images) if is_batch else [images]


def check_options(options: Mapping[str, Any], known: Any) -> None:
    """Make sure that options of a call are known, and of the type that a typed dictionary says.

    Raises:
        TypeError: If one is of another type.
        ValueError: If there is none of that name.
    """
    for name, value in options.items():
        if name not in known.__annotations__:
            raise ValueError(
                f"Expected options out of {', '.join(sorted(known.__annotations__))}, but got {name!r}. Correct it."
            )
        try:
            validate_typed_dict(known, make_floats({name: value}))
        except Exception as error:  # of a kind of its own
            reason = " ".join(str(error).split())
            raise TypeError(
                f"Expected another `{name}`, but got one that is not valid ({reason:.300}). Correct it."
            ) from error


def make_floats(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which whole numbers are floats where the types ask for these, which nobody writes out."""
    return {name: _as_floats(value) if name in NUMBER_FIELDS else value for name, value in options.items()}


def _as_floats(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_as_floats, value))
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def check_keywords(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse or warn of keywords that nobody would heed, where libraries hand over some of their own, too.

    Raises:
        ValueError: If a name is nearly a known one, or a setting of another part.
    """
    known = tuple(known)
    for name in names:
        if name in known or name in LIBRARY_KEYWORDS or name.startswith("_"):
            continue
        if name in ("shortest_edge", "longest_edge"):
            raise ValueError(f"Expected `size`, but got `{name}` alone. Pass `size={{{name!r}: 336}}`.")
        if name in SETTING_NAMES:
            raise ValueError(
                f"Expected options of a processor, but got `{name}`, a setting of another part. Pass it to the model, "
                f"or all settings together to `itaclip_hf.load(…, settings={{{name!r}: …}})`."
            )
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if similar:
            raise ValueError(f"Expected the option {similar[0]!r}, but got {name!r}. Correct the spelling.")
        warnings.warn(
            f"Expected options of the processor, but got {name!r}, which changes nothing. Leave it out.", stacklevel=4
        )


def check_switch(name: str, value: Any) -> None:
    """Make sure that an argument is true or false: strings such as "no" would count as true.

    Raises:
        TypeError: If it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"Expected `{name}` to be true or false, but got {value!r}. Pass True or False.")


def _warn_of_further_frames(path: str | os.PathLike[str]) -> None:
    count = len(list_frames(path))
    if count > 1:
        warnings.warn(
            f"Expected a file of one picture, but {os.fspath(path)} has {count}, of which the first is taken. Pass "
            "the others as PIL images, or use `itaclip segment`, which takes all.",
            stacklevel=2,
        )


def _warn_of_rescaled_images(images: list[np.ndarray], rescale_factor: float) -> None:
    """Floats have no range of their own; what is not about that which is rescaled is probably another one."""
    white = 1 / rescale_factor
    for image in images:
        if image.dtype.kind != "f":
            if white > DEEPEST_WHITE:
                warnings.warn(
                    f"Expected a `rescale_factor` of about 1/255, as integers of every depth are brought to 0...255 "
                    f"before, but got {rescale_factor:g}, which leaves an image nearly black. Leave it out.",
                    stacklevel=2,
                )
            continue
        lowest, highest = float(image.min()), float(image.max())
        if lowest >= 0 and 0 < highest <= 1 < white:
            warnings.warn(
                f"Expected pixels between 0 and {white:g}, but got floats that are all between 0 and 1. "
                "Set `do_rescale=False` if they are scaled already.",
                stacklevel=2,
            )
        elif lowest < -0.5 or highest > white + 0.5:
            warnings.warn(
                f"Expected pixels between 0 and {white:g}, but got floats from {lowest:g} to {highest:g}. Scale them, "
                "or set `do_rescale=False` and `do_normalize=False` if they are made ready already.",
                stacklevel=2,
            )


def _warn_of_unscaled_images(images: list[np.ndarray], image_mean: float | Sequence[float] | None) -> None:
    """A mean below 1 is that of pixels between 0 and 1; others would come out far from what the model knows."""
    highest = max(float(image.max()) for image in images)
    if highest > 1.5 and image_mean is not None and float(np.max(np.abs(image_mean))) <= 1:
        warnings.warn(
            f"Expected pixels between 0 and 1 with `do_rescale=False`, as the `image_mean` is of such, but got up to "
            f"{highest:g}. Leave `do_rescale` on, or scale them.",
            stacklevel=2,
        )


def _stack_images(images: list[np.ndarray]) -> np.ndarray:
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise ValueError(
            f"Expected images of one size without padding, but got {sorted(sizes)}. "
            "Set `do_pad=True` or process them singly."
        )
    return np.stack(images).astype(np.float32, copy=False)
