"""Writes the scenes that ship with the package: the first few of the held-out set `world-stuff`, none picked by hand.

Run from the repository's root: `python -m demo_world.export_sample_scenes`.
"""

import json
from pathlib import Path

from PIL import Image

from itaclip_hf.drawing import make_palette, to_indexed_image

from .dataset import benchmark_labels, compose_benchmark_scene

__all__ = ["export_sample_scenes"]

FOLDER = Path(__file__).parents[1] / "itaclip_hf" / "assets" / "scenes"
SCENES, SEED = 6, 2026


def export_sample_scenes() -> None:
    """Write pictures, label maps and their index `scenes.json`."""
    entries = []
    for number in range(SCENES):
        scene = compose_benchmark_scene("world-stuff", number, SEED)
        entry = {"image": f"scene_{number}.png", "labels": f"scene_{number}_labels.png"}
        Image.fromarray(scene.image).save(FOLDER / entry["image"], optimize=True)
        to_indexed_image(scene.label, make_palette()).save(FOLDER / entry["labels"], optimize=True)
        entries.append(entry)
    index = {"benchmark": "world-stuff", "seed": SEED, "labels": benchmark_labels("world-stuff"), "scenes": entries}
    (FOLDER / "scenes.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    export_sample_scenes()
