"""Classes, background and definitions from the command line's options."""

import pytest

from itaclip_hf import Vocabulary
from itaclip_hf.cli.options.classes import ClassOptions
from itaclip_hf.files import write_json
from itaclip_hf.processing import VocabularyClass


def read(classes=None, **options):
    return ClassOptions(classes, **options).read()


def test_classes_are_parted_by_semicolons_and_synonyms_by_commas():
    assert read(" cat ;dog, puppy;sky; ") == Vocabulary(["cat", ["dog", "puppy"], "sky"])


def test_background_words_are_parted_by_commas():
    assert read("cat", background="wall, floor,").background == ("wall", "floor")


def test_nothing_named_is_no_vocabulary():
    assert read() is None


def test_text_definitions_reach_the_classes_they_name(tmp_path, capsys):
    file = tmp_path / "definitions.txt"
    file.write_text("dog >=a loyal pet\nzebra >=a striped horse\n")
    vocabulary = read("cat; dog, puppy", definitions=file)
    assert vocabulary.classes == (VocabularyClass("cat"), VocabularyClass(["dog", "puppy"], "a loyal pet"))
    assert "defines none of these classes: cat" in capsys.readouterr().err


def test_definitions_may_be_a_vocabulary_in_json(tmp_path):
    file = tmp_path / "definitions.json"
    write_json(file, Vocabulary([VocabularyClass("dog", ["a loyal pet", "it barks"])]).to_dict())
    assert read("dog", definitions=file).classes[0].auxiliary_texts == ("a loyal pet", "it barks")


def test_definitions_alone_are_the_vocabulary(tmp_path):
    file = tmp_path / "definitions.txt"
    file.write_text("dog >=a loyal pet\ncat >=it purrs\n")
    assert read(definitions=file, background="wall").labels == ["background", "dog", "cat"]


def test_a_vocabulary_file_is_taken_as_it_is(tmp_path):
    vocabulary = Vocabulary(["cat"], background=["wall"])
    write_json(tmp_path / "words.json", vocabulary.to_dict())
    assert read(vocabulary=tmp_path / "words.json") == vocabulary


@pytest.mark.parametrize("option", ["vocabulary", "definitions"])
def test_a_file_that_is_not_there_is_told(tmp_path, option):
    with pytest.raises(FileNotFoundError, match=r"Expected a file, but there is no .*none\.txt\. Correct the path"):
        read(**{option: tmp_path / "none.txt"})


def test_contradictions_are_errors(tmp_path):
    file = tmp_path / "words.json"
    write_json(file, Vocabulary(["cat"], background=["wall"]).to_dict())
    with pytest.raises(ValueError, match="`--classes` or `--vocabulary`"):
        read("cat", vocabulary=file)
    with pytest.raises(ValueError, match="Expected one background"):
        read(background="floor", vocabulary=file)


def test_definitions_of_other_classes_alone_are_an_error(tmp_path):
    file = tmp_path / "definitions.txt"
    file.write_text("zebra >=a striped horse\n")
    with pytest.raises(ValueError, match="has none of them"):
        read("cat", definitions=file)
