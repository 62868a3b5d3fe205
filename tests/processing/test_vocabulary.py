import hashlib
import pickle
from dataclasses import FrozenInstanceError

import pytest

from itaclip_hf.files import write_json
from itaclip_hf.processing import Vocabulary, VocabularyClass, load_auxiliary_texts
from itaclip_hf.processing.vocabulary import straighten_text


@pytest.fixture
def animals():
    classes = ["cat", VocabularyClass(["dog", "puppy"], ["a loyal pet", "it barks"])]
    return Vocabulary(classes, background=["sky", "wall"], metadata={"model": "some-llm", "temperature": 0.6})


def test_background_words_are_class_0_and_come_first(animals):
    assert animals.labels == ["background", "cat", "dog"]
    assert animals.id2label == {0: "background", 1: "cat", 2: "dog"}
    assert animals.label2id == {"background": 0, "cat": 1, "dog": 2}
    assert animals.query_names == ("sky", "wall", "cat", "dog", "puppy")
    assert animals.query_classes == (0, 0, 1, 2, 2)


def test_without_background_classes_start_at_0():
    vocabulary = Vocabulary(["cat", ["dog", "puppy"]])
    assert vocabulary.labels == ["cat", "dog"]
    assert vocabulary.query_classes == (0, 1, 1)


def test_a_background_of_the_single_word_background():
    assert Vocabulary(["train"], background=["background"]).labels == ["background", "train"]


def test_names_are_stripped_and_otherwise_kept_as_they_are():
    assert Vocabulary([" Traffic_light ", "bow, arrow"]).query_names == ("Traffic_light", "bow, arrow")


def test_class_id_finds_labels_synonyms_and_background_words(animals):
    names = ["background", "wall", "CAT", "dog", " puppy"]
    assert [animals.class_id(name) for name in names] == [0, 0, 1, 2, 2]


def test_unknown_class_suggests_similar_names(animals):
    with pytest.raises(ValueError, match=r"'pupy'. Did you mean 'puppy'\?"):
        animals.class_id("pupy")


def test_unknown_class_without_similar_names_lists_known_ones(animals):
    with pytest.raises(ValueError, match=r"'zebra'. Known names are 'background', 'cat', 'dog'"):
        animals.class_id("zebra")


@pytest.mark.parametrize(
    ("classes", "background", "message"),
    [
        ([], (), "at least one class"),
        ([[]], (), "at least one name per class"),
        (["cat", "  "], (), "no empty class name"),
        (["cat"], [""], "no empty background word"),
        (["cat", ["dog", "Cat"]], (), "every name once .* 'cat' and 'Cat'"),
        (["teddy bear", "teddy  bear"], (), "every name once"),
        ([["cat", "cat"]], (), "every name once"),
        (["dog"], ["sky", "Sky"], "every name once over all background words, but got 'sky' and 'Sky'"),
        (["background"], ["sky"], "no class called 'background'"),
        (["café", "cafe\u0301"], (), "every name once"),
        (["dog's bed", "dog’s bed"], (), "every name once"),
        (["dog<|endoftext|> on the moon"], (), r"without special tokens, but got <\|endoftext\|>"),
        (["dog"], ["&lt;|startoftext|&gt;"], r"without special tokens, but got <\|startoftext\|>"),
        (["c\0a"], (), r"readable characters, but got 'c\\x00a' with U\+0000"),
        (["c\ud800"], (), r"readable characters, .* with U\+D800"),
        (["one\x0ctwo"], (), r"readable characters, .* with U\+000C"),
        (["one\rtwo"], (), r"readable characters, .* with U\+000D"),
        (["one\ntwo"], (), r"readable characters, .* with U\+000A"),
        (["cat"], ["one\u2028two"], r"readable characters, .* with U\+2028"),
    ],
)
def test_invalid_names_are_refused(classes, background, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(classes, background)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary("cat"), "list of classes, but got str"),
        (lambda: Vocabulary(["cat"], "sky, wall"), "list of background words, but got str"),
        (lambda: Vocabulary([3]), "list of class names, but got int"),
        (lambda: Vocabulary([["cat", 3]]), "every class name to be a string, but got int"),
        (lambda: Vocabulary(["cat"], metadata=["llm"]), "`metadata` to be a mapping"),
        (lambda: Vocabulary(["cat"], metadata={"when": object()}), "`metadata` to be JSON"),
        (lambda: Vocabulary.from_dict(["cat"]), "a vocabulary to be a mapping"),
        (lambda: Vocabulary.from_dict({"classes": "cat"}), "`classes` to be a list"),
        (lambda: Vocabulary(["cat"]).with_auxiliary_texts("a pet"), "list with one entry per class"),
        (lambda: Vocabulary(["cat"]).with_auxiliary_texts([3]), "list of auxiliary texts, but got int"),
    ],
)
def test_wrong_types_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_is_immutable_hashable_and_survives_pickling(animals):
    with pytest.raises(FrozenInstanceError):
        animals.background = ()
    assert {animals: 1}[pickle.loads(pickle.dumps(animals))] == 1
    assert pickle.loads(pickle.dumps(animals)).metadata == animals.metadata


