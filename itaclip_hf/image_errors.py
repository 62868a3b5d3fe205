"""Whatever is wrong with one image of a user is its own error, and no reason to leave others undone."""

import contextlib
from collections.abc import Iterator

__all__ = ["ImageError", "name_image_errors"]


class ImageError(ValueError):
    """What is wrong with one image; the message does not say with which."""


@contextlib.contextmanager
def name_image_errors() -> Iterator[None]:
    """What is raised while one image is worked on, as an [`ImageError`]; faults of the program stay what they are."""
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, TypeError, ValueError) as error:
        raise ImageError(str(error) or type(error).__name__) from error
    except RuntimeError as error:  # torch has no one error for too little memory
        if "memory" not in str(error):
            raise
        raise ImageError(str(error)) from error
