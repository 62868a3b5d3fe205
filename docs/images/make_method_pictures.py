"""Makes the pictures of `docs/how_it_works.md` and `docs/beyond.md` from the embedded checkpoint.

The scene is one that it never saw. Run by `make docs-pictures`; needs no download and about a minute.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import itaclip_hf
from itaclip_hf.drawing import draw_confidence, draw_gallery, draw_label_map, draw_named_regions, make_palette
from itaclip_hf.loading import load_demo_vocabulary
from itaclip_hf.modeling import register_attention_map
from itaclip_hf.modeling.patch_similarity import compute_cosines, gate_similarity, limit_to_regions, sample_regions
from itaclip_hf.modeling.windows import make_views, plan_windows, read_views
from itaclip_hf.regions import compute_superpixels
from itaclip_hf.samples import load_demo_scene

__all__: list[str] = []

HERE = Path(__file__).parent
SCENE = 0
WINDOW = (slice(112, 336), slice(196, 420))  # rows and columns, in pixels of the resized image
PATCH_ON_THE_DOG = (10, 24)  # row and column on the patch grid of the whole image
QUERIES = ("dog", "strawberry", "house", "grass")
ACCENT = (255, 60, 60)


def main() -> None:
    """Writes all pictures beside this file."""
    model, processor = itaclip_hf.load_demo()
    image, truth = load_demo_scene(SCENE)
    inputs = processor(images=image, return_tensors="pt")
    save("windows_and_views", draw_windows_and_views(image, inputs))
    save("attention", draw_attention(model, image, inputs["pixel_values"]))
    save("last_blocks", draw_last_blocks(image, truth))
    save("queries", draw_queries(model, processor, image, inputs["pixel_values"]))
    save("refinement", draw_refinement(image, truth))
    save("beyond", draw_beyond(model, image, truth, inputs["pixel_values"]))


def save(name: str, picture: Image.Image) -> None:
    """256 colours take a third of the space."""
    picture.quantize(256).save(HERE / f"{name}.png", optimize=True)


def draw_windows_and_views(image: Image.Image, inputs: Any) -> Image.Image:
    """How many windows see each pixel, one of them, and its five views."""
    height, width = inputs["pixel_values"].shape[-2:]
    cover = np.zeros((height, width))
    for box in plan_windows((height, width), side=224, stride=28).boxes():
        cover[box] += 1
    framed = image.copy()
    rows, columns = WINDOW
    frame = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
    ImageDraw.Draw(framed).rectangle(frame, outline=ACCENT, width=4)
    names = ("augmentation_color", "augmentation_blur", "augmentation_flip", "augmentation_weight")
    views = read_views(*(inputs[name][0] for name in names))
    seen = make_views(inputs["pixel_values"][..., rows, columns], views)[0]
    first = draw_gallery(
        [[framed, draw_confidence(cover / cover.max())]],
        ["one window of 45", f"windows that see a pixel: {cover.min():.0f} (dark) to {cover.max():.0f}"],
        cell_width=396,
    )
    titles = [f"{name}, {view.weight:.3f}" for name, view in zip(VIEW_NAMES, views, strict=True)]
    second = draw_gallery([[to_image(pixels) for pixels in seen]], titles, cell_width=154)
    return stack(first, second)


VIEW_NAMES = ("as it is", "grey", "blurred", "upside down", "mirrored")


def draw_attention(model: Any, image: Image.Image, pixels: torch.Tensor) -> Image.Image:
    """What one patch attends to in the last block: CLIP's map, and those of ITACLIP."""
    recorded: list[Any] = []  # of the last block, then of the intermediate ones

    def record(attend: Any, projections: Any, value: torch.Tensor) -> torch.Tensor:
        recorded.append(projections)
        return attend(projections.query, projections.key, value)

    register_attention_map("recorded", record)
    own = model.config.attention_maps
    model.config.attention_maps = ("recorded",)
    grid = model.vision_model.compute_grid(*pixels.shape[-2:])
    with torch.no_grad():
        model.encode_patches(pixels)
    model.config.attention_maps = own
    place = PATCH_ON_THE_DOG[0] * grid[1] + PATCH_ON_THE_DOG[1]
    crossed = attend_from(recorded[0].query, recorded[0].key, place)
    last, *intermediate = (
        attend_from(block.query, block.query, place) + attend_from(block.key, block.key, place) for block in recorded
    )
    mixed = (last + torch.stack(intermediate).mean(0)) / 2
    cells = [mark_patch(image, grid), *(draw_map(each.reshape(grid), image.size) for each in (crossed, last, mixed))]
    titles = ["a patch of the dog", "CLIP: softmax(q·k)", "softmax(q·q) + softmax(k·k)", "mixed with blocks 7, 8, 10"]
    return draw_gallery([cells], titles, cell_width=240)


def attend_from(query: torch.Tensor, key: torch.Tensor, place: int) -> torch.Tensor:
    """What a patch attends to, (patches,), the mean of the heads; the class token comes first and is left out."""
    logits = (query @ key.transpose(-1, -2)) / query.shape[-1] ** 0.5
    return logits.softmax(-1)[0].mean(0)[1 + place, 1:]


def mark_patch(image: Image.Image, grid: tuple[int, int]) -> Image.Image:
    marked, side = image.copy(), image.width / grid[1]
    top, left = (round(index * side) for index in PATCH_ON_THE_DOG)
    ImageDraw.Draw(marked).rectangle((left, top, left + side, top + side), outline=ACCENT, width=4)
    return marked


