"""Texts by a language model: what counts as an answer, retries, resuming, and a tiny random chat model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from itaclip_hf import Vocabulary
from itaclip_hf.evaluation.texts.llm_texts import (
    AnswerError,
    GenerationOptions,
    build_messages,
    clean_answer,
    generate_texts,
    load_chat_model,
    make_length_check,
)
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.processing import IMAGENET_TEMPLATES

WORDS = Vocabulary(["cat", ["dog", "puppy"], "traffic light"], background=["sky"])


class ScriptedModel:
    """Gives each class its answers in turn, and remembers what it was asked."""

    def __init__(self, answers: dict[str, list[str]], fail_after: int | None = None) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []
        self.conversations: list[list[dict[str, str]]] = []
        self.fail_after = fail_after

    def __call__(self, conversations: Sequence[list[dict[str, str]]], seed: int) -> list[str]:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        names = [conversation[-1]["content"].rpartition("Term: ")[2] for conversation in conversations]
        self.asked.append(names)
        self.conversations.extend(conversations)
        rounds = [sum(m["role"] == "assistant" for m in conversation) - 2 for conversation in conversations]
        return [self.answers[name][round_] for name, round_ in zip(names, rounds, strict=True)]


def generate(model: Callable, kind: str = "synonyms", **options: object) -> object:
    asking = GenerationOptions(**{"batch_size": 2, "attempts": 3, **options.pop("settings", {})})
    options = {"fits": lambda text: len(text) < 60, "show_progress": False, **options}
    return generate_texts(WORDS, kind, model, "scripted", options=asking, **options)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("feline", "feline"),
        (" Feline.\n", "Feline"),
        ('"feline"', "feline"),
        ("Synonym: feline", "feline"),
        ("cat: feline", "feline"),
        ("**Cat**: feline", "feline"),
        ("cat >=feline", "feline"),
        ("<think>a cat, hm\nlet me see</think>\n\nfeline\n\nI hope this helps!", "feline"),
        ("stop-light", "stop-light"),
    ],
)
def test_the_usable_part_of_an_answer_is_kept(answer: str, text: str) -> None:
    assert clean_answer("synonyms", ["cat"], answer, lambda _: True) == text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("<think>no end", "empty"),
        ('""', "empty"),
        ("cat", "the term itself"),
        ("Cat.", "the term itself"),
        ("kitty", "the term itself"),
        ("a small cat", "not exactly one word"),
        ("tom/cat", "not exactly one word"),
        ("4", "not exactly one word"),
    ],
)
def test_useless_synonyms_are_refused_with_the_reason(answer: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        clean_answer("synonyms", ["cat", "kitty"], answer, lambda _: True)


def test_definitions_may_be_long_but_must_fit() -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_CHECKPOINT)
    fits = make_length_check(tokenizer, IMAGENET_TEMPLATES)
    assert clean_answer("definitions", ["cat"], "a small pet that purrs.", fits) == "a small pet that purrs"
    with pytest.raises(AnswerError, match="too long"):
        clean_answer("definitions", ["cat"], "a small pet that purrs and " * 20, fits)
    tokens_of_longest = max(len(tokenizer(template.format("")).input_ids) for template in IMAGENET_TEMPLATES)
    assert not make_length_check(tokenizer, IMAGENET_TEMPLATES, tokens_of_longest)("a small pet")


def test_conversations_alternate_and_end_with_the_question() -> None:
    messages = build_messages("definitions", "cat", [("cat", "The answer was the term itself.")])
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3 + ["user"]
    assert messages[0]["content"].startswith("You write for a dictionary")
    assert messages[-1]["content"] == "The answer was the term itself. Answer again.\n\nTerm: cat"


def test_every_class_gets_its_text_in_batches() -> None:
    model = ScriptedModel({"cat": ["feline"], "dog": ["hound"], "traffic light": ["stoplight"]})
    report = generate(model)
    assert model.asked == [["cat", "dog"], ["traffic light"]]
    assert [entry.auxiliary_texts for entry in report.vocabulary.classes] == [("feline",), ("hound",), ("stoplight",)]
    assert report.vocabulary.background == ("sky",)
    assert report.failures == {}


def test_useless_answers_are_asked_for_again_with_the_reason_and_then_reported() -> None:
    answers = {
        "cat": ["", "the cat", "feline"],
        "dog": ["hound"],
        "traffic light": ["a", "traffic light", "two words"],
    }
    model = ScriptedModel({**answers, "traffic light": ["traffic light", "two words", "one two"]})
    report = generate(model)
    assert model.asked == [["cat", "dog"], ["traffic light"], ["cat", "traffic light"], ["cat", "traffic light"]]
    assert "The answer was empty. Answer again." in model.conversations[3][-1]["content"]
    assert report.vocabulary.classes[0].auxiliary_texts == ("feline",)
    assert report.failures == {"traffic light": "The answer was not exactly one word."}
    assert report.vocabulary.classes[2].auxiliary_texts == ()
    assert report.vocabulary.metadata["without_text"] == ["traffic light"]


def test_the_vocabulary_records_model_prompt_settings_and_date() -> None:
    model = ScriptedModel({name: ["word"] for name in ("cat", "dog", "traffic light")})
    metadata = generate(model).vocabulary.metadata
    assert metadata["llm"] == "scripted"
    assert metadata["auxiliary_texts"] == "synonyms"
    assert metadata["settings"]["do_sample"] is False
    assert metadata["prompt"][-1]["content"] == "Term: <class>"
    assert len(metadata["date"].split("-")) == 3


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    answers = {"cat": ["two words", "feline"], "dog": ["hound"], "traffic light": ["stoplight"]}
    file = tmp_path / "progress.json"
    with pytest.raises(KeyboardInterrupt):
        generate(ScriptedModel(answers, fail_after=1), progress_file=file)
    assert json.loads(file.read_text())["texts"] == {"dog": "hound"}
    model = ScriptedModel(answers)
    report = generate(model, progress_file=file)
    assert model.asked == [["traffic light"], ["cat"]]
    assert report.failures == {}


def test_another_setting_refuses_to_go_on(tmp_path: Path) -> None:
    model = ScriptedModel({"cat": ["feline"], "dog": ["hound"], "traffic light": ["stoplight"]})
    generate(model, progress_file=tmp_path / "progress.json")
    with pytest.raises(ValueError, match="but attempts changed"):
        generate(model, progress_file=tmp_path / "progress.json", settings={"attempts": 2})


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="`attempts` from 1 to 100, but got 0"):
        GenerationOptions(attempts=0)
    with pytest.raises(ValueError, match=r"`temperature` from 0\.01 to 100, but got nan"):
        GenerationOptions(do_sample=True, temperature=float("nan"))


CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant "


def save_tiny_chat_model(folder: Path, chat_template: str | None = CHAT_TEMPLATE) -> None:
    words = ["<unk>", "<end>", "user", "assistant", "cat", "feline", "hound", "word", "Term", ":", "."]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=1,
        bos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_tiny_random_chat_model_answers_the_same_twice(tmp_path: Path, do_sample: bool) -> None:
    save_tiny_chat_model(tmp_path)
    asking = GenerationOptions(batch_size=2, max_new_tokens=4, do_sample=do_sample)
    model = load_chat_model(str(tmp_path), asking, device="cpu")
    conversations = [build_messages("synonyms", name) for name in ("cat", "dog", "traffic light")]
    answers = model(conversations, 3)
    assert len(answers) == 3
    assert all(isinstance(answer, str) and len(answer.split()) <= 4 for answer in answers)  # the answer alone
    assert model(conversations, 3) == answers


def test_a_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    save_tiny_chat_model(tmp_path, chat_template=None)
    with pytest.raises(ValueError, match="has no chat template"):
        load_chat_model(str(tmp_path), GenerationOptions(), device="cpu")
    with pytest.raises(OSError, match=r"Expected a chat model in .*none', but its model cannot be read"):
        load_chat_model(str(tmp_path / "none"), GenerationOptions(), device="cpu")
