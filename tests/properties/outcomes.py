"""The oracle: what a call may do, whatever it is given, and the count of what calls did.

A call may give a right result, or raise a `ValueError`, `TypeError` or `OSError` that says what was expected, what
came and what to do. The profile "ci" fails at the first other outcome; "fuzz" counts them all for its table.
"""

import re
import signal
import warnings
from collections import Counter, defaultdict

from hypothesis import settings

KINDS = ("right", "clear error", "unclear error", "silent wrong", "hang", "traceback")
GOOD = KINDS[:2]
# What to do stands in a sentence of its own, or in the list of what can be chosen from.
CLEAR = re.compile(r"Expected .+ but .+\. \S|Expected .+ out of .+ but ", re.DOTALL)
LIMIT = 20  # seconds; what is tried takes some milliseconds
EXAMPLES_OF_A_KIND = 5

counts: dict[str, Counter] = defaultdict(Counter)
examples: dict[tuple[str, str], list[str]] = defaultdict(list)


class TooLong(BaseException):
    """Not an `Exception`, so that no handler takes it for a fault of a file."""


def judge(call, check, limit=LIMIT):
    """What a call does: one of `KINDS`, and why.

    Args:
        call: Without arguments.
        check: Gets what it returned, and raises an `AssertionError` if that is not right.
        limit: In seconds.
    """

    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = call()
            check(result)
    except TooLong:
        return "hang", f"more than {limit} seconds"
    except AssertionError as error:
        return "silent wrong", str(error)
    except (ValueError, TypeError, OSError) as error:
        return "clear error" if is_clear(error) else "unclear error", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    foreign = [str(each.message) for each in caught if "Expected" not in str(each.message)]
    return ("unclear error", f"warns: {foreign[0]}") if foreign else ("right", "")


def is_clear(error):
    """Whether it says what was expected, what came and what to do; the system's own errors name the file."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return True
    return CLEAR.search(str(error)) is not None


def attempt(area, call, check=lambda result: None, about=""):
    """Judge a call, and count it (profile "fuzz") or fail unless its outcome is good; `about` is what was tried."""
    kind, why = judge(call, check)
    if settings.get_current_profile_name() == "fuzz":
        counts[area][kind] += 1
        if kind not in GOOD and len(examples[area, kind]) < EXAMPLES_OF_A_KIND:
            examples[area, kind].append(f"{about!s:.300} -> {why:.300}")
    else:
        assert kind in GOOD, f"{kind}: {about} -> {why}"


def make_table(counted):
    """Lines of Markdown: areas and outcomes."""
    lines = [f"| area | cases | {' | '.join(KINDS)} |", "|---|" + "--:|" * (len(KINDS) + 1)]
    total = Counter()
    for area, of_area in sorted(counted.items()):
        total.update(of_area)
        lines.append(_make_row(area, of_area))
    return [*lines, _make_row("**all**", total)]


def _make_row(area, of_area):
    return f"| {area} | {sum(of_area.values()):,} | {' | '.join(f'{of_area[kind]:,}' for kind in KINDS)} |"
