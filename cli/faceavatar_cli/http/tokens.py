"""Who may call: names and hashes of secrets, read from a file or a variable, compared in constant time.

A secret is expected to be random and long, so a plain SHA-256 of it is kept: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from faceavatar.errors import InvalidRequest
from faceavatar_cli.http.settings import Limits, Token

VARIABLE = "FACEAVATAR_TOKENS"
SHORTEST_SECRET = 16
HIGHEST_PRIORITY = 9
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LIMIT_NAMES = {limit.name for limit in fields(Limits)}


class Keyring:
    """All tokens of a server."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def find(self, secret: str) -> Token | None:
        """The token of a secret. Every one is compared, so that time tells nothing."""
        digest, found = hash_secret(secret), None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.sha256):
                found = token
        return found


def hash_secret(secret: str) -> str:
    """SHA-256 as the file of tokens holds it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_secret() -> str:
    """A fresh secret of 256 bits."""
    return secrets.token_urlsafe(32)


def read_variable(text: str, limits: Limits) -> tuple[Token, ...]:
    """Tokens of `name:secret,name:secret`. Raises InvalidRequest, which never repeats a secret."""
    tokens = []
    for index, part in enumerate(filter(None, (piece.strip() for piece in text.split(",")))):
        name, colon, secret = part.partition(":")
        if not colon or not _NAME.fullmatch(name) or len(secret) < SHORTEST_SECRET:
            raise InvalidRequest(
                VARIABLE, f"entry {index + 1}", f"name:secret,... with {SHORTEST_SECRET} characters or more"
            )
        tokens.append(Token(name, hash_secret(secret), limits))
    return _distinct(tokens, VARIABLE)


def read_file(path: Path, limits: Limits) -> tuple[Token, ...]:
    """Tokens of a file: a line `name:sha256 [limit=number ...]` for each, # begins a remark.

    A line's limits (per_minute, body, waiting, pixels, priority) take the place of the server's. Raises
    InvalidRequest.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidRequest("tokens", str(path), f"a file that can be read ({error})") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            tokens.append(_token(words, limits, f"line {number} of {path.name}"))
    if not tokens:
        raise InvalidRequest("tokens", str(path), "a file with one token at least")
    return _distinct(tokens, str(path))


def _token(words: Sequence[str], limits: Limits, where: str) -> Token:
    name, _, digest = words[0].partition(":")
    if not _NAME.fullmatch(name) or not _HASH.fullmatch(digest):
        raise InvalidRequest("tokens", where, "name:sha256 in 64 hex digits, then limit=number ...")
    changes: dict[str, int] = {}
    for word in words[1:]:
        limit, _, number = word.partition("=")
        if limit not in _LIMIT_NAMES or not number.isdecimal() or int(number) < 1:
            allowed = f"{', '.join(sorted(_LIMIT_NAMES))}, each =NUMBER from 1"
            raise InvalidRequest("tokens", f"{word!r} in {where}", allowed)
        if limit == "priority" and int(number) > HIGHEST_PRIORITY:
            raise InvalidRequest("tokens", f"{word!r} in {where}", f"priority 1..{HIGHEST_PRIORITY}")
        changes[limit] = int(number)
    return Token(name, digest, replace(limits, **changes))


def _distinct(tokens: Sequence[Token], where: str) -> tuple[Token, ...]:
    names = [token.name for token in tokens]
    if len(set(names)) < len(names) or "local" in names:
        raise InvalidRequest("tokens", where, "names that differ, and none of them `local`")
    return tuple(tokens)
