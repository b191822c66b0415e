"""The page at /: one HTML file that needs nothing else, and the policy under which a browser may run it.

The policy names the page's one script and one style by their hashes, so nothing that found its way into the
page could run. Pictures are shown from memory, and only this server is talked to.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_INLINE = "<{tag}>(.*?)</{tag}>"


@cache
def page() -> bytes:
    """The page, UTF-8."""
    return files(__name__).joinpath("page.html").read_bytes()


@cache
def page_headers() -> Mapping[str, str]:
    """The HTTP headers that go with the page: its type, its policy, and that it is asked for anew."""
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of("script"),
        "style-src": _hash_of("style"),
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _hash_of(tag: str) -> str:
    """The CSP source of the page's one element of that kind."""
    (content,) = re.findall(_INLINE.format(tag=tag), page().decode(), re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
