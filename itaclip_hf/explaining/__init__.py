"""Why a picture was segmented as it was: words that won, what would change without them, and what patches look at."""

from .explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
