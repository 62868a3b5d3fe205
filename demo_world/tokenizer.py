"""Trains CLIP's kind of tokenizer (byte-level BPE with `</w>`) on the words of the picture world.

The vocabulary is small, but every byte is in it, alone and as the end of a word: any text tokenizes, unknown words
just take more tokens. The end token has the largest id, because CLIP pools the text at the largest id.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizer

from .captions import CAPTION_JOINTS, CAPTION_OPENINGS, PROMPT_TEMPLATES
from .vocabulary import PANORAMA_BACKGROUND_WORDS, load_world_classes

__all__ = ["build_tokenizer", "iterate_corpus", "main"]

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
CLIP_SPLIT_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MAX_TEXT_LENGTH = 77
LEAST_PAIR_COUNT = 2


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
    """Token ids and merges, in order.

    The trainer of `tokenizers` merges pairs of equal frequency in an order that changes from process to process, and
    with it the ids. Here ties go to the alphabet: every process trains the same tokenizer.
    """
    single_bytes = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*single_bytes, *(byte + WORD_END for byte in single_bytes)]
    words = {(*word[:-1], word[-1] + WORD_END): count for word, count in _count_words(corpus).items()}
    merges: list[tuple[str, str]] = []
    while len(tokens) < vocabulary_size - 2:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < LEAST_PAIR_COUNT:
            break
        merges.append(best)
        tokens.append("".join(best))
        words = {_merge(word, best): count for word, count in words.items()}
    # Two ways to merge may lead to the same token.
    ordered = dict.fromkeys([*tokens, START_TOKEN, END_TOKEN])
    return {token: index for index, token in enumerate(ordered)}, merges


def _count_words(corpus: Iterable[str]) -> Counter[str]:
    """How often each word stands in the corpus, its bytes written as CLIP's tokenizer writes them."""
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLIT_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return Counter(
        word for text in corpus for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)) if word
    )


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with every occurrence of the pair joined, from left to right."""
    merged: list[str] = []
    for part in word:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def main() -> None:
    """Trains the tokenizer and saves it as a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    build_tokenizer().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