def test_metadata_counts_neither_for_equality_nor_for_the_fingerprint(animals):
    other = Vocabulary(animals.classes, animals.background)
    assert other == animals
    assert hash(other) == hash(animals)
    assert other.fingerprint == animals.fingerprint


def test_fingerprint_is_the_sha256_of_canonical_json():
    content = '{"background": ["sky"], "classes": [{"names": ["cat"]}]}'
    assert Vocabulary(["cat"], ["sky"]).fingerprint == hashlib.sha256(content.encode()).hexdigest()


def test_fingerprint_changes_with_every_part(animals):
    others = [
        Vocabulary(animals.classes),
        Vocabulary(animals.classes[::-1], animals.background),
        animals.with_auxiliary_texts([None, None]),
        Vocabulary([*animals.classes, "bird"], animals.background),
    ]
    assert len({vocabulary.fingerprint for vocabulary in [animals, *others]}) == 5


def test_auxiliary_texts_as_a_list_follow_the_classes(animals):
    enriched = animals.with_auxiliary_texts(["a pet that purrs", None])
    assert [entry.auxiliary_texts for entry in enriched.classes] == [("a pet that purrs",), ()]
    assert enriched.metadata == animals.metadata


def test_auxiliary_texts_as_a_mapping_leave_other_classes_alone(animals):
    enriched = animals.with_auxiliary_texts({"Cat": ["purrs", "meows"]})
    assert [entry.auxiliary_texts for entry in enriched.classes] == [("purrs", "meows"), ("a loyal pet", "it barks")]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a pet"], r"one auxiliary text per class \(2\), but got 1"),
        (["a pet", ""], "no empty auxiliary text"),
        ({"dgo": "a pet"}, "Did you mean 'dog'"),
        ({"wall": "of stone"}, "background word 'wall'"),
        ({"dog": "a pet", "puppy": "a young dog"}, "'puppy' is the second for 'dog'"),
    ],
)
def test_auxiliary_texts_that_do_not_fit_are_refused(animals, texts, message):
    with pytest.raises(ValueError, match=message):
        animals.with_auxiliary_texts(texts)


def test_json_round_trip(animals, tmp_path):
    path = tmp_path / "animals.json"
    write_json(path, animals.to_dict())
    loaded = Vocabulary.from_file(path)
    assert loaded == animals
    assert loaded.metadata == animals.metadata
    assert [file.name for file in tmp_path.iterdir()] == ["animals.json"]