def draw_map(values: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    """A map from its lowest to its highest value, dark to bright, patch by patch."""
    values = values - values.min()
    return draw_confidence((values / values.max()).numpy()).resize(size, Image.Resampling.NEAREST)


def draw_last_blocks(image: Image.Image, truth: np.ndarray) -> Image.Image:
    """The same weights and windows with the last blocks of four methods, without refinement."""
    names = load_demo_vocabulary().labels
    cells, titles = [name_classes(truth, names)], ["truth"]
    for method, title in (("clip", "CLIP"), ("maskclip", "MaskCLIP"), ("sclip", "SCLIP"), ("itaclip", "ITACLIP")):
        plain = {"window_stride": 56, "pamr_steps": 0, "image_engineering": False, "score_threshold": 0.0}
        plain |= {"area_threshold": None, "window_size": 224, "shortest_edge": 336}
        labels = label(image, method=method, **plain)
        cells.append(name_classes(labels, names))
        titles.append(f"{title}: {(labels == truth).mean():.0%} right")
    return draw_gallery([cells], titles, cell_width=192)


def label(image: Image.Image, **arguments: Any) -> np.ndarray:
    """Label map of the embedded checkpoint's own classes."""
    segmenter = itaclip_hf.pipeline(model="demo")
    return segmenter(image, load_demo_vocabulary(), output="map", **arguments)["labels"].numpy()


def name_classes(labels: np.ndarray, names: list[str]) -> Image.Image:
    return draw_named_regions(draw_label_map(labels, make_palette()), labels, names)


def draw_queries(model: Any, processor: Any, image: Image.Image, pixels: torch.Tensor) -> Image.Image:
    """Cosines of the patches with four words, and the word that is nearest to each patch."""
    with torch.no_grad():
        queries, _ = model.encode_vocabulary(processor, itaclip_hf.Vocabulary(QUERIES))
        cosines = model.encode_patches(pixels)[0] @ queries.T
    cells = [draw_map(cosines[..., index], image.size) for index in range(len(QUERIES))]
    nearest = np.array(Image.fromarray(cosines.argmax(-1).byte().numpy()).resize(image.size, Image.Resampling.NEAREST))
    return draw_gallery([[*cells, name_classes(nearest, list(QUERIES))]], [*QUERIES, "the nearest"], cell_width=192)


def draw_refinement(image: Image.Image, truth: np.ndarray) -> Image.Image:
    """Label maps without and with refinement, and a part of them enlarged."""
    names, box = load_demo_vocabulary().labels, (8, 130, 178, 336)
    cells, parts, titles = [image], [image.crop(box)], ["scene"]
    for title, changes in (
        ("stitched", {"pamr_steps": 0, "closing": False}),
        ("ten steps of PAMR", {"closing": False}),
        ("closed: the result", {}),
    ):
        labels = label(image, preset="demo", **changes)
        cells.append(name_classes(labels, names))
        parts.append(draw_label_map(labels, make_palette()).crop(box))
        titles.append(f"{title}: {(labels == truth).mean():.1%}")
    return draw_gallery([cells, parts], titles, cell_width=240)


def draw_beyond(model: Any, image: Image.Image, truth: np.ndarray, pixels: torch.Tensor) -> Image.Image:
    """What a patch is like by block 9, the attention made of it, also within regions; regions and their vote."""
    grid = model.vision_model.compute_grid(*pixels.shape[-2:])
    place = PATCH_ON_THE_DOG[0] * grid[1] + PATCH_ON_THE_DOG[1]
    with torch.no_grad():
        states = model.vision_model(pixels, output_hidden_states=[9]).hidden_states[9]
    similarity = compute_cosines(states[:, 1:])
    superpixels = compute_superpixels(image)
    whole = torch.from_numpy(truth + 1)[None].long()  # superpixels would show the patch little but itself
    regions = sample_regions(whole, grid)
    allowed = limit_to_regions(similarity, regions)
    maps = (
        similarity,
        gate_similarity(similarity, sharpness=3.0, threshold=1.0),
        gate_similarity(similarity, sharpness=3.0, threshold=1.0, allowed=allowed),
    )
    drawn = [draw_map(each[0, place].reshape(grid), image.size) for each in maps]
    first = draw_gallery(
        [[mark_patch(image, grid), *drawn]],
        ["a patch of the dog", "cosines of block 9", "the map made of them", "the same within the true region"],
        cell_width=240,
    )
    names, cells, titles = load_demo_vocabulary().labels, [], ["superpixels"]
    cells.append(draw_label_map(superpixels % 200, make_palette()))
    for title, changes in (("no refinement", {}), ("and the vote", {"region_maps": superpixels, "region_vote": True})):
        labels = label(image, preset="demo", pamr_steps=0, **changes)
        cells.append(name_classes(labels, names))
        titles.append(f"{title}: {(labels == truth).mean():.1%} right")
    cells.append(name_classes(truth, names))
    return stack(first, draw_gallery([cells], [*titles, "truth"], cell_width=240))


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Pixels as they go into the tower, spread over the range of grey levels."""
    low, high = pixels.min(), pixels.max()
    return Image.fromarray(((pixels - low) / (high - low) * 255).byte().permute(1, 2, 0).numpy())


def stack(*pictures: Image.Image) -> Image.Image:
    page = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    return page


if __name__ == "__main__":
    main()
