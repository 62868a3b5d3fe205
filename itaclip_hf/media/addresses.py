"""Images at addresses on the web: fetched whole into memory, within a size and a time, and given a safe name."""

import io
import re
import time
from http.client import HTTPException
from pathlib import PurePosixPath
from urllib.error import URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

from ..version import __version__

__all__ = ["fetch", "name_address"]

LARGEST_DOWNLOAD = 100 * 2**20
SECONDS_WITHOUT_ANSWER = 20
SECONDS_IN_ALL = 300
CHUNK = 2**16


def name_address(address: str) -> str:
    """A name for the results of what is there: the last part of its path without suffix, in safe characters."""
    path = unquote(re.split("[?#]", address.partition("://")[2].partition("/")[2])[0])
    last = PurePosixPath(path).stem
    return re.sub(r"[^\w-]+", "_", last).strip("_")[:100] or "image"


def fetch(address: str) -> io.BytesIO:
    """What is at an address.

    Raises:
        OSError: If it cannot be had, is larger than 100 MiB or takes longer than 5 minutes.
    """
    content, deadline = io.BytesIO(), time.monotonic() + SECONDS_IN_ALL
    try:
        request = Request(address, headers={"User-Agent": f"itaclip_hf/{__version__}"})
        with urlopen(request, timeout=SECONDS_WITHOUT_ANSWER) as answer:
            # `read` would wait for a whole chunk, however long that takes.
            while chunk := answer.read1(CHUNK):
                content.write(chunk)
                if content.tell() > LARGEST_DOWNLOAD:
                    raise OSError(f"Expected at most {LARGEST_DOWNLOAD >> 20} MiB, but got more. Use a smaller file.")
                if time.monotonic() > deadline:
                    raise OSError(f"Expected it within {SECONDS_IN_ALL} seconds, but got a part. Download it first.")
            expected = answer.headers.get("Content-Length", "")
    except (URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"Expected an image at this address, but got: {reason}. Correct it, or try again.") from error
    except (ValueError, HTTPException) as error:  # no address after all, or no HTTP
        raise OSError(f"Expected an address of the web, but got an error: {error}. Correct it.") from error
    if expected.isdigit() and content.tell() < int(expected):
        raise OSError(f"Expected {expected} bytes, but got {content.tell()}, as the connection broke. Try again.")
    content.seek(0)
    return content
