"""One image through the package, by either path, with its stages under a stopwatch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from itaclip_hf import ITACLIPForSemanticSegmentation
from itaclip_hf.modeling import query_maps, windows
from itaclip_hf.modeling.query_maps import RefinementMatrix, Stitcher
from itaclip_hf.modeling.vision_itaclip import ITACLIPVisionModel

from .measuring import Stopwatch
from .workload import Workload

__all__ = [
    "ENCODER",
    "PAMR_STAGES",
    "PREPROCESSING",
    "STAGES",
    "compile_encoder",
    "segment_with_package",
    "watch_stages",
]

ENCODER = "encoder (the ViT)"
PAMR_STAGES = ("PAMR: matrix", "PAMR: steps")
WATCHED = (  # functions as the model finds them, and methods of the package's classes
    ("views: make, un-flip, sum", windows, "make_views"),
    ("views: make, un-flip, sum", windows, "combine_views"),
    (ENCODER, ITACLIPVisionModel, "forward"),
    (ENCODER, ITACLIPForSemanticSegmentation, "project_patches"),
    ("stitching", query_maps, "plan_stitching"),
    ("stitching", Stitcher, "stitch"),
    (PAMR_STAGES[0], query_maps, "resize_guide"),
    (PAMR_STAGES[0], query_maps, "compute_refinement_matrix"),
    (PAMR_STAGES[1], RefinementMatrix, "refine"),
)
PREPROCESSING = "resize and normalise"
REMAINDER = "cosines, class scores, copies"
POST_PROCESSING = "post-processing"
STAGES = (PREPROCESSING, *dict.fromkeys(name for name, *_ in WATCHED), REMAINDER, POST_PROCESSING)


class CompileReport(NamedTuple):
    """Whether the encoder runs compiled.

    Attributes:
        is_compiled: Whether it does.
        message: What there is to say.
    """

    is_compiled: bool
    message: str


@contextmanager
def watch_stages(stopwatch: Stopwatch) -> Iterator[None]:
    """Time the stages of [`segment_with_package`] while the block runs."""
    with stopwatch.watch(WATCHED):
        yield


@torch.inference_mode()
def segment_with_package(workload: Workload, is_labels_only: bool, stopwatch: Stopwatch) -> torch.Tensor:
    """From the picture to its label map (H₀, W₀).

    Args:
        workload: Model, picture and queries.
        is_labels_only: Whether to take the path that never holds one map for every class.
        stopwatch: Books the stages that are not within the model, and the model's remainder.
    """
    model, processor = workload.model, workload.image_processor
    with stopwatch.stage(PREPROCESSING):
        inputs = processor(workload.image, return_tensors="pt").to(model.device)
    if is_labels_only:
        finishing = (POST_PROCESSING, type(processor), "post_process_label_maps")
        with stopwatch.watch([finishing]), stopwatch.stage(REMAINDER):
            return model.predict_labels(processor, **inputs, **workload.queries).labels[0]
    with stopwatch.stage(REMAINDER):
        outputs = model(**inputs, **workload.queries)
    with stopwatch.stage(POST_PROCESSING):
        return processor.post_process_semantic_segmentation(outputs)[0]


def compile_encoder(workload: Workload, is_labels_only: bool) -> CompileReport:
    """Let torch compile each block of the vision tower and try it; where that fails, the tower stays as it is."""
    blocks = workload.model.vision_model.encoder.layers
    try:
        for block in blocks:
            block.compile(dynamic=False)  # the shapes of one image are few, and kernels for one shape are faster
        segment_with_package(workload, is_labels_only, Stopwatch(workload.model.device))
    except Exception as error:  # whatever a compiler and its tools can run into
        for block in blocks:
            block._compiled_call_impl = None
        return CompileReport(False, f"torch.compile failed, so the encoder runs as it is: {type(error).__name__}")
    return CompileReport(True, "The blocks of the encoder are compiled by torch.compile.")
