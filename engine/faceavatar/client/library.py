"""httpx, or the word which extra brings it.

httpx2 is httpx as its author goes on with it; the base install has it already, under tokenizers.
"""

from faceavatar.errors import MissingExtra

try:
    import httpx2
except ImportError as error:
    raise MissingExtra("client", "httpx2") from error

__all__ = ["httpx2"]
