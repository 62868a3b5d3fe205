"""Texts about classes by a language model: the T of ITACLIP.

Any chat model is asked for a definition or a one-word synonym of every class. Answers are checked, asked for again
with the reason if they are of no use, and kept on disk as they come, so that a stopped run goes on. What stays
unanswered is reported by class.
"""

import datetime
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.progress import track

from ...files import read_json, write_json
from ...loading import telling_what_is_broken
from ...processing import Vocabulary

__all__ = [
    "AnswerError",
    "ChatModel",
    "GenerationOptions",
    "TextKind",
    "TextReport",
    "build_messages",
    "clean_answer",
    "generate_texts",
    "load_chat_model",
    "make_length_check",
]

TextKind = Literal["definitions", "synonyms"]
Messages = list[dict[str, str]]
ChatModel = Callable[[Sequence[Messages], int], Sequence[str]]
"""Conversations and a seed → one answer each."""

_INSTRUCTIONS: dict[str, str] = {
    "definitions": (
        "You write for a dictionary of visible things. For each term, answer with one brief definition of what it "
        "looks like or is used for: a single phrase, without the term itself, with no other words around it."
    ),
    "synonyms": (
        "You write for a thesaurus of visible things. For each term, answer with exactly one synonym that is a single "
        "word. If there is none, answer with the one word that is closest in meaning. Write nothing else."
    ),
}
_EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "definitions": (
        ("ladder", "two long upright bars with steps between them, used for climbing"),
        ("harbour", "a sheltered place at the coast where ships lie at the quay"),
    ),
    "synonyms": (("ladder", "stepladder"), ("harbour", "port")),
}
_RANGES = {
    "batch_size": (1, 4096),
    "attempts": (1, 100),
    "max_new_tokens": (1, 4096),
    "temperature": (0.01, 100),
    "top_p": (0.01, 1),
    "seed": (0, 2**31 - 1),
}
_QUOTES = "\"'`“”‘’*"


class AnswerError(ValueError):
    """An answer is of no use; the message tells the model why."""


@dataclass(frozen=True)
class GenerationOptions:
    """How the language model is asked.

    Args:
        batch_size: Conversations at once.
        attempts: How often a class is asked for.
        max_new_tokens: Longest answer.
        do_sample: Whether to sample; otherwise the likeliest answer, the same every time.
        temperature: Of the sampling.
        top_p: Of the sampling.
        seed: Of the sampling.

    Raises:
        ValueError: If a number is out of its range.
    """

    batch_size: int = 8
    attempts: int = 4
    max_new_tokens: int = 96
    do_sample: bool = False
    temperature: float = 0.6
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # written so that NaN is refused
                raise ValueError(f"Expected `{name}` from {least:g} to {most:g}, but got {value}. Use such a number.")

    def to_dict(self) -> dict[str, Any]:
        """Settings that change answers; those of sampling only where it is on."""
        common = {
            "attempts": self.attempts,
            "batch_size": self.batch_size,
            "do_sample": self.do_sample,
            "max_new_tokens": self.max_new_tokens,
        }
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return common | (sampling if self.do_sample else {})


@dataclass(frozen=True)
class TextReport:
    """What came of it.

    Args:
        vocabulary: The classes with their new texts; those without an answer keep what they had.
        failures: Class → why its last answer was of no use.
    """

    vocabulary: Vocabulary
    failures: Mapping[str, str]


