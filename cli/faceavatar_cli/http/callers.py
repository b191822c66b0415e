"""Who calls: the token of a request, or this machine where no tokens are configured."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from faceavatar_cli.http.problems import Forbidden, Unauthorized
from faceavatar_cli.http.settings import Token
from faceavatar_cli.http.tokens import Keyring

LOCAL = "local"  # the name of whoever calls from this machine, where there are no tokens
_bearer = HTTPBearer(
    auto_error=False, description="A token of this server; from loopback none, if it has none."
)


async def caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Token:
    """The request's token. Raises Unauthorized, and Forbidden where only this machine may call.

    Without tokens, a web page must not call either: its browser runs on this machine. So neither a name that
    leads here (DNS rebinding) nor another origin is taken.
    """
    keyring: Keyring = request.app.state.service.keyring
    if keyring:
        token = None if credentials is None else keyring.find(credentials.credentials)
        if token is None:
            raise Unauthorized("a known token is needed: Authorization: Bearer TOKEN")
        return token
    if not _from_here(request):
        raise Forbidden("this server has no tokens, so only programs on its own machine may call it")
    return Token(LOCAL, "", request.app.state.service.settings.limits)


Caller = Annotated[Token, Depends(caller)]


def _from_here(request: Request) -> bool:
    if request.client is not None and not is_loopback(request.client.host):  # None: a Unix socket
        return False
    if not is_loopback(request.url.hostname or ""):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.url.netloc


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
