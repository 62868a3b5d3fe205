"""Makes the pictures of the how-to pages from the embedded checkpoint.

`background.png`, `thresholds.png`, and for `docs/explain.md` the two of `itaclip explain`.

Run by `make docs-pictures`; needs no download and about half a minute.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

import itaclip_hf
from itaclip_hf.drawing import draw_confidence, draw_gallery, draw_label_map, draw_named_regions, make_palette
from itaclip_hf.samples import load_demo_scene

__all__: list[str] = []

HERE = Path(__file__).parent
CLASSES = ["dog", "strawberry", "turtle"]
EXPLAINED = itaclip_hf.Vocabulary(["grass", ["dog", "puppy"], "house"], background=["sky", "wall"])
PLACE_ON_THE_DOG = (350, 160)


def main() -> None:
    """Writes the pictures beside this file."""
    segmenter = itaclip_hf.pipeline(model="demo", preset="balanced", output="map")
    image, _ = load_demo_scene(0)
    four = ["grass", "sky", "house", "frog"]
    backgrounds = {"no background": None, '"background"': ["background"], "four words": four}
    found = [segmenter(image, CLASSES, background=words) for words in backgrounds.values()]
    save("background", [image, *map(draw, found)], ["dog, strawberry, turtle", *backgrounds])
    levels = (0.0, 0.7, 0.9)
    cut = [segmenter(image, CLASSES, background=["grass"], threshold=level) for level in levels]
    cells = [draw_confidence(cut[0]["confidence"].numpy()), *map(draw, cut)]
    save("thresholds", cells, ["confidence, 0 to 1", *(f"threshold {level:g}" for level in levels)])
    loaded = itaclip_hf.load("demo", preset="fast", dtype="float32")
    explanation = itaclip_hf.explain(image, *loaded, EXPLAINED, at=PLACE_ON_THE_DOG)
    save_page("explained", explanation.draw())
    save_page("explained_attention", explanation.draw_attention())


def save_page(name: str, page: Image.Image) -> None:
    """At three quarters, without dithering, which takes more space than it is worth."""
    page = page.resize((page.width * 3 // 4, page.height * 3 // 4))
    page.quantize(160, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


def save(name: str, cells: list[Image.Image], titles: list[str]) -> None:
    """256 colours take a third of the space."""
    draw_gallery([cells], titles, cell_width=240).quantize(256).save(HERE / f"{name}.png", optimize=True)


def draw(found: Mapping[str, Any]) -> Image.Image:
    """A label map with its names; a class has one colour, with a background before it or without."""
    labels, names = found["labels"].numpy(), list(found["id2label"].values())
    if names[0] != "background":
        labels, names = labels + 1, ["background", *names]
    return draw_named_regions(draw_label_map(labels, make_palette(has_background=True)), labels, names)


if __name__ == "__main__":
    main()