def generate_texts(
    vocabulary: Vocabulary,
    kind: TextKind,
    chat_model: ChatModel,
    chat_model_name: str,
    fits: Callable[[str], bool],
    options: GenerationOptions | None = None,
    progress_file: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> TextReport:
    """Asks for a text about every class.

    Args:
        vocabulary: The classes.
        kind: Definitions or synonyms.
        chat_model: Answers conversations; see `load_chat_model`.
        chat_model_name: What the vocabulary's metadata call it.
        fits: Whether a text is short enough; see `make_length_check`.
        options: How to ask.
        progress_file: Answers are kept there until the vocabulary is complete; None to keep none.
        show_progress: Whether to show a progress bar.

    Returns:
        The vocabulary with texts, and what is missing.

    Raises:
        ValueError: Progress was made with other options.
    """
    options = options or GenerationOptions()
    description = {"kind": kind, "llm": chat_model_name, "vocabulary": vocabulary.fingerprint, **options.to_dict()}
    answers = _Answers(progress_file, description)
    names = {entry.label: entry.names for entry in vocabulary.classes}
    labels = list(names)
    for attempt in range(options.attempts):
        # Who is asked in one batch must not depend on where a former run was stopped: it may change the answers.
        wanted = [label for label in labels if answers.asked(label) >= attempt]
        batches = [wanted[n : n + options.batch_size] for n in range(0, len(wanted), options.batch_size)]
        batches = [batch for batch in batches if any(answers.is_open(label, attempt) for label in batch)]
        title = kind if attempt == 0 else f"{kind}, attempt {attempt + 1}"
        for batch in track(batches, description=title, disable=not show_progress or not batches):
            conversations = [build_messages(kind, label, answers.rejected(label)) for label in batch]
            # By attempt and place, so that a run that goes on samples what an unbroken one would have.
            seed = options.seed + 1_000_003 * attempt + labels.index(batch[0])
            for label, answer in zip(batch, chat_model(conversations, seed), strict=True):
                answers.note(label, answer, kind, names[label], fits)
            answers.save()
    return _make_report(vocabulary, answers, description)


def build_messages(kind: TextKind, name: str, rejected: Sequence[tuple[str, str]] = ()) -> Messages:
    """The conversation that asks for one text; `rejected` has earlier answers and why they were of no use."""
    messages = []
    question = _INSTRUCTIONS[kind]
    for term, answer in _EXAMPLES[kind]:
        # Some chat templates know no system role, so the instructions open the first question.
        messages += [_message("user", f"{question}\n\nTerm: {term}".lstrip()), _message("assistant", answer)]
        question = ""
    messages.append(_message("user", f"Term: {name}"))
    for answer, reason in rejected:
        messages += [_message("assistant", answer or "-"), _message("user", f"{reason} Answer again.\n\nTerm: {name}")]
    return messages


def clean_answer(kind: TextKind, names: Sequence[str], answer: str, fits: Callable[[str], bool]) -> str:
    """The usable part of an answer about a class of these names.

    Raises:
        AnswerError: There is none.
    """
    # Reasoning models think aloud first; where the token limit cut them off, to the end.
    answer = re.sub(r"<think>.*?(</think>|$)", "", answer, flags=re.DOTALL)
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if not lines:
        raise AnswerError("The answer was empty.")
    text = _strip_label(lines[0], names)
    text = text.strip(_QUOTES + " ").rstrip(".;,").strip(_QUOTES + " ")  # quotes stand outside of the stop, or inside
    if not text:
        raise AnswerError("The answer was empty.")
    if text.casefold() in {name.casefold() for name in names}:
        raise AnswerError("The answer was the term itself.")
    if kind == "synonyms" and not re.fullmatch(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text):
        raise AnswerError("The answer was not exactly one word.")
    if not fits(text):
        raise AnswerError("The answer was too long.")
    return text


def make_length_check(tokenizer: Any, templates: Sequence[str], max_length: int = 77) -> Callable[[str], bool]:
    """Whether a text fits CLIP's context inside the longest template, with the tokens of start and end."""
    longest = max(templates, key=lambda template: len(tokenizer(template.format("")).input_ids))
    return lambda text: len(tokenizer(longest.format(text), truncation=False, verbose=False).input_ids) <= max_length


def load_chat_model(name: str, options: GenerationOptions, device: str | None = None) -> ChatModel:
    """A chat model of Transformers' text-generation pipeline.

    Args:
        name: Folder or hub id.
        options: How to generate.
        device: Where it runs; the first GPU or the CPU if not given.

    Raises:
        ValueError: Its tokenizer has no chat template.
        OSError: It cannot be loaded.
    """
    from transformers import pipeline, set_seed

    with telling_what_is_broken(name, "model", "chat model"):
        generator = pipeline("text-generation", model=name, dtype="auto", device=device)
    tokenizer = generator.tokenizer
    if tokenizer is None or tokenizer.chat_template is None:
        raise ValueError(
            f"Expected a chat model, but the tokenizer of {name!r} has no chat template. "
            "Use an instruction-tuned model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # many chat models have none, and batches are padded
    tokenizer.padding_side = "left"  # answers follow the last token of every conversation of a batch
    sampling = {"temperature": options.temperature, "top_p": options.top_p} if options.do_sample else {}

    def answer(conversations: Sequence[Messages], seed: int) -> list[str]:
        set_seed(seed)
        outputs: Any = generator(
            list(conversations),
            batch_size=options.batch_size,
            max_new_tokens=options.max_new_tokens,
            do_sample=options.do_sample,
            return_full_text=False,
            **sampling,
        )
        return [output[0]["generated_text"] for output in outputs]

    return answer


class _Answers:
    """Texts so far and answers of no use, on disk where a file is given."""

    def __init__(self, file: str | os.PathLike[str] | None, description: Mapping[str, Any]) -> None:
        self._file = None if file is None else Path(file)
        self._description = dict(description)
        self.texts: dict[str, str] = {}
        self._rejected: dict[str, list[tuple[str, str]]] = {}
        if self._file is not None and self._file.exists():
            self._read(self._file)

    def _read(self, file: Path) -> None:
        content = read_json(file)
        if not isinstance(content, dict) or content.keys() != {"settings", "texts", "rejected"}:
            raise ValueError(f"Expected {file} to hold earlier answers, but it is another file. Use another `--out`.")
        if content["settings"] != self._description:
            changed = sorted(
                key
                for key in content["settings"].keys() | self._description.keys()
                if content["settings"].get(key) != self._description.get(key)
            )
            raise ValueError(
                f"Expected the settings with which {file} was begun, but {', '.join(changed)} changed. "
                "Choose another `--out`, use the former settings, or delete the file to begin anew."
            )
        self.texts = content["texts"]
        self._rejected = {label: [(a, reason) for a, reason in pairs] for label, pairs in content["rejected"].items()}

    def asked(self, label: str) -> int:
        """How many answers about a class were of no use."""
        return len(self._rejected.get(label, []))

    def is_open(self, label: str, attempt: int) -> bool:
        """Whether a class still needs this attempt."""
        return label not in self.texts and self.asked(label) == attempt

    def rejected(self, label: str) -> list[tuple[str, str]]:
        return self._rejected.get(label, [])

    def note(self, label: str, answer: str, kind: TextKind, names: Sequence[str], fits: Callable[[str], bool]) -> None:
        try:
            self.texts[label] = clean_answer(kind, names, answer, fits)
        except AnswerError as error:
            self._rejected.setdefault(label, []).append((answer, str(error)))

    def save(self) -> None:
        if self._file is not None:
            write_json(self._file, {"settings": self._description, "texts": self.texts, "rejected": self._rejected})

    @property
    def failures(self) -> dict[str, str]:
        """Classes without a text, and what was wrong with the last answer."""
        return {label: pairs[-1][1] for label, pairs in self._rejected.items() if label not in self.texts}


def _make_report(vocabulary: Vocabulary, answers: _Answers, description: Mapping[str, Any]) -> TextReport:
    metadata = {
        **(vocabulary.metadata or {}),
        "auxiliary_texts": description["kind"],
        "llm": description["llm"],
        "prompt": build_messages(description["kind"], "<class>"),
        "settings": {key: value for key, value in description.items() if key not in ("llm", "vocabulary", "kind")},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "without_text": sorted(answers.failures),
    }
    texts = vocabulary.with_auxiliary_texts(answers.texts)
    return TextReport(replace(texts, metadata=metadata), answers.failures)


def _strip_label(line: str, names: Sequence[str]) -> str:
    """Drops "Term: dog", "dog:", "Synonym:" and the like in front of the text itself."""
    prefixes = [re.escape(name) for name in names] + ["definition", "synonym", "answer"]
    return re.sub(
        rf"^[{re.escape(_QUOTES)}\s]*(?:{'|'.join(prefixes)})[{re.escape(_QUOTES)}]*\s*(?::|>=|=|–|—)\s*",
        "",
        line,
        flags=re.I,
    )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
