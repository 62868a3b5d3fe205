"""Lets the tests import the helpers beside them and those of the evaluation's tests, and shares their fixtures."""

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[1] / "evaluation"):
    sys.path.insert(0, str(_folder))

from watched_programs import save_often, small_disk, world  # noqa: E402, F401