def test_documented_json_form():
    content = {
        "background": ["sky"],
        "classes": [{"names": ["dog", "puppy"], "auxiliary_texts": ["a loyal pet"]}, "cat", ["bird", "avian"]],
    }
    vocabulary = Vocabulary.from_dict(content)
    assert vocabulary.labels == ["background", "dog", "cat", "bird"]
    assert vocabulary.to_dict() == {
        "background": ["sky"],
        "classes": [
            {"names": ["dog", "puppy"], "auxiliary_texts": ["a loyal pet"]},
            {"names": ["cat"]},
            {"names": ["bird", "avian"]},
        ],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": ["cat"],}', r"words.json:1: Expected JSON"),
        ('{"background": []}', "words.json: .*the key 'classes'"),
        ('{"classes": ["cat"], "clases": []}', "words.json: .*but got 'clases'"),
        ('{"classes": [{"name": "cat"}]}', "words.json: .*the key 'names'"),
        ('{"classes": [{"names": ["cat"], "auxiliary_texts": ""}]}', "words.json: .*no empty auxiliary text"),
        ('{"classes": [3]}', "words.json: .*but got int"),
    ],
)
def test_errors_in_json_files_name_the_file(tmp_path, content, message):
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_file(path)


def test_class_file_of_the_published_code(tmp_path):
    path = tmp_path / "cls_voc.txt"
    path.write_text("\ufeffsky, wall\r\naeroplane\r\ntelevision monitor, tv monitor, screen\r\n\r\n", encoding="utf-8")
    vocabulary = Vocabulary.from_file(path, background_first_line=True)
    assert vocabulary == Vocabulary(["aeroplane", ["television monitor", "tv monitor", "screen"]], ["sky", "wall"])
    assert Vocabulary.from_file(path).labels == ["sky", "aeroplane", "television monitor"]


def test_a_class_may_be_a_background_word_and_both_are_looked_for(tmp_path):
    (tmp_path / "words.txt").write_text("sky, bed, wall\ndog, puppy\nBed\n")
    vocabulary = Vocabulary.from_file(tmp_path / "words.txt", background_first_line=True)
    assert vocabulary.query_names == ("sky", "bed", "wall", "dog", "puppy", "Bed")
    assert vocabulary.query_classes == (0, 0, 0, 1, 1, 2)
    assert (vocabulary.class_id("bed"), vocabulary.class_id("wall")) == (2, 0)
    assert vocabulary.with_auxiliary_texts({"bed": "a place to sleep"}).classes[1].auxiliary_texts != ()
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary


def test_names_that_differ_in_spaces_alone_are_found_where_only_one_is_meant():
    vocabulary = Vocabulary(["potted plant", "hot dog", "tvmonitor"])
    assert [vocabulary.class_id(name) for name in ("PottedPlant", "hotdog", "tv monitor")] == [0, 1, 2]
    vocabulary = Vocabulary(["hot dog", "hotdog"])
    assert (vocabulary.class_id("hotdog"), vocabulary.class_id("hot dog")) == (1, 0)
    with pytest.raises(ValueError, match=r"but got 'hotd og'\. Did you mean"):
        vocabulary.class_id("hotd og")


def test_auxiliary_text_file_of_the_published_code(tmp_path):
    path = tmp_path / "definitions.txt"
    path.write_text("cat >=a pet, that purrs\ndog>= a loyal pet\n")
    assert load_auxiliary_texts(path) == {"cat": "a pet, that purrs", "dog": "a loyal pet"}
    expected = Vocabulary(["cat", "dog"]).with_auxiliary_texts(load_auxiliary_texts(path))
    assert Vocabulary.from_file(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\n\ndog\n", "words.txt:2: Expected `name, synonym, ...`"),
        ("cat\ndog, , puppy\n", "words.txt:2: Expected `name, synonym, ...`"),
        ("cat\ndog\nCat\n", "words.txt:3: Expected every name once, but got 'Cat' as on line 1"),
        ("", "words.txt: Expected one class per line"),
        ("cat >=a pet\ndog\n", "words.txt:2: Expected `name >=text`"),
        ("cat >=a pet\ncat >=a feline\n", "words.txt:2: Expected every name once"),
    ],
)
def test_errors_in_text_files_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_file(path)


def test_errors_across_lines_name_the_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("sky\nbackground\n")
    with pytest.raises(ValueError, match=r"words.txt: Expected no class called 'background'"):
        Vocabulary.from_file(path, background_first_line=True)


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xff\xfe\x00cat")
    with pytest.raises(ValueError, match=r"words.txt: Expected UTF-8"):
        Vocabulary.from_file(path)


