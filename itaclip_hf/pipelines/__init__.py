"""Pipelines in Transformers' manner: words chosen with each call, on any CLIP checkpoint."""

from .zero_shot import ZeroShotImageSegmentationPipeline, pipeline

__all__ = ["ZeroShotImageSegmentationPipeline", "pipeline"]
