"""Writes the model card of a checkpoint: what it is, how it was trained, what it scored, what it is not.

    python -m demo_world.model_card CHECKPOINT_FOLDER --curve RUN_FOLDER/curve.json --table TABLE.json …

The training figures come from the curve of a run, the scores from the JSON files of `itaclip ablate`:

    python docs/make_ablations.py --model CHECKPOINT_FOLDER --tables demo_world/parts_table.yaml --out TABLES_FOLDER
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from itaclip_hf.evaluation.ablation.report import format_ablation
from itaclip_hf.markdown import format_table

from .vocabulary import WorldClasses, load_world_classes

__all__ = ["build_model_card", "main"]

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip, itaclip, demo]
---

# A small CLIP for drawn pictures

A `CLIPModel` of {size} that shows `itaclip_hf` at work without any download: twelve vision blocks of width 128,
patch 16, 224 px, three text blocks, projection 128, in float16, with a byte-level BPE tokenizer of {tokens}
tokens. It knows {classes} classes: {stuff} (stuff) and {nouns}. `vocabulary.json` lists them with synonyms and
definitions.

**It does not understand photographs.** It has seen nothing but drawings pasted over computed textures. For real
pictures use a real CLIP, for example `openai/clip-vit-base-patch16`.

## Training

Composed scenes of drawings in colour (Noto, Noto v1, FxEmojis, Twemoji, EmojiOne 2, Streamline Emojis) and of about
700 icons of a single colour, painted in two, with strong variation of colours, shading, texture, slant and edges. Two
families were never shown: a few Streamline icons to steer by, Microsoft's Fluent emoji as test. {run}

Loss: ¼ · InfoNCE(CLS, caption) + ½ · tags(CLS) + ½ · tags(patches) + 2 · areas(patches). Tags say what is in the
picture; areas are the shares of the classes in each patch, from the composer's **exact masks**. The patch losses go
through the last block's *value path*, `h + out_proj(v_proj(layer_norm1(h)))`: as in CLIP itself, nobody trained the
patches' query–key attention and feed-forward of the last block. The ablation below is therefore one of a model made
for it: in a trial without any loss on patches, a model of this size had no usable patch features at all. The value
path alone scores within a few points of ITACLIP's maps. Grayscale, blurred and upside-down pictures were among the
training views, as image engineering feeds them.

{scores}
## Licences

The weights are Apache-2.0. Artwork: Noto and FxEmojis (Apache-2.0), Twemoji © Twitter, Inc. and other contributors,
EmojiOne 2 and Streamline (all CC BY 4.0), icons of many sets (MIT, Apache-2.0, CC BY, CC0, ISC; listed with their
authors in `demo_world/sprite_packs/ATTRIBUTION.md`), for tests Fluent Emoji © Microsoft (MIT).
"""


def build_model_card(
    world: WorldClasses,
    megabytes: float,
    tokens: int,
    curve: Sequence[dict[str, Any]],
    start: str = "",
    tables: Sequence[dict[str, Any]] = (),
) -> str:
    """The card as Markdown.

    Args:
        world: The classes.
        megabytes: Size of the weights.
        tokens: Size of the vocabulary of the tokenizer.
        curve: The curve of the run; its last entry is reported.
        start: Where the weights came from, if not from chance; one or more sentences.
        tables: Contents of the tables' JSON files.
    """
    last = curve[-1]
    duration = f"{last['scenes']:,} scenes in {last['minutes']:.0f} minutes on a shared two-core machine, bfloat16"
    run = f"{start} This run: {duration}."
    return CARD.format(
        size=f"{megabytes:.1f} MB",
        tokens=tokens,
        classes=len(world.classes),
        stuff=", ".join(entry.label for entry in world.stuff),
        nouns=", ".join(entry.label for entry in world.nouns),
        run=run.strip(),
        scores="".join([*map(_format_scores, tables), _format_curve(curve)]),
    )


def _format_scores(report: dict[str, Any]) -> str:
    run = report["run"]
    return (
        f"## {report['title']}\n\nmIoU in percent on fresh scenes of 336×448 px in held-out Fluent styles "
        f"(`{run['dataset']}`), windows at stride {run['settings']['window_stride']}; paired bootstrap over scenes, "
        f"one training seed.\n\n{format_ablation(report)}\n"
    )


def _format_curve(curve: Sequence[dict[str, Any]]) -> str:
    """The looks at fresh scenes that training took."""
    columns = ("seen_plain", "seen_itaclip", "validation_plain", "validation_itaclip")
    rows = [
        (f"{entry['scenes']:,}", *(f"{entry[column]:.1f}" for column in columns))
        for entry in curve
        if columns[-1] in entry
    ]
    if not rows:
        return ""
    header = ("scenes", "seen styles, plain", "seen styles, ITACLIP", "validation, plain", "validation, ITACLIP")
    return (
        "## Curve of the run\n\nmIoU on 48 scenes of 224 px each, one window, six templates, no refinement: figures "
        "to steer by. The validation styles draw only some of the nouns, in lines and few colours, unlike the test."
        f"\n\n{format_table(header, rows)}\n"
    )


def main() -> None:
    """Writes README.md into a checkpoint folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--curve", type=Path, required=True)
    parser.add_argument("--table", type=Path, nargs="*", default=[])
    parser.add_argument("--start", default="")
    parser.add_argument("--all-nouns", action="store_true")
    arguments = parser.parse_args()
    card = build_model_card(
        load_world_classes(small=not arguments.all_nouns),
        (arguments.folder / "model.safetensors").stat().st_size / 1e6,
        json.loads((arguments.folder / "config.json").read_text())["text_config"]["vocab_size"],
        json.loads(arguments.curve.read_text()),
        arguments.start,
        [json.loads(path.read_text()) for path in arguments.table],
    )
    (arguments.folder / "README.md").write_text(card)


if __name__ == "__main__":
    main()
