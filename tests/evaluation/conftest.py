"""Lets the tests import the scripted helpers beside them, and use the tiny models of the tests of the stages."""

import sys
from pathlib import Path

from tests.modeling.conftest import engineering, tiny_model  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))
