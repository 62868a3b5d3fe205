"""Profiles ("ci" for every run of the tests, "fuzz" for `make fuzz`), the table, and what is tried: a small model."""

import os
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, Phase, settings

from itaclip_hf import Vocabulary, load

from . import outcomes

settings.register_profile(
    "ci",
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_CASES", "400")),
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("ci")

WORDS = Vocabulary(["dog", "sky"], ["grass", "tree"])
# The whole image at once, in few pixels: a case takes milliseconds.
SMALL = {"window_size": 0, "shortest_edge": 48, "longest_edge": 500, "pamr_steps": 1}


@pytest.fixture(scope="session")
def loaded():
    """The embedded checkpoint, made fast; nothing may change it."""
    checkpoint = load("demo", WORDS, settings=SMALL)
    checkpoint.processor.templates = ["{}", "a photo of a {}."]
    return checkpoint


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Hand the counts of a test to the report, which also comes from other processes."""
    outcomes.counts.clear()
    outcomes.examples.clear()
    result = yield
    if outcomes.counts:
        item.user_properties.append(("counts", {area: dict(of_area) for area, of_area in outcomes.counts.items()}))
        item.user_properties.append(("examples", [[*key, lines] for key, lines in outcomes.examples.items()]))
    assert not outcomes.examples, "outcomes that are not promised; see the table"
    return result


def pytest_terminal_summary(terminalreporter):
    counted, examples = defaultdict(Counter), []
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, value in getattr(report, "user_properties", ()):
            if name == "counts" and report.when == "call":
                for area, of_area in value.items():
                    counted[area].update(of_area)
            elif name == "examples" and report.when == "call":
                examples += value
    if counted:
        terminalreporter.section("areas and outcomes")
        for line in outcomes.make_table(counted):
            terminalreporter.write_line(line)
        for area, kind, lines in examples:
            for line in lines:
                terminalreporter.write_line(f"{area}, {kind}: {line}")
