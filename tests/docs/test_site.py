"""The documentation site builds without warnings, leads nowhere wrong, asks no other host, and leaves no name out."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("itaclip_hf", *(f"itaclip_hf.{name}" for name in ("modeling", "processing", "methods", "evaluation")))
NO_ENTRY = {"__version__", "evaluation", "BENCHMARKS", "PRESETS", "BACKGROUND_LABEL", "IMAGENET_TEMPLATES"}
NO_ENTRY |= {"ITACLIPImageProcessorKwargs"}  # the same arguments as a type
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src")}


class Links(HTMLParser):
    """What a page loads by itself, and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.targets: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if (tag, name) in LOADED:
                self.loaded.append(value or "")
            elif (tag, name) == ("a", "href"):
                self.targets.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built from a copy so that nothing is written into the repository."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("Zensical, which builds the site, needs Python 3.11")
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("docs", "itaclip_hf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "build" / "site"


def test_every_page_is_in_the_navigation(site):
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1]
    named = set(re.findall(r"(\S+\.md)$", navigation, re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    tables = {page for page in pages if page.startswith(("ablations/", "evaluation_demo/"))}  # linked by their pages
    assert named == pages - tables


def test_nothing_is_loaded_from_another_host(site):
    for page in site.rglob("*.html"):
        outside = [url for url in Links(page).loaded if urlsplit(url).netloc]
        assert not outside, f"{page}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_links_within_the_site_lead_somewhere(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # shown at any address, so its links begin at the root
            continue
        links = Links(page)
        for url in (*links.loaded, *links.targets):
            parts = urlsplit(url)
            target = page.parent / unquote(parts.path)
            if not (parts.scheme or parts.netloc or url.startswith("javascript:")):
                assert target.is_file() or (target / "index.html").is_file(), f"{page}: {url}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_entry(package):
    pages = (ROOT / "docs" / "api").glob("*.md")
    entries = re.findall(r"^::: \S*\.(\w+)$", "".join(page.read_text("utf-8") for page in pages), re.MULTILINE)
    missing = set(importlib.import_module(package).__all__) - {*entries, *NO_ENTRY}
    assert not missing, "name them in docs/api, as in `::: itaclip_hf.load`"
