"""Rebuild the committed sprite packs from the emoji artwork that npm distributes.

Only needed to change the packs: training, tests and the demo read the committed PNG sheets. Per style, the artwork of
every noun is drawn at 96 px and packed into palette PNG strips; `index.json` says which cell shows which emoji of
which noun. Needs `npm install` of the packages in `STYLES` plus `emojibase-data`, and `pip install resvg-py`:

    python -m demo_world.build_sprite_packs NODE_MODULES_FOLDER
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from .sprites import PACKS_FOLDER, SPRITE_SIZE, STRIP_LENGTH
from .vocabulary import load_world_classes

__all__ = ["build_sprite_pack", "main"]

ICON_STYLES = {
    "noto": "@iconify-json/noto",
    "noto-v1": "@iconify-json/noto-v1",
    "fxemoji": "@iconify-json/fxemoji",
    "twemoji": "@iconify-json/twemoji",
    "emojione": "@iconify-json/emojione",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat",
    "fluent-emoji": "@iconify-json/fluent-emoji",
}
RENDERED_STYLES = {"fluent-emoji-3d": "@lobehub/fluent-emoji-3d"}


def _slug(emoji_name: str) -> str:
    return emoji_name.lower().replace(" ", "-").replace("’", "").replace("'", "")


class _IconSet:
    """SVG bodies of one Iconify package, with its aliases followed."""

    def __init__(self, folder: Path):
        icon_set = json.loads((folder / "icons.json").read_text())
        self.icons, self.aliases = icon_set["icons"], icon_set.get("aliases", {})
        self.width, self.height = icon_set.get("width", 16), icon_set.get("height", 16)

    def draw(self, emoji_name: str) -> Image.Image | None:
        import resvg_py

        name = _slug(emoji_name)
        while name in self.aliases:
            name = self.aliases[name]["parent"]
        if name not in self.icons:
            return None
        icon = self.icons[name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        box = f"{left} {top} {icon.get('width', self.width)} {icon.get('height', self.height)}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{SPRITE_SIZE}" height="{SPRITE_SIZE}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


class _RenderedSet:
    """Ready-made WebP renders of one package, found by the emoji's code points."""

    def __init__(self, folder: Path, emojibase_folder: Path):
        entries = json.loads((emojibase_folder / "en" / "data.json").read_text())
        self.hexcodes = {_slug(entry["label"]): entry["hexcode"].lower() for entry in entries}
        self.assets = folder / "assets"

    def draw(self, emoji_name: str) -> Image.Image | None:
        hexcode = self.hexcodes.get(_slug(emoji_name))
        if hexcode is None:
            return None
        for file_name in (f"{hexcode}.webp", f"{hexcode}-fe0f.webp", f"{hexcode.removesuffix('-fe0f')}.webp"):
            if (self.assets / file_name).exists():
                picture = Image.open(self.assets / file_name).convert("RGBA")
                return picture.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS)
        return None


def build_sprite_pack(style: str, icon_set: "_IconSet | _RenderedSet") -> list[list[str]]:
    """Draws one style into strips under `<style>/` and returns its cells in order, each `[noun, emoji name]`."""
    cells, sprites = [], []
    for noun in load_world_classes().nouns:
        for emoji_name in noun.emoji:
            sprite = icon_set.draw(emoji_name)
            if sprite is not None and np.asarray(sprite)[..., 3].mean() > 5:
                cells.append([noun.label, emoji_name])
                sprites.append(sprite)
    (PACKS_FOLDER / style).mkdir(parents=True, exist_ok=True)
    for start in range(0, len(sprites), STRIP_LENGTH):
        _save_strip(sprites[start : start + STRIP_LENGTH], PACKS_FOLDER / style / f"{start // STRIP_LENGTH:02d}.png")
    return cells


def _save_strip(sprites: list[Image.Image], path: Path) -> None:
    """One palette for a few sprites keeps gradients smooth at a third of the size of full colour."""
    strip = Image.new("RGBA", (len(sprites) * SPRITE_SIZE, SPRITE_SIZE))
    for column, sprite in enumerate(sprites):
        strip.paste(sprite, (column * SPRITE_SIZE, 0))
    strip.quantize(256, method=Image.Quantize.FASTOCTREE, kmeans=8, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Rebuilds every pack and `index.json` from an npm `node_modules` folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("node_modules", type=Path)
    node_modules = parser.parse_args().node_modules
    PACKS_FOLDER.mkdir(exist_ok=True)
    index: dict[str, list[list[str]]] = {}
    for style, package in ICON_STYLES.items():
        index[style] = build_sprite_pack(style, _IconSet(node_modules / package))
    for style, package in RENDERED_STYLES.items():
        rendered = _RenderedSet(node_modules / package, node_modules / "emojibase-data")
        index[style] = build_sprite_pack(style, rendered)
    lines = ",\n".join(f'  "{style}": {json.dumps(cells)}' for style, cells in index.items())
    (PACKS_FOLDER / "index.json").write_text(
        f'{{\n"sprite_size": {SPRITE_SIZE},\n"strip_length": {STRIP_LENGTH},\n"styles": {{\n{lines}\n}}\n}}\n'
    )
    for style, cells in index.items():
        print(f"{style}: {len(cells)} sprites of {len({noun for noun, _ in cells})} nouns")


if __name__ == "__main__":
    main()
