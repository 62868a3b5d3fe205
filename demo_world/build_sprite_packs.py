"""Rebuild the committed sprite packs from the artwork that npm distributes.

Only needed to change the packs: training, tests and the demo read the committed PNG sheets. Per style, the artwork of
every noun is drawn at 96 px and packed into PNG strips; `index.json` says which cell shows which drawing of which
noun. Emoji families are found by the emoji's name; `drawings.json` names further icons, looked through by eye. Icons
of a single colour become *ink and paper* (see `_to_ink_and_paper`), to be painted when they are placed.

Needs `npm install` of the packages in `ICON_STYLES` and `RENDERED_STYLES`, of `@iconify-json/SET` for every set in
`drawings.json` and of `emojibase-data`, and `pip install resvg-py scipy`:

    python -m demo_world.build_sprite_packs NODE_MODULES_FOLDER
    python -m demo_world.build_sprite_packs NODE_MODULES_FOLDER --styles single-colour
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from .sprites import PACKS_FOLDER, PAINTED_STYLES, SPRITE_SIZE, STRIP_LENGTH
from .vocabulary import load_world_classes

__all__ = ["build_drawing_pack", "build_sprite_pack", "main"]

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
DRAWINGS_FILE = Path(__file__).parent / "drawings.json"
GRAY_LEVELS = 16
# Nobody would paint the air between the spokes.
HOLLOW_NOUNS = ("bicycle",)


def _slug(emoji_name: str) -> str:
    return emoji_name.lower().replace(" ", "-").replace("’", "").replace("'", "")


class _IconSet:
    """SVG bodies of one Iconify package, with its aliases followed."""

    def __init__(self, folder: Path):
        icon_set = json.loads((folder / "icons.json").read_text())
        self.icons, self.aliases = icon_set["icons"], icon_set.get("aliases", {})
        self.width, self.height = icon_set.get("width", 16), icon_set.get("height", 16)

    def draw(self, emoji_name: str) -> Image.Image | None:
        return self.draw_icon(_slug(emoji_name))

    def draw_icon(self, name: str) -> Image.Image | None:
        import resvg_py

        while name in self.aliases:
            name = self.aliases[name]["parent"]
        if name not in self.icons:
            return None
        icon = self.icons[name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        box = f"{left} {top} {icon.get('width', self.width)} {icon.get('height', self.height)}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box}" width="{SPRITE_SIZE}" height="{SPRITE_SIZE}" color="#000">{icon["body"]}</svg>'
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
    _save_pack(style, sprites)
    return cells


def build_drawing_pack(style: str, node_modules: Path) -> list[list[str]]:
    """Draws one pack of `drawings.json` and returns its cells in order, each `[noun, "set:icon"]`."""
    cells, sprites = [], []
    icon_sets: dict[str, _IconSet] = {}
    for noun, drawings in json.loads(DRAWINGS_FILE.read_text())["packs"][style].items():
        for drawing in drawings:
            set_name, icon_name = drawing.split(":")
            if set_name not in icon_sets:
                icon_sets[set_name] = _IconSet(node_modules / "@iconify-json" / set_name)
            sprite = icon_sets[set_name].draw_icon(icon_name)
            if sprite is None:
                raise ValueError(f"Expected an icon {icon_name!r} in the set {set_name!r}. Install a newer set.")
            is_painted = style in PAINTED_STYLES
            cells.append([noun, drawing])
            sprites.append(_to_ink_and_paper(sprite, noun not in HOLLOW_NOUNS) if is_painted else sprite)
    _save_pack(style, sprites)
    return cells


def _to_ink_and_paper(sprite: Image.Image, has_paper: bool) -> Image.Image:
    """Tells ink (0) from paper (255): light tones of the drawing and, with `has_paper`, the holes in its ink. LA."""
    from scipy.ndimage import binary_fill_holes

    pixels = np.asarray(sprite, np.float32) / 255
    tone, alpha = pixels[..., :3] @ np.array([0.2989, 0.587, 0.114], np.float32), pixels[..., 3]
    darkest, lightest = np.percentile(tone[alpha > 0.9], (2, 98))
    tone = np.clip((tone - darkest) / max(lightest - darkest, 0.2), 0, 1)
    body = np.maximum(alpha, binary_fill_holes(alpha > 0.3)) if has_paper else alpha
    tone = tone * alpha + (1 - alpha)
    levels = np.round(np.stack([tone, body], axis=-1) * (GRAY_LEVELS - 1)) * (255 // (GRAY_LEVELS - 1))
    return Image.fromarray(levels.astype(np.uint8), "LA")


def _save_pack(style: str, sprites: list[Image.Image]) -> None:
    (PACKS_FOLDER / style).mkdir(parents=True, exist_ok=True)
    for start in range(0, len(sprites), STRIP_LENGTH):
        _save_strip(sprites[start : start + STRIP_LENGTH], PACKS_FOLDER / style / f"{start // STRIP_LENGTH:02d}.png")


def _save_strip(sprites: list[Image.Image], path: Path) -> None:
    """One palette for a few sprites keeps gradients smooth at a third of the size of full colour."""
    strip = Image.new(sprites[0].mode, (len(sprites) * SPRITE_SIZE, SPRITE_SIZE))
    for column, sprite in enumerate(sprites):
        strip.paste(sprite, (column * SPRITE_SIZE, 0))
    if strip.mode == "LA":
        strip.save(path, optimize=True)
        return
    strip.quantize(256, method=Image.Quantize.FASTOCTREE, kmeans=8, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Rebuilds packs and `index.json` from an npm `node_modules` folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("node_modules", type=Path)
    drawing_styles = list(json.loads(DRAWINGS_FILE.read_text())["packs"])
    every_style = [*ICON_STYLES, *RENDERED_STYLES, *drawing_styles]
    parser.add_argument("--styles", nargs="*", choices=every_style, default=every_style, help="all, if not given")
    arguments = parser.parse_args()
    node_modules, index_file = arguments.node_modules, PACKS_FOLDER / "index.json"
    PACKS_FOLDER.mkdir(exist_ok=True)
    index: dict[str, list[list[str]]] = json.loads(index_file.read_text())["styles"] if index_file.exists() else {}
    for style in arguments.styles:
        if style in drawing_styles:
            index[style] = build_drawing_pack(style, node_modules)
        elif style in ICON_STYLES:
            index[style] = build_sprite_pack(style, _IconSet(node_modules / ICON_STYLES[style]))
        else:
            rendered = _RenderedSet(node_modules / RENDERED_STYLES[style], node_modules / "emojibase-data")
            index[style] = build_sprite_pack(style, rendered)
    lines = ",\n".join(f'  "{style}": {json.dumps(cells)}' for style, cells in index.items())
    index_file.write_text(
        f'{{\n"sprite_size": {SPRITE_SIZE},\n"strip_length": {STRIP_LENGTH},\n"styles": {{\n{lines}\n}}\n}}\n'
    )
    for style, cells in index.items():
        print(f"{style}: {len(cells)} sprites of {len({noun for noun, _ in cells})} nouns")


if __name__ == "__main__":
    main()
