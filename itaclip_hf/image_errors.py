"""Whatever is wrong with one image of a user is its own error, and no reason to leave others undone."""

__all__ = ["find_image_error"]


def find_image_error(error: Exception) -> str | None:
    """What is wrong with the image that was worked on; `None` for faults of the program, which are to be raised."""
    # Of the runtime errors one kind alone: torch has no own one for too little memory.
    if isinstance(error, MemoryError | TypeError | ValueError) or (
        isinstance(error, RuntimeError) and "memory" in str(error)
    ):
        return str(error) or type(error).__name__
    return None
