"""Whatever a program, a file or a person may hand over: values, pictures, words, bytes."""

import io
import json
from fractions import Fraction

import numpy as np
import PIL.Image
import torch
from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -0.0, 1, 0.5, 1e36, 1e300, float("nan"), float("inf"), 2**31, 2**63, 10**400]),
)
SCALARS = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.sampled_from(["", "3", "0.5", "true", "false", "no", "none", "qq", "identity", "nan", b"qq", b""]),
    st.text(max_size=5),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(np.bool_, st.booleans()),
    st.builds(torch.tensor, st.floats()),
    st.builds(Fraction, st.integers(), st.integers(1, 9)),
    st.builds(complex, st.floats(), st.floats()),
    st.builds(object),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.lists(st.sampled_from(["qq", "kk", "qk", "vv", "identity"]), max_size=4),
    st.lists(st.integers(-1, 20), max_size=4).map(tuple),
    st.dictionaries(st.text(max_size=3), SCALARS, max_size=2),
    st.sets(st.integers(0, 9), max_size=3),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.lists(st.floats(), max_size=3).map(torch.tensor),
)
# Arrays draw a seed and not each number, which would take seconds.
SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.one_of(st.integers(0, 6), st.integers(7, 40))
DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "O", "U2", "M8[s]"]
RANGES = [(0, 0), (0, 1), (0, 255), (0, 256), (-1, 1), (0, 4095), (0, 10000), (0, 65535), (-9999, 300), (0, 2**31)]


@st.composite
def arrays(draw):
    """Arrays of any dtype, shape, range and memory layout."""
    channels = draw(st.sampled_from([1, 2, 3, 4, 5, 8]))
    height, width = draw(SIDES), draw(SIDES)
    shapes = [
        (height, width),
        (height, width, channels),
        (channels, height, width),
        (2, 3, height, width),
        (),
        (height,),
    ]
    shape = draw(st.sampled_from(shapes[:3] * 3 + shapes))
    rng = np.random.default_rng(draw(SEEDS))
    low, high = draw(st.sampled_from([*RANGES, (-1e300, 1e300), (0, 1e36)]))
    values = np.asarray(rng.random(shape) * (high - low) + low if high < 1e300 else (rng.random(shape) - 0.5) * 2e300)
    if values.size and draw(st.booleans()) and draw(st.booleans()):
        values.flat[rng.integers(values.size)] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e38]))
    with np.errstate(all="ignore"):
        array = values.astype(draw(st.sampled_from(DTYPES)))
    if array.ndim > 1:
        layout = draw(st.sampled_from(["C", "F", "reversed", "strided", "read-only"]))
        array = np.asfortranarray(array) if layout == "F" else array
        array = array[::-1] if layout == "reversed" else array[:, ::2] if layout == "strided" else array
        array.setflags(write=layout != "read-only")
    return array


@st.composite
def pictures(draw):
    """8-bit RGB pictures (height, width, 3)."""
    shape = (draw(st.integers(5, 40)), draw(st.integers(5, 40)), 3)
    return np.random.default_rng(draw(SEEDS)).integers(0, 256, shape, dtype=np.uint8)


PIL_MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
    "RGBa",
    "La",
    "I;16",
)


@st.composite
def pil_images(draw):
    """PIL images of any mode, also of no pixels."""
    mode = draw(st.sampled_from(PIL_MODES))
    image = PIL.Image.new(
        mode, (draw(SIDES), draw(SIDES)), draw(st.sampled_from([0, 1, 200])) if mode in "1LPIF" else 0
    )
    if image.width and image.height and draw(st.booleans()):
        image.putpixel((0, 0), draw(st.sampled_from([-5, 7, 70000])) if mode in "IF" else image.getpixel((0, 0)))
    if draw(st.booleans()):
        image.getexif()[0x112] = draw(st.integers(0, 9))
    if draw(st.booleans()) and mode in ("L", "P", "RGB"):
        image.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    return image


FILE_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "PPM",
    "TIFF",
    "WEBP",
    "JPEG2000",
    "AVIF",
    "DDS",
    "ICO",
    "TGA",
    "EPS",
    "PDF",
)


@st.composite
def image_files(draw):
    """Bytes of image files of many formats, mostly damaged."""
    pixels = draw(pictures())
    image = PIL.Image.fromarray(pixels)
    image = image.convert(draw(st.sampled_from(["RGB", "L", "P"])))
    buffer = io.BytesIO()
    try:
        image.save(buffer, draw(st.sampled_from(FILE_FORMATS)))
    except (OSError, KeyError, ValueError):  # a mode that the format lacks, or a PIL without it
        image.convert("RGB").save(buffer, "PNG")
    return draw(damaged(buffer.getvalue()))


