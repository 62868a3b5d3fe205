"""`itaclip texts`: definitions or synonyms of classes by a chat model, as a vocabulary file."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..auto_registration import DEFAULT_CHECKPOINT
from .options.model import quiet_libraries
from .options.processes import DeviceOption
from .options.run import SEEDS
from .options.settings import name_option
from .options.vocabulary import read_class_file
from .terminal import say, warn

__all__ = ["texts"]


class Kind(str, Enum):
    """What to ask for."""

    definitions = "definitions"
    synonyms = "synonyms"


def texts(
    classes: Annotated[Path, typer.Option(help="Class names as JSON or in the published text formats.")],
    llm: Annotated[str, typer.Option(help="Chat model: a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Vocabulary file to write; none that is there is replaced.")],
    kind: Annotated[Kind, typer.Option(help="What to ask for.")] = Kind.definitions,
    background_first_line: Annotated[
        bool, typer.Option("--background-first-line", help="The first line of the classes lists background words.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="CLIP checkpoint whose tokenizer the texts must fit (77 tokens in the longest prompt).")
    ] = DEFAULT_CHECKPOINT,
    batch_size: Annotated[int, typer.Option(min=1, help="Classes that are asked for together.")] = 8,
    attempts: Annotated[int, typer.Option(min=1, help="How often a class is asked for.")] = 4,
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample the answers; otherwise they are the same every time.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="Of the sampling; default: 0.6.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the sampling; default: 0.9.")] = None,
    seed: Annotated[int | None, typer.Option(**SEEDS, help="Of the sampling; default: 0.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Let a language model write a definition or a one-word synonym of every class.

    Answers are kept in OUT.progress.json until all classes were asked for; a run that was stopped goes on. Classes
    without a usable answer are listed, keep the texts they had, and the exit code is 1.
    """
    from ..files import refuse_others, write_json
    from ..processing import IMAGENET_TEMPLATES

    asked = {"temperature": temperature, "top_p": top_p, "seed": seed}
    sampling: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if sampling and not sample:
        raise ValueError(
            f"Expected --sample with {', '.join(map(name_option, sampling))}, but got none: answers are the likeliest "
            "then. Add it, or leave out what is of the sampling."
        )
    refuse_others([out])
    words = read_class_file(classes, background_first_line)

    # Not before: these take seconds, and a wrong file is told at once.
    from transformers import AutoTokenizer

    from ..evaluation.texts.llm_texts import GenerationOptions, generate_texts, load_chat_model, make_length_check
    from ..loading import choose_device, resolve_checkpoint, telling_what_is_broken

    settings = GenerationOptions(batch_size=batch_size, attempts=attempts, do_sample=sample, **sampling)
    quiet_libraries()
    place = choose_device(device)
    with telling_what_is_broken(model, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint(model))
    fits = make_length_check(tokenizer, IMAGENET_TEMPLATES)
    progress_file = out.with_name(f"{out.name}.progress.json")
    chat_model = load_chat_model(llm, settings, device=str(place))  # at last, as it takes longest
    try:
        report = generate_texts(words, kind.value, chat_model, llm, fits, settings, progress_file)
    except KeyboardInterrupt as stop:
        where = f"Answers so far are kept in {progress_file}"
        raise type(stop)(f"{where}. To go on, run the same command again.") from None
    write_json(out, report.vocabulary.to_dict())
    progress_file.unlink(missing_ok=True)
    say(f"{len(words.classes) - len(report.failures)} of {len(words.classes)} classes have {kind.value}: {out}")
    if report.failures:
        for label, reason in report.failures.items():
            warn(f"{label}: {reason}")
        raise typer.Exit(1)