@pytest.mark.parametrize("classes", [{"dog", "sky"}, frozenset({"dog"}), [{"dog", "puppy"}], b"dog", [b"dog"]])
def test_sets_and_bytes_are_no_classes(classes):
    with pytest.raises(TypeError, match=r"Expected a list of class(es| names), but got (set|frozenset|bytes)"):
        Vocabulary(classes)
    with pytest.raises(TypeError, match=r"but got (set|frozenset|bytes)"):
        Vocabulary.from_dict({"classes": classes})


@pytest.mark.parametrize(
    "content", ['{"classes": ["cat"], "classes": ["dog"]}', '{"classes": [{"names": ["cat"], "names": ["dog"]}]}']
)
def test_json_that_says_something_twice_is_refused(tmp_path, content):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(ValueError, match=r"words.json: Expected every key once, but got '(classes|names)' twice"):
        Vocabulary.from_file(tmp_path / "words.json")


def test_lines_end_at_newlines_alone_and_comments_are_no_classes(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"# animals\r\ncat, kitten\r\n  # more\ndog, puppy\rsky\r")  # of Windows, Unix and old Macs
    assert Vocabulary.from_file(path).query_names == ("cat", "kitten", "dog", "puppy", "sky")
    path.write_text("cat\ndog\u2028puppy\n")
    with pytest.raises(ValueError, match=r"words\.txt: Expected class names .* but got 'dog\\u2028puppy'"):
        Vocabulary.from_file(path)
    path.write_text("# comment\ncat >=a pet\n")
    assert load_auxiliary_texts(path) == {"cat": "a pet"}
    path.write_text("# nothing but a comment\n")
    with pytest.raises(ValueError, match="the file is empty"):
        Vocabulary.from_file(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog’s ‘bed’", "a dog's 'bed'"),
        ("“quotes”", '"quotes"'),
        ("&amp;amp; &quot;", '& "'),
        ("a ﬁsh, ŉ", "a fish, 'n"),
        ("ｃａｔ\u3000（１）", "cat (1)"),
        ("cafe\u0301", "café"),
        ("\ufeffcat", "cat"),
        ("naïve Straße", "naïve Straße"),
    ],
)
def test_texts_are_straightened_as_by_clips_own_tokenizer(text, expected):
    assert straighten_text(text) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "words.json: Expected a vocabulary, but got deeply nested JSON"),
        ('{"classes": ["a"], "metadata": ' + "9" * 5000 + "}", "Expected a vocabulary, but it cannot be read"),
        ('{"classes": ["a"], "metadata": {"x": NaN}}', "Expected `metadata` to be JSON, but got other values"),
    ],
)
def test_json_that_no_vocabulary_can_be_is_named(tmp_path, content, message):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_file(tmp_path / "words.json")


def test_names_that_nobody_sees_are_empty():
    with pytest.raises(ValueError, match="Expected no empty class name"):
        Vocabulary(["\ufeff"])


def test_what_a_person_types_is_read_by_lines_and_semicolons():
    typed = "cat; dog, puppy;\n\n tree \r\nsky;"
    assert Vocabulary.from_text(typed) == Vocabulary(["cat", ["dog", "puppy"], "tree", "sky"])
    vocabulary = Vocabulary.from_text("cat", " wall, floor;\nroad,\n", "cat >=it purrs\n# a comment\n")
    assert vocabulary == Vocabulary([VocabularyClass("cat", "it purrs")], ["wall", "floor", "road"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((" \n",), r'Expected classes like "cat; dog, puppy; sky", but got \' \\n\''),
        (("cat;;dog",), "Fill in or remove empty names"),
        (("cat", "wall,,floor"), "Expected no empty background word"),
        (("cat", "", "it purrs"), "definitions:1: Expected `name >=text`, but got 'it purrs'"),
        (("cat", "", "dog >=it barks"), "Expected a class of the vocabulary, but got 'dog'"),
    ],
)
def test_what_is_wrong_with_what_a_person_types_is_told(typed, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_text(*typed)
