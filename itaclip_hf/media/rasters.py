"""Rasters, such as GeoTIFFs of any size: read, segmented and written tile by tile, with their place on Earth.

Where a raster has no data, the label map has none. Values of more than 8 bits are stretched: the 2nd percentile of
each band becomes black and the 98th white.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.windows import Window

from . import TIFF_MARK, Foreseen, Found, ImageFile, Plan, ResultFiles, Track
from .pictures import ClassTally, SegmentedImage
from .tiles import choose_side, segment_tiles

if TYPE_CHECKING:
    from ..loading import Loaded

__all__ = ["Raster", "open_input"]

COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
CACHE_MEGABYTES = 64  # of blocks, for all files together; GDAL would take a share of the memory that the machine has
PREVIEW_SIDE = 2048  # pixels, of the overlay
SAMPLE_SIDE = 1024  # pixels, of the copy that percentiles are taken from
PERCENTILES = (2, 98)
NO_DATA_COLOR = (123, 117, 104)  # the mean of CLIP's images, which says least


@dataclass(frozen=True)
class Raster:
    """A raster that can be read.

    Attributes:
        path: Where it is.
        bands: Numbers, from 1, of the bands that are red, green and blue; one for grey.
        stretch: (lowest, highest) value of each band, which become 0 and 255; `None` for 8 bits.
    """

    path: Path
    bands: tuple[int, ...]
    stretch: tuple[tuple[float, float], ...] | None

    def foresee(self, loaded: "Loaded", plan: Plan) -> Foreseen:
        """That the model will see it as it is, by tiles, and which values become black and white."""
        with _open(self.path) as source:
            size = (source.height, source.width)
        return Foreseen(size, size, self._note())

    def segment(self, results: ResultFiles, loaded: "Loaded", plan: Plan, track: Track) -> Found:
        """Segment it and write label map, confidence if wanted, and an overlay of at most 2048 pixels a side."""
        names = loaded.model.config.class_names
        kind = np.uint8 if len(names) < 256 else np.uint16
        no_data = np.iinfo(kind).max
        tally = ClassTally(names)
        with _open(self.path) as source:
            size = (source.height, source.width)

            def read(rows: slice, columns: slice) -> np.ndarray | None:
                pixels, is_valid = self._read(source, Window.from_slices(rows, columns))
                return pixels if is_valid.any() else None

            with (
                _write_like(source, results.labels, kind, no_data) as labels_file,
                _write_like(source, results.confidence if plan.confidence else None, np.uint16, 0) as scores_file,
            ):
                _describe_labels(labels_file, names)
                side = plan.tile or choose_side(loaded.model.config)
                for core, labels, scores in segment_tiles(read, size, loaded, side, track):
                    window = Window.from_slices(*core)
                    _, is_valid = self._read(source, window)  # what was segmented has its surroundings, too
                    tally.add(labels[is_valid], scores[is_valid])
                    labels_file.write(np.where(is_valid, labels, no_data).astype(kind), 1, window=window)
                    if scores_file is not None:
                        grey = (scores.clip(0, 1) * 65534 + 1).round()  # from 1: 0 says that there is no data
                        scores_file.write(np.where(is_valid, grey, 0).astype(np.uint16), 1, window=window)
            self._draw_overlay(source, results, names)
        return Found(tally.describe(), self._describe())

    def _read(
        self, source: Any, window: Window | None = None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, 3) uint8, and where there is data, bool (height, width); at a size, if given."""
        try:
            values = source.read(self.bands, window=window, out_shape=size and (len(self.bands), *size))
            is_valid = source.dataset_mask(window=window, out_shape=size) > 0
        except RasterioIOError as error:
            raise ValueError(f"Expected a raster that is whole, but got: {error}. Repair or replace it.") from error
        is_valid &= np.isfinite(values).all(axis=0)
        if self.stretch is not None:
            # NaN is no data and gets its colour below, but has no integer until then.
            low, high = np.array(self.stretch, dtype=np.float32).T[..., None, None]
            values = ((np.nan_to_num(values.astype(np.float32)) - low) * (255 / (high - low))).clip(0, 255).round()
        pixels = np.moveaxis(values, 0, -1).astype(np.uint8)
        return np.where(is_valid[..., None], pixels, NO_DATA_COLOR).astype(np.uint8), is_valid

    def _draw_overlay(self, source: Any, results: ResultFiles, names: tuple[str, ...]) -> None:
        from ..files import write_png

        size = _fit_size(source, PREVIEW_SIDE)
        pixels, _ = self._read(source, size=size)
        with rasterio.open(results.labels) as file:
            labels = file.read(1, out_shape=size, resampling=Resampling.nearest).astype(np.int64)
            has_data = labels != file.nodata
        if not has_data.all():
            labels, names = np.where(has_data, labels, len(names)), (*names, "no data")
        picture = SegmentedImage(Image.fromarray(pixels), labels, np.ones(size), names)
        write_png(results.overlay, picture.draw())

    def _describe(self) -> dict[str, Any]:
        return {"bands": list(self.bands), "stretch": self.stretch and [list(pair) for pair in self.stretch]}

    def _note(self) -> str:
        if self.stretch is None:
            return ""
        ranges = ", ".join(
            f"{low:g} to {high:g} (band {band})" for band, (low, high) in zip(self.bands, self.stretch, strict=True)
        )
        return f"{self.path} has more than 8 bits; black to white are {ranges}, the 2nd and 98th percentile."


