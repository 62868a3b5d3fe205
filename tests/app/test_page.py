"""The page in a browser: picture, words, overlay, a click, messages, and no request to another host."""

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from itaclip_hf.app.answers import read_request
from itaclip_hf.samples import list_samples

pytest.importorskip("gradio")
SAMPLE = list_samples(for_demo_checkpoint=True)[0]
CHANGED_PIXEL = """before => {
    const now = document.querySelector('#pixel').innerText.split('\\n').pop();  // after Gradio's own status
    return now != before && / row [0-9]+$/.test(now) ? now : false;
}"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A user's page, and that it has asked no other host."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#segment:enabled")  # the page listens
    yield page
    page.close()
    assert asked and {url.split("/")[2].split(":")[0] for url in asked if not url.startswith(("data:", "blob:"))} == {
        "127.0.0.1"
    }


def choose_preset(page, name):
    page.get_by_text("Definitions, method, preset").click()
    page.locator("#preset").get_by_label(name, exact=True).check()


def segment(page, words):
    """Type words, press the button, wait for the last answer."""
    page.fill("#classes textarea", words)
    page.click("#segment")
    page.wait_for_selector("table.legend")
    page.wait_for_function("/took [^…]*$/.test(document.querySelector('#pixel').innerText)", timeout=120_000)


def test_words_give_a_picture_and_a_click_tells_class_score_and_runner_up(page, segmenter):
    page.locator("#samples button").nth(0).click()
    page.wait_for_function("document.querySelector('#classes textarea').value.startsWith('grass')")
    choose_preset(page, "live")
    segment(page, "grass; dog, puppy; strawberry")
    names = page.locator("#legend .name").all_inner_texts()
    assert names[0] == "grass" and set(names) <= {"grass", "dog", "strawberry"}
    view = page.locator("#overlay img")
    assert view.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [896, 672]
    box = view.bounding_box()
    expected = make_answer(segmenter, "grass; dog, puppy; strawberry")
    for place in ((0.87, 0.55), (0.5, 0.5)):
        before = page.inner_text("#pixel").split("\n")[-1]
        view.click(position={"x": box["width"] * place[0], "y": box["height"] * place[1]})
        told = page.wait_for_function(CHANGED_PIXEL, arg=before).json_value()
        own, score, other, second, column, row = re.fullmatch(
            r"(\w+) ([\d.]+) then (\w+) ([\d.]+) column (\d+), row (\d+)", told
        ).groups()
        at = (int(row), int(column))
        assert (own, other) == (expected.names[expected.labels[at]], expected.names[expected.runner_up[at]])
        assert float(score) == pytest.approx(expected.confidence[at], abs=0.006)
        assert float(second) == pytest.approx(expected.runner_up_confidence[at], abs=0.006)
    assert abs(int(column) - 224) < 3 and abs(int(row) - 168) < 3


def make_answer(segmenter, words):
    return segmenter.answer(read_request(str(SAMPLE.path), words, "", "", None, "live"))


def test_the_first_answer_is_refined_and_the_downloads_are_the_last_ones(page, tmp_path):
    choose_preset(page, "fast")
    segment(page, "grass; dog")
    assert "“fast” took" in page.inner_text("#pixel")
    paths = []
    for name in ("labels", "description"):
        with page.expect_download() as download:
            page.click(f"#{name}")
        paths.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(paths[-1])
    assert [path.name for path in paths] == ["scene_0_labels.png", "scene_0.json"]
    content = json.loads(paths[1].read_text())
    assert content["settings"]["preset"] == "fast"
    with Image.open(paths[0]) as image:
        share = np.bincount(np.asarray(image).ravel(), minlength=2) / (image.width * image.height)
    assert [entry["share"] for entry in content["classes"]] == pytest.approx(share, abs=1e-6)


def test_opacity_and_confidence_are_seen(page):
    choose_preset(page, "live")
    segment(page, "grass; dog")
    picture = page.get_attribute("#overlay img", "src")
    slider = page.locator("#opacity input[type=range]")
    slider.focus()
    slider.press("Home")  # 0, a whole number
    slider.dispatch_event("pointerup")
    page.wait_for_function("source => document.querySelector('#overlay img').src != source", arg=picture)
    page.get_by_role("tab", name="Confidence").click()
    page.locator("#confidence img").click(position={"x": 300, "y": 200})
    page.wait_for_function("/column/.test(document.querySelector('#pixel').innerText)")


@pytest.mark.parametrize(
    ("words", "message"),
    [("cat;;<b>dog</b>", "Expected classes like .* but got 'cat;;<b>dog</b>'"), ("", "Expected classes like")],
)
def test_wrong_words_are_told_as_a_message(page, words, message):
    page.fill("#classes textarea", words)
    page.click("#segment")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert re.search(message, toast.inner_text()) and "Traceback" not in page.content()


def test_what_is_no_picture_is_told_as_a_message(page, tmp_path):
    (tmp_path / "note.png").write_text("no picture")
    page.locator("#picture").get_by_label("Remove Image").click()
    page.set_input_files("#picture input[type=file]", tmp_path / "note.png")
    page.wait_for_function("document.querySelector('#picture img')?.src.includes('note.png')")
    page.click("#segment")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "Expected an image in JPEG" in toast.inner_text()


def test_pages_of_several_users_do_not_mix(browser, address):
    """Each in a session of its own; the second asks while the first is answered."""
    pages = [browser.new_context().new_page() for _ in range(2)]
    for page, words in zip(pages, ("grass; dog", "strawberry; house"), strict=True):
        page.goto(address)
        page.wait_for_selector("#segment:enabled")  # the page listens
        choose_preset(page, "live")
        page.fill("#classes textarea", words)
    for page in pages:
        page.click("#segment")
    for page, words in zip(pages, ({"grass", "dog"}, {"strawberry", "house"}), strict=True):
        page.wait_for_selector("table.legend")
        assert {*page.locator("#legend .name").all_inner_texts()} <= words
        page.locator("#overlay img").click(position={"x": 300, "y": 240})
        page.wait_for_function("/column/.test(document.querySelector('#pixel').innerText)")
        assert {*page.locator("#pixel .name").all_inner_texts()} == words
        page.context.close()


def test_many_users_are_answered_in_turns_by_the_client_too(address, segmenter):
    client = pytest.importorskip("gradio_client")
    vocabularies = ["grass; dog", "strawberry; house; frog", "sky", "turtle, tortoise; butterfly"]
    together = threading.Barrier(len(vocabularies))

    def ask(words):
        user = client.Client(address, verbose=False)
        together.wait()
        picture = client.handle_file(str(SAMPLE.path))
        return user.predict(picture, words, "", "", "", "live", 0.5, api_name="/segment")

    with ThreadPoolExecutor(len(vocabularies)) as pool:
        told = list(pool.map(ask, vocabularies))
    for words, (*_, legend, _labels, _description) in zip(vocabularies, told, strict=True):
        assert legend == make_answer(segmenter, words).tell_legend()
