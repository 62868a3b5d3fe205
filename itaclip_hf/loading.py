"""The loader: from the name of a checkpoint to a model and its processor, with settings, vocabulary, dtype and device.

Commands, evaluations, benchmarks and the demo all load here, so that what is wrong with a checkpoint is found here.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .auto_registration import DEFAULT_CHECKPOINT
from .methods import Settings, check_setting, get_method, get_preset, identify_method
from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from .modeling.configuration_itaclip import fit_intermediate_layers
from .modeling.data_contract import are_embeddings
from .processing import ITACLIPProcessor, Vocabulary
from .text_cache import TextCache

__all__ = [
    "DEFAULT_CHECKPOINT",
    "DEMO_CHECKPOINT",
    "NUMBER_FORMATS",
    "Loaded",
    "check_folder",
    "check_weights",
    "choose_device",
    "choose_dtype",
    "collect_changes",
    "computes_fast_in_bfloat16",
    "load",
    "load_config",
    "load_demo",
    "load_demo_vocabulary",
    "load_processor",
    "name_dtype",
    "resolve_checkpoint",
    "telling_what_is_broken",
]

DEMO_CHECKPOINT = Path(__file__).parent / "assets" / "demo_checkpoint"
NUMBER_FORMATS = ("auto", "float32", "bfloat16", "float16")
FAST_CPU_FEATURES = ("amx_bf16", "avx512_bf16")

logger = logging.getLogger(__name__)

Checkpoint = str | os.PathLike[str]

POINTER_START = b"version https://git-lfs"
LARGEST_WEIGHT = 1e6  # those of CLIP stay below 100
SAMPLED_WEIGHTS = 4096


class Loaded(NamedTuple):
    """What goes together.

    Attributes:
        model: The model, in evaluation mode.
        processor: Its processor.
    """

    model: ITACLIPForSemanticSegmentation
    processor: ITACLIPProcessor


def load(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    vocabulary: Vocabulary | None = None,
    *,
    method: str | None = None,
    benchmark: str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    proxy: Checkpoint | torch.nn.Module | None = None,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str = "auto",
) -> Loaded:
    """Load a checkpoint, ready to segment.

    Settings are the checkpoint's own, which of a stock CLIP checkpoint are the paper's. A method replaces them all; a
    benchmark decides what that method, or else the checkpoint's, changes from one benchmark to another; preset and
    settings win over both.

    Args:
        checkpoint: Folder or hub id of a CLIP or ITACLIP checkpoint, or "demo" for the embedded one.
        vocabulary: To be baked into the model; by default it keeps what it has.
        method: "itaclip", "sclip", "corrclip" or another of `method_names()`.
        benchmark: Such as "voc21".
        preset: "paper", "balanced", "fast" or "live".
        settings: Settings by name; see [`Settings`].
        proxy: Another backbone whose patches the method compares, such as "facebook/dino-vitb8"; see
            [`~ITACLIPForSemanticSegmentation.attach_proxy`]. A folder that was saved with one brings it along.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device is fast in it, else float32.
        device: Where it shall run; "auto": the GPU if there is one.

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If the checkpoint lacks weights or does not fit its tokenizer, or a name or value is unknown.
        OSError: If the checkpoint cannot be loaded.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary
    >>> from itaclip_hf.loading import load

    >>> model, processor = load("demo", Vocabulary(["sky", "grass", "dog"]), method="naclip")
    >>> model.config.id2label
    {0: 'sky', 1: 'grass', 2: 'dog'}

    ```
    """
    place, asked = resolve_checkpoint(checkpoint), (method, benchmark, preset, settings)
    changes = collect_changes(*asked)
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        raise TypeError(
            f"Expected `vocabulary` to be a Vocabulary, but got {type(vocabulary).__name__}. Make one of its words."
        )
    chosen_device = choose_device(device)
    # Already while loading: the default of a setting may not fit the tower, as when this has fewer blocks.
    held = Settings().held_by("config")
    of_config = {name: value for name, value in changes.items() if name in held}
    check_folder(place)
    with telling_what_is_broken(place, "model"):
        model = _load_model(place, choose_dtype(dtype, chosen_device), chosen_device, of_config)
    processor = load_processor(model, place)
    with telling_what_is_broken(place, "processor"):
        own = Settings.of(model, processor)
    changes = collect_changes(*asked, model.config)  # now that the depth of the tower is known
    if method is None and benchmark is not None:
        known = identify_method(own) or get_method("itaclip")
        changes = {**known.benchmark_settings(benchmark), **changes}
    if changes:
        own.replace(**changes).apply(model, processor)
    _attach_proxy(model, proxy)
    if vocabulary is not None:
        model.set_vocabulary(processor, vocabulary, TextCache())
    return Loaded(model, processor)


def _attach_proxy(model: ITACLIPForSemanticSegmentation, proxy: Any) -> None:
    if proxy is not None:
        if not model.config.uses_proxy:
            raise ValueError(
                "Expected a proxy only with a method that compares its patches, such as proxyclip or corrclip, but "
                "got one. Leave it out, or name such a method."
            )
        with telling_what_is_broken(proxy, "proxy", "vision backbone"):
            model.attach_proxy(proxy)
            check_weights(model.proxy_model, proxy if isinstance(proxy, str | os.PathLike) else None)
    if model.config.uses_proxy and model.proxy_model is None:
        raise ValueError(
            "Expected a proxy, whose patches this method compares, but got none. Name one, such as "
            '"facebook/dino-vitb8".'
        )


def collect_changes(
    method: str | None = None,
    benchmark: str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: ITACLIPConfig | None = None,
) -> dict[str, Any]:
    """What is asked of the settings: all of a method's, changed by a preset, changed by single settings.

    Args:
        method: Name of the method.
        benchmark: Name of a benchmark.
        preset: Name of a preset.
        settings: Settings by name.
        config: Of the model, whose tower decides where the default intermediate layers of a method are, and what the
            method changes for it; as long as it is not known, these layers are left out.

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If a name or value is unknown.
    """
    if not isinstance(settings, Mapping | None):
        raise TypeError(f"Expected `settings` by name, but got {type(settings).__name__}. Pass a dictionary.")
    changes = dict(settings or {})
    if preset is not None:
        changes = {**get_preset(preset), **changes}
    if method is not None:
        blocks = None if config is None else config.vision_config.num_hidden_layers
        of_method = {**get_method(method).settings(benchmark, blocks).to_json(), **changes}
        changes = of_method if "intermediate_layers" in changes else _fit_to_tower(of_method, config)
    return {name: check_setting(name, value) for name, value in changes.items()}


def _fit_to_tower(of_method: dict[str, Any], config: ITACLIPConfig | None) -> dict[str, Any]:
    """Put the default intermediate layers, which are a matter of depth, where this tower has it."""
    if tuple(of_method["intermediate_layers"]) != ITACLIPConfig.intermediate_layers:
        return of_method
    others = {name: value for name, value in of_method.items() if name != "intermediate_layers"}
    if config is None:
        return others
    return {**others, "intermediate_layers": fit_intermediate_layers(config.vision_config.num_hidden_layers)}


def load_processor(
    model: ITACLIPForSemanticSegmentation, checkpoint: Checkpoint, **hub_arguments: Any
) -> ITACLIPProcessor:
    """Load the processor of a checkpoint whose model is there already.

    Args:
        model: The model.
        checkpoint: Folder or hub id.
        **hub_arguments: Such as `revision`.

    Raises:
        ValueError: If its tokenizer is not that of the model's text tower.
        OSError: If it cannot be loaded.
    """
    with telling_what_is_broken(checkpoint, "processor"):
        processor = ITACLIPProcessor.from_pretrained(checkpoint, **hub_arguments)
        _fit_tokenizer(model, processor, checkpoint)
    return processor


def load_demo() -> Loaded:
    """Load the embedded checkpoint with its own vocabulary baked in; nothing is downloaded.

    It is a small CLIP for drawn pictures of its 42 classes, not for photographs; its model card says what it was
    trained on.

    Returns:
        The model, in float32 on the CPU, and its processor.

    Example:
    ```python
    >>> from itaclip_hf import load_demo

    >>> model, processor = load_demo()
    >>> model.config.id2label[0]
    'sky'

    ```
    """
    return load("demo", load_demo_vocabulary(), dtype="float32", device="cpu")


def load_demo_vocabulary() -> Vocabulary:
    """The classes of the embedded checkpoint, with synonyms and definitions."""
    return Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json")


def resolve_checkpoint(name: Checkpoint) -> Checkpoint:
    """Where the checkpoint of that name is: the embedded one for "demo", else the name itself."""
    return DEMO_CHECKPOINT if isinstance(name, str) and name == "demo" else name


def load_config(checkpoint: Checkpoint) -> ITACLIPConfig:
    """The configuration of a checkpoint alone.

    Raises:
        OSError: If it cannot be loaded.
    """
    place = resolve_checkpoint(checkpoint)
    check_folder(place)
    with telling_what_is_broken(place, "configuration"):
        return ITACLIPConfig.from_pretrained(place)


def choose_device(name: torch.device | str) -> torch.device:
    """The device of that name, if this machine has it; "auto" is the GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device here.
    """
    try:
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device = torch.device(name)
        if device.type != "cpu":  # the way to find out that works for every kind of device
            torch.empty(1, device=device).cpu()
    except Exception as error:  # kinds of devices fail in kinds of ways
        raise ValueError(
            f"Expected a device of this machine, such as 'cpu'{_name_gpus()}, but got {str(name)!r}. Use 'auto'."
        ) from error
    return device


def _name_gpus() -> str:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "".join(f" or 'cuda:{index}'" for index in range(count))


def choose_dtype(name: torch.dtype | str, device: torch.device | str) -> torch.dtype:
    """The number format of that name.

    Args:
        name: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device is fast in it, else float32; or a
            number format of torch, which is taken as it is.
        device: Where the model shall run.

    Raises:
        ValueError: If there is no such format.
    """
    if isinstance(name, torch.dtype):
        return name
    if not isinstance(name, str) or name not in NUMBER_FORMATS:
        raise ValueError(f"Expected a dtype out of {', '.join(NUMBER_FORMATS)}, but got {name!r}. Use 'auto'.")
    if name != "auto":
        return getattr(torch, name)
    device = torch.device(device)
    dtype = torch.bfloat16 if computes_fast_in_bfloat16(device) else torch.float32
    logger.info("Number format %s, chosen for %s.", name_dtype(dtype), device)
    return dtype


def name_dtype(dtype: torch.dtype) -> str:
    """The name of a number format, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def computes_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the device itself: by GPUs with such units, by CPUs with AMX or AVX-512 BF16.

    Elsewhere it is emulated, often many times slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_available() and _is_fast_gpu(device)
    return device.type == "cpu" and any(map(torch.cpu.get_capabilities().get, FAST_CPU_FEATURES))


def _is_fast_gpu(device: torch.device) -> bool:
    with torch.cuda.device(device):  # asks for the current one
        return torch.cuda.is_bf16_supported(including_emulation=False)


def check_folder(place: Checkpoint) -> None:
    """Find what is broken in a folder before Transformers does, which falls back to defaults or names no file.

    Args:
        place: Folder, or hub id, at which nothing is looked at.

    Raises:
        TypeError: If it is no name.
        OSError: If it is a path but no folder, or a file in it is missing, broken or a placeholder.
    """
    if not (isinstance(place, str | os.PathLike) and str(place)):
        raise TypeError(f"Expected a folder or hub id of a checkpoint, but got {place!r}. Name one.")
    folder = Path(place)
    if not folder.is_dir():
        looks_like_a_path = isinstance(place, os.PathLike) or place[0] in "./~" or place.count("/") > 1
        if looks_like_a_path or os.path.lexists(folder):
            raise OSError(f"Expected the folder of a checkpoint, but {str(place)!r} is none. Correct the path.")
        return
    if not (folder / "config.json").exists():
        raise OSError(
            f"Expected a checkpoint in {place}, but it has no config.json. Name its folder, or get the file."
        )
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin"):
            _check_file(path)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise OSError(f"Expected a file, but {path} is none. Replace it, or leave it out.")
    with path.open("rb") as file:
        start = file.read(len(POINTER_START))
    if start == POINTER_START:
        raise OSError(f"Expected the file itself, but {path} is a Git LFS pointer. Run `git lfs pull` in its folder.")
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise OSError(f"Expected JSON, but {path} is none: {error}. Get the file anew.") from error
        if path.name.endswith("config.json") and not isinstance(content, dict):
            found = type(content).__name__
            raise OSError(f"Expected a JSON object, but {path} holds a value of type {found}. Get the file anew.")


@contextlib.contextmanager
def telling_what_is_broken(place: Checkpoint, part: str, kind: str = "CLIP ViT checkpoint") -> Iterator[None]:
    """Turn whatever the libraries raise over a broken checkpoint into one line; ours says already what to do.

    Args:
        place: Folder or hub id.
        part: What of it is loaded.
        kind: What it should be.

    Raises:
        OSError: Instead of what they raise.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError | TypeError | ValueError) and "Expected " in str(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"Expected a {kind} in {str(place)!r}, but its {part} cannot be read ({reason:.300}). Check "
            "the name, or get the files anew."
        ) from error


def _load_model(
    place: Checkpoint, dtype: torch.dtype, device: torch.device, fields: Mapping[str, Any]
) -> ITACLIPForSemanticSegmentation:
    """The model, if no weight is missing: Transformers only warns of these, and commands keep its warnings quiet."""
    # Weights of other shapes pass here, because the report names them.
    loaded: Any = ITACLIPForSemanticSegmentation.from_pretrained(
        place, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **fields
    )
    model, report = loaded
    check_weights(model, place, missing=report["missing_keys"], mismatched=report["mismatched_keys"])
    return model.to(device).eval()


@torch.no_grad()
def check_weights(
    model: Any,
    place: Checkpoint | None = None,
    missing: Iterable[Any] = (),
    mismatched: Iterable[Any] = (),
    kind: str = "CLIP ViT checkpoint",
) -> None:
    """Refuse weights that no training leaves behind, and baked queries that no texts have.

    Args:
        model: The model, or a part of it.
        place: Where it is from, for messages; by default what it says itself.
        missing: Names of weights that the checkpoint lacks, as Transformers reports them.
        mismatched: Those that it has in other shapes.
        kind: What the checkpoint should be.

    Raises:
        ValueError: If there are any of these, or a weight cannot be right.
    """
    place = place or getattr(model, "name_or_path", "") or type(model).__name__
    for what, keys in (("lacks", missing), ("has in other shapes", mismatched)):
        names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
        if names:
            raise ValueError(
                f"Expected a {kind}, but {place} {what} {len(names)} weights, among them {names[0]}. "
                "Name another checkpoint, or get its weights and config.json anew."
            )
    if any(weight.device.type == "meta" for weight in model.parameters()):
        return  # those that are offloaded lie elsewhere
    # Looked at together at last, as each look waits for the GPU. Written so that NaN fails.
    flaws: list[tuple[str, str, torch.Tensor]] = []
    for name, parameter in model.named_parameters():
        if parameter.numel() == 0:  # such as register tokens of a backbone without any
            continue
        weight = parameter.float() if parameter.itemsize == 1 else parameter  # torch computes nothing in 8 bits
        low, high = (bound.float() for bound in torch.aminmax(weight))
        flaws.append((name, f"numbers beyond {LARGEST_WEIGHT:g}", ~(torch.maximum(-low, high) <= LARGEST_WEIGHT)))
        if weight.ndim > 1 and weight.numel() > weight.shape[-1]:  # a mask token of zeros is a vector, however it lies
            sample = weight.flatten()[:: max(1, weight.numel() // SAMPLED_WEIGHTS)]
            flaws.append((name, "whole numbers", (sample == sample.round()).all()))
            flaws.append((name, "one number alone", low == high))
        elif weight.ndim == 1 and name.endswith(".weight"):  # the scale of a norm
            flaws.append((name, "zeros", torch.maximum(-low, high) == 0))
    queries: Any = getattr(model, "query_embeddings", ())
    if len(queries) > 0:
        is_one = (queries == queries[0]).all() & (len(queries) > 1)
        flaws.append(("query_embeddings", "no embeddings of texts", ~are_embeddings(queries) | is_one))
    wrong = torch.stack([flaw for _, _, flaw in flaws]).cpu()
    if wrong.any():
        name, found, _ = flaws[int(wrong.int().argmax())]
        raise ValueError(
            f"Expected trained weights in {place}, but {name} holds {found}. Get the checkpoint anew, in a floating "
            "point format."
        )


def _fit_tokenizer(model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, checkpoint: Checkpoint) -> None:
    """Make sure that the tokenizer is the text tower's: a foreign or empty one gives every name the wrong tokens.

    One that says no length, or one beyond the tower's positions, gets the tower's.
    """
    config, tokenizer = model.config.text_config, processor.tokenizer
    positions = config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    _check_merges(tokenizer, checkpoint)
    first, second = tokenizer(["sky", "a dog"]).input_ids
    # OpenAI's configurations say 2 and mean the largest id; see CLIPTextModel.
    end = config.vocab_size - 1 if config.eos_token_id == 2 else config.eos_token_id
    if first == second or len(tokenizer) > config.vocab_size or first[-1] != end or end in first[:-1]:
        raise ValueError(
            f"Expected the tokenizer that goes with the text tower in {checkpoint} ({config.vocab_size} tokens, the "
            f"end token {end}), but got one of {len(tokenizer)} tokens that ends texts with {first[-1]}. Put its "
            "tokenizer.json (or vocab.json and merges.txt) into the folder."
        )


def _check_merges(tokenizer: Any, checkpoint: Checkpoint) -> None:
    """Make sure that every entry of the vocabulary is reached: where merges are cut, words fall apart in silence."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if rules["type"] != "BPE":
        return
    merged = {"".join(pair) for pair in rules["merges"]}.union(tokenizer.all_special_tokens)
    suffix = rules["end_of_word_suffix"] or ""
    missing = [entry for entry in rules["vocab"] if len(entry.removesuffix(suffix)) > 1 and entry not in merged]
    if missing:
        raise ValueError(
            f"Expected a tokenizer whose merges make all of its {len(rules['vocab'])} entries, but {checkpoint} lacks "
            f"{len(missing)}, such as {missing[0]!r}. Get its tokenizer.json, or vocab.json and merges.txt, anew."
        )