def open_input(file: ImageFile, plan: Plan) -> Raster:
    """Look at a raster.

    Raises:
        ValueError: If it cannot be read, is many, or has not the bands that are asked for.
    """
    path = Path(file.path)
    with _open(path) as source:
        if len(source.subdatasets) > 1:
            raise ValueError(
                f"Expected one raster, but it has {len(source.subdatasets)}. Cut it with `gdal_translate -sds`."
            )
        bands = _choose_bands(source, plan.bands)
        if {source.dtypes[band - 1] for band in bands} == {"uint8"}:
            return Raster(path, bands, None)
        return Raster(path, bands, tuple(_find_range(source, band) for band in bands))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A raster to be read.

    Raises:
        ValueError: If it is none.
    """
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_MEGABYTES):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # one without a place is as good
        try:
            source = rasterio.open(path)
        except RasterioIOError as error:
            raise ValueError(f"Expected a raster, but got: {error}. Repair or replace it.") from error
        with source:
            yield source


def _choose_bands(source: Any, wanted: list[int] | None) -> tuple[int, ...]:
    """Numbers of the bands for red, green and blue, or the one for grey.

    Raises:
        ValueError: If there are no such bands, or nothing says which they are.
    """
    if wanted is not None:
        if not 1 <= min(wanted) <= max(wanted) <= source.count:
            raise ValueError(
                f"Expected bands from 1 to {source.count}, but got {' '.join(map(str, wanted))}. Choose others."
            )
        bands = tuple(wanted)
    else:
        kinds = list(source.colorinterp)
        if all(color in kinds for color in COLORS):
            bands = tuple(kinds.index(color) + 1 for color in COLORS)
        elif source.count in (1, 3):
            bands = tuple(range(1, source.count + 1))
        else:
            raise ValueError(
                f"Expected red, green and blue, but got {source.count} bands that do not say which they are. Choose "
                "three, such as --bands 3 2 1."
            )
        if ColorInterp.palette in kinds:
            raise ValueError("Expected colours, but got a palette. Convert it with `gdal_translate -expand rgb`.")
    if any("complex" in source.dtypes[band - 1] for band in bands):
        raise ValueError("Expected real numbers, but got complex ones. Convert the raster.")
    return bands


def _find_range(source: Any, band: int) -> tuple[float, float]:
    """Percentiles of a band, of a smaller copy, where it has data."""
    size = _fit_size(source, SAMPLE_SIDE)
    values = source.read(band, out_shape=size)
    values = values[(source.dataset_mask(out_shape=size) > 0) & np.isfinite(values)]
    if not values.size:
        raise ValueError("Expected a raster with data, but it has none. Leave it out.")
    low, high = np.percentile(values, PERCENTILES)
    if np.float32(high) == np.float32(low):  # pixels are divided by the difference, in single precision
        high = low + max(1, np.spacing(np.float32(abs(low))))
    return float(low), float(high)


def _fit_size(source: Any, side: int) -> tuple[int, int]:
    """(height, width) of a copy no side of which is longer; the raster's own if that is smaller."""
    scale = min(1, side / max(source.height, source.width))
    return max(1, round(source.height * scale)), max(1, round(source.width * scale))


@contextmanager
def _write_like(source: Any, path: Path | None, kind: Any, no_data: int) -> Iterator[Any]:
    """A GeoTIFF of one band in the place of another raster, which takes its place at the end of the block."""
    from ..files import write_atomically

    if path is None:
        yield None
        return
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "bigtiff": "if_safer"}
    size = {"height": source.height, "width": source.width, "count": 1}
    place = {"crs": source.crs, "transform": source.transform}
    with (
        write_atomically(path) as file,
        rasterio.open(file.name, "w", driver="GTiff", dtype=kind, nodata=no_data, **layout, **size, **place) as target,
    ):
        if source.gcps[0]:
            target.gcps = source.gcps
        if source.rpcs:
            target.rpcs = source.rpcs
        target.update_tags(TIFFTAG_SOFTWARE=TIFF_MARK[1])
        yield target


def _describe_labels(target: Any, names: tuple[str, ...]) -> None:
    """Colours of the ids, which 8 bits have room for, and their names."""
    from ..drawing import make_palette

    if target.dtypes[0] == "uint8":
        palette = make_palette(names[0] == "background")
        target.write_colormap(1, {label: (*palette[label], 255) for label in range(len(names))})
    target.update_tags(1, **{f"CLASS_{label}": name for label, name in enumerate(names)})
