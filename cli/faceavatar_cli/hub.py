"""One file of the model hub, at a pinned commit, or a file that is here already."""

from __future__ import annotations

import re
from pathlib import Path

from faceavatar.errors import ImageError, InvalidRequest

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[^:\s]+):(?P<file>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WORDS = "an ONNX file, or OWNER/NAME@COMMIT:FILE of the hub with all 40 digits of the commit"


def find_file(source: str) -> Path:
    """The path of SOURCE; a file of the hub is fetched, or comes from its cache.

    Raises InvalidRequest for neither, and ImageError where the hub does not give it.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    match = _HUB.fullmatch(source)
    if match is None or not _COMMIT.fullmatch(match["commit"]):
        raise InvalidRequest("SOURCE", source, _WORDS)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(match["repo"], match["file"], revision=match["commit"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ImageError(
            f"{source}: the hub does not give it ({first}); fetch the file and name it"
        ) from error
