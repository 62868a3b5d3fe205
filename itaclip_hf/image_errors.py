"""Whatever is wrong with one image of a user is its own error, and no reason to leave others undone."""

__all__ = ["find_image_error"]


def find_image_error(error: Exception) -> str | None:
    """What is wrong with the image that was worked on; `None` for faults of the program, which are to be raised."""
    text = str(error)
    is_of_image = (
        isinstance(error, MemoryError | ValueError)
        # Readers and processors say what they expected; other type errors are calls that went wrong.
        or (isinstance(error, TypeError) and "Expected " in text)
        # Torch has no own kind for too little memory.
        or (isinstance(error, RuntimeError) and "memory" in text)
    )
    return (text or type(error).__name__) if is_of_image else None
