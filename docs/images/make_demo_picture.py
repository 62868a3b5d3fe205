"""Makes the README's picture, `demo.png`, from the gallery that `make demo` wrote: its first four scenes.

Run by `make readme-picture`.
"""

import sys
from pathlib import Path

from PIL import Image

__all__: list[str] = []

SHOWN_SCENES, SCENES, HEADER_HEIGHT, WIDTH = 4, 6, 34, 960

with Image.open(sys.argv[1]) as gallery:
    shown_height = HEADER_HEIGHT + (gallery.height - HEADER_HEIGHT) * SHOWN_SCENES // SCENES
    shown = gallery.crop((0, 0, gallery.width, shown_height))
picture = shown.resize((WIDTH, shown.height * WIDTH // shown.width), Image.Resampling.LANCZOS)
# 256 colours, dithered, take a third of the space.
picture.quantize(256).save(Path(__file__).parent / "demo.png", optimize=True)
