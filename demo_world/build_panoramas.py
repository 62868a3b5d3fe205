"""Rebuild the committed photo backdrops from Poly Haven panoramas (CC0) of the npm package `@pmndrs/assets`.

Only needed to change the backdrops. High-dynamic-range pixels are exposed, tone-mapped and saved as small JPEG files.
Needs `npm install @pmndrs/assets` and `pip install OpenEXR`:

    python -m demo_world.build_panoramas NODE_MODULES_FOLDER
"""

import argparse
import base64
import importlib
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .panoramas import PANORAMAS, PANORAMAS_FOLDER

__all__ = ["main"]


def _read_exr(module: Path) -> np.ndarray:
    """Linear light from a JavaScript module that holds an EXR file as base64. float32 (height, width, 3)."""
    encoded = re.search(r"base64,([A-Za-z0-9+/=]+)", module.read_text())
    if encoded is None:
        raise ValueError(f"Expected a base64 data URL in {module}, but found none.")
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(base64.b64decode(encoded[1]))
        file.flush()
        # By name, because only who rebuilds the backdrops has the package.
        with importlib.import_module("OpenEXR").File(file.name) as picture:
            return np.asarray(picture.channels()["RGB"].pixels, np.float32)[..., :3]


def _tone_map(light: np.ndarray) -> np.ndarray:
    """Exposes the median to middle grey, rolls off the highlights and applies the sRGB curve. uint8."""
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    # Lamps and the sun are stored as infinity.
    exposed = np.clip(light, 0, 1e4) * (0.25 / max(float(np.median(luminance)), 1e-4))
    compressed = exposed / (1 + exposed) * 1.25
    return (np.clip(compressed, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def _heal_ringing(light: np.ndarray, picture: Image.Image) -> Image.Image:
    """The files' lossy compression leaves black rings around lamps and sun: fill them from their bright neighbours."""
    is_broken = Image.fromarray((~(light.min(-1) > 0)).astype(np.uint8) * 255)
    return Image.composite(
        picture.filter(ImageFilter.MaxFilter(7)), picture, is_broken.filter(ImageFilter.MaxFilter(3))
    )


def main() -> None:
    """Rebuilds the panoramas from an npm `node_modules` folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("node_modules", type=Path)
    folder = parser.parse_args().node_modules / "@pmndrs" / "assets" / "hdri"
    PANORAMAS_FOLDER.mkdir(exist_ok=True)
    for name in PANORAMAS:
        light = _read_exr(folder / f"{name}.exr.js")
        picture = _heal_ringing(light, Image.fromarray(_tone_map(light)))
        picture.save(PANORAMAS_FOLDER / f"{name}.jpg", quality=88)
        print(name, picture.size)


if __name__ == "__main__":
    main()
