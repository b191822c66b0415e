"""The HTTP service: `create_app(settings)` gives the ASGI app, `faceavatar serve` runs it."""

from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.settings import Limits, Settings, Token

__all__ = ["Limits", "Settings", "Token", "create_app"]
