"""Trains CLIP's kind of tokenizer (byte-level BPE with `</w>`) on the words of the picture world.

The vocabulary is small, but every byte is in it, alone and as the end of a word: any text tokenizes, unknown words
just take more tokens. The end token has the largest id, because CLIP pools the text at the largest id.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .captions import CAPTION_JOINTS, CAPTION_OPENINGS, PROMPT_TEMPLATES
from .vocabulary import PANORAMA_BACKGROUND_WORDS, load_world_classes

__all__ = ["build_tokenizer", "iterate_corpus", "main"]

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CLIP_SPLIT_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MAX_TEXT_LENGTH = 77


def iterate_corpus() -> Iterator[str]:
    """Names, definitions, templates and caption parts; what a text encoder meets most is repeated most."""
    for template in PROMPT_TEMPLATES:
        yield from [template.replace("{}", "")] * 20
    for part in (*CAPTION_OPENINGS, *CAPTION_JOINTS, *PANORAMA_BACKGROUND_WORDS):
        yield from [part] * 20
    for world_class in load_world_classes().classes:
        yield from [*world_class.names] * 20
        yield from [world_class.definition] * 4


def build_tokenizer(corpus: Iterable[str] | None = None, vocabulary_size: int = 2048) -> CLIPTokenizer:
    """Trains the tokenizer on the corpus, by default the words of the picture world.

    Returns:
        A `CLIPTokenizer`; `len(tokenizer)` is at most `vocabulary_size`.
    """
    vocabulary, merges = _train_byte_pairs(iterate_corpus() if corpus is None else corpus, vocabulary_size)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        Path(folder, "merges.txt").write_text(
            "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n"
        )
        return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TEXT_LENGTH)


def _train_byte_pairs(corpus: Iterable[str], vocabulary_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    trained = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    trained.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    single_bytes = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Leaves room for two special tokens and for the bytes that end a word: the trainer knows only those of the corpus.
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(single_bytes) - 2,
        initial_alphabet=single_bytes,
        end_of_word_suffix=WORD_END,
        min_frequency=2,
        show_progress=False,
    )
    trained.train_from_iterator(corpus, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    learned = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    ordered = dict.fromkeys(
        [*single_bytes, *(byte + WORD_END for byte in single_bytes), *learned, START_TOKEN, END_TOKEN]
    )
    return {token: index for index, token in enumerate(ordered)}, merges


def main() -> None:
    """Trains the tokenizer and saves it as a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    build_tokenizer().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