@st.composite
def damaged(draw, content):
    """The bytes, cut, filled, shifted or with some of them changed; or as they are."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        how = draw(st.sampled_from(["flip", "flip", "cut", "insert", "repeat", "zero"]))
        if how == "flip" and content:
            content[place] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del content[place:]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        elif how == "repeat":
            content[place:place] = content[place : place + 64]
        else:
            content[place : place + 16] = bytes(16)
    return bytes(content)


ODD_TEXTS = (
    "dog", "Dog ", "a  dog", "traffic light", "café", "cafe\u0301", "dog’s bed", "dog's bed", "“sky”", "&amp;",
    "&lt;p&gt;", "ﬁsh", "ｆｉｓｈ", "fish", "<|endoftext|>", "a<|startoftext|>b", "\ufeff", "\u200b", "\u2028", "\x85",
    "a\x00b", "\ud800", "a\u202eb", "😀", "犬", "{}", "{0}", "%s", ">=", "dog >=a pet", "#dog", ",", "dog,puppy",
    "background", "", " ", "\t", "word " * 100, "word " * 101, "x" * 3000, "\u0300", "&#0;", "&#x3000;", "&nbsp;",
    "ſ", "İ",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=8), st.text("abcdefg ", min_size=1, max_size=6))
NAMES = st.one_of(TEXTS, st.lists(TEXTS, max_size=3), st.lists(TEXTS, min_size=1, max_size=2).map(tuple))
CLASSES = st.one_of(
    st.lists(NAMES, max_size=5),
    st.lists(st.text("abcdefg", min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.one_of(NAMES, SCALARS), max_size=3),
    st.sets(TEXTS, max_size=3),
    st.lists(TEXTS, min_size=1, max_size=4).map(lambda texts: [f"{index} {text}" for index, text in enumerate(texts)]),
    VALUES,
)
BACKGROUNDS = st.one_of(
    st.just(()), st.lists(st.sampled_from(["wall", "tree", "sky"]), max_size=3), st.lists(TEXTS, max_size=3), VALUES
)

_CLASS_OBJECTS = st.one_of(
    NAMES,
    st.fixed_dictionaries({"names": NAMES}, optional={"auxiliary_texts": st.one_of(NAMES, st.none()), "name": TEXTS}),
)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
VOCABULARY_DICTS = st.one_of(
    st.fixed_dictionaries(
        {"classes": st.lists(_CLASS_OBJECTS, max_size=4)},
        optional={"background": NAMES, "metadata": _JSON, "x": _JSON},
    ),
    st.fixed_dictionaries({"classes": _JSON}, optional={"background": _JSON}),
    _JSON,
)
LINES = st.lists(
    st.one_of(
        TEXTS, st.lists(TEXTS, min_size=1, max_size=3).map(", ".join), st.builds("{} >={}".format, TEXTS, TEXTS)
    ),
    max_size=5,
)
ODD_CONTENTS = (
    b"", b"\n", b"{", b"[" * 100_000, b'{"classes":' * 50_000, b"{}", b"[]", b"null", b'{"classes": ["a", "a"]}',
    b'{"classes": ["a"], "classes": ["b"]}', b'{"classes": ["a"], "metadata": ' + b"9" * 5000 + b"}",
    b'{"classes": ["a"], "metadata": {"x": NaN}}', b'{"classes": ["a"], "metadata": {"x": 1e999}}', b"\xff\xfea\x00",
    "dog\nsky".encode("utf-16"), "dog\nsky".encode("utf-16-le"), "dog\nsky".encode("utf-32"), b"caf\xe9",
    b"dog\r\nsky\r\n", b"dog\rsky", b"# words\ndog\nsky", b"dog\n\nsky", b"dog\xe2\x80\xa8sky\ncat", b"a\x0cb\nc",
)  # fmt: skip


@st.composite
def vocabulary_files(draw):
    """Bytes of vocabulary files: of every format, in many encodings, damaged or not."""
    content = draw(
        st.one_of(
            st.sampled_from(ODD_CONTENTS),
            LINES.map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
            VOCABULARY_DICTS.map(lambda values: json.dumps(values).encode("utf-8")),
            VOCABULARY_DICTS.map(
                lambda values: json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
            ),
            st.binary(max_size=40),
        )
    )
    return draw(damaged(content)) if len(content) < 9999 else content
