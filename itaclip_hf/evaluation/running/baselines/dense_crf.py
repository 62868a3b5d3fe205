"""The dense CRF that published systems refine their maps with, by the optional package pydensecrf2.

Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (NeurIPS 2011), with
the settings that TagCLIP and CaR share.
"""

import importlib.util
from typing import Any

import numpy as np

__all__ = ["CRF_SETTINGS", "has_dense_crf", "refine_with_crf", "shift_colors"]

CRF_SETTINGS = {
    "iterations": 10,
    "gaussian": {"sxy": 1, "compat": 3},
    "bilateral": {"sxy": 67, "srgb": 3, "compat": 4},
}
BGR_MEANS = (104.008, 116.669, 122.675)
LEAST_PROBABILITY = 1e-5


def has_dense_crf() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("pydensecrf") is not None


def shift_colors(image: np.ndarray) -> np.ndarray:
    """The guide as published: colours in reverse order minus their means, negative values wrapped around to bytes.

    Args:
        image: (height, width, 3) uint8, RGB.

    Returns:
        Same shape, uint8.
    """
    shifted = np.trunc(image[..., ::-1].astype(np.float64) - BGR_MEANS).astype(np.int64)
    return np.ascontiguousarray((shifted & 255).astype(np.uint8))


def refine_with_crf(guide: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Marginals after ten steps of mean-field inference.

    Args:
        guide: (height, width, 3) uint8, as of [`shift_colors`].
        probabilities: (classes, height, width); they need not sum to 1.

    Returns:
        (classes, height, width) float32, sums of 1.
    """
    from pydensecrf import densecrf  # is there, or `Refinement` would have refused

    count, height, width = probabilities.shape
    unary = -np.log(np.clip(probabilities, LEAST_PROBABILITY, 1)).astype(np.float32)
    crf: Any = densecrf.DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(count, -1)))
    crf.addPairwiseGaussian(**CRF_SETTINGS["gaussian"])  # type: ignore[arg-type]
    crf.addPairwiseBilateral(rgbim=np.ascontiguousarray(guide), **CRF_SETTINGS["bilateral"])  # type: ignore[arg-type]
    marginals = np.array(crf.inference(CRF_SETTINGS["iterations"]), dtype=np.float32)
    return marginals.reshape(count, height, width)
