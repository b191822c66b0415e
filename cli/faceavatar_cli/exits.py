"""How a command ends: the one table of exit codes, and the one line on stderr that says what went wrong."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from faceavatar.errors import FaceAvatarError

# Exit code -> what it means, and the codes of the errors that end with it.
EXITS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    0: ("done", ()),
    1: ("a check of `doctor` failed, or an error without a code of its own", ("doctor", "error")),
    2: ("a flag or its value is wrong", ("usage", "invalid_request")),
    3: ("the photo, or the picture given to --from, cannot be read", ("unreadable_image", "url_refused")),
    4: ("no face was found in the photo", ("no_face",)),
    5: ("there is no such pack", ("pack_not_found",)),
    6: (
        "the pack is damaged or cannot do what was asked",
        (
            "pack_error",
            "pack_invalid",
            "hash_mismatch",
            "missing_graph",
            "signature_mismatch",
            "engine_stale",
        ),
    ),
    7: ("the execution provider cannot be used here", ("provider_unavailable",)),
    8: ("an optional package is not installed", ("missing_extra",)),
    9: ("a model gave NaN or infinite values", ("numerical_error",)),
    10: ("the output cannot be written", ("cannot_write",)),
    11: (
        "the queue cannot be used: its broker or result store is away, or its state folder taken",
        ("queue_unavailable", "state_in_use", "time_limit"),
    ),
    12: (
        "a service over HTTP refused, or cannot be reached",
        (
            *("service_error", "service_unavailable", "timed_out", "unauthorized", "forbidden", "cancelled"),
            *("rate_limited", "queue_full", "not_ready", "task_not_found", "output_not_found"),
            *("unreadable_body", "body_too_large", "body_too_slow", "unsupported_media_type"),
        ),
    ),
    13: ("it does not fit in memory", ("over_budget", "out_of_memory")),
    14: ("it was not done in the time that --timeout gives", ("timeout",)),
    70: ("a fault of faceavatar itself", ("internal",)),
    130: ("stopped with Ctrl-C", ("interrupted",)),
}
EXIT_CODES: Mapping[str, int] = {code: number for number, (_, codes) in EXITS.items() for code in codes}

Command = TypeVar("Command", bound=Callable[..., Any])


class CannotWrite(FaceAvatarError):
    """A picture cannot be written where it was asked for."""

    code = "cannot_write"


@dataclass
class Manner:
    """How a command speaks; set by the flags --debug and --json of whichever command has them."""

    debug: bool = False
    json: bool = False


def epilog() -> str:
    """The exit codes, for --help."""
    lines = "\n".join(f"{number:>5}  {meaning}" for number, (meaning, _) in EXITS.items())
    return f"\b\nExit codes:\n{lines}"


def fail(code: str, error: BaseException, message: str, manner: Manner) -> int:
    """Says what went wrong in one line on stderr, and as JSON on stdout for machines; gives the exit code."""
    message = " ".join(message.split())
    if manner.debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    number = complain(code, message)
    if manner.json:
        print_json({"error": {"code": code, "message": message, "exit_code": number}})
    return number


def complain(code: str, message: str) -> int:
    """Says what went wrong in one line on stderr and gives the exit code."""
    click.echo(f"error[{code}]: {message}", err=True)
    return EXIT_CODES[code]


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout."""
    click.echo(json.dumps(content))


def debug_option(command: Command) -> Command:
    """The flag --debug."""
    return _manner_flag("--debug", "Show the trace of an error.")(command)


def json_option(command: Command) -> Command:
    """The flag --json."""
    return _manner_flag("--json", "Print one JSON object on stdout, and no progress bar.")(command)


def _manner_flag(flag: str, words: str) -> Callable[[Command], Command]:
    # Eager, so that a wrong value of a later flag is already reported in this manner.
    return click.option(flag, is_flag=True, is_eager=True, expose_value=False, callback=_remember, help=words)


def _remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(context.ensure_object(Manner), str(parameter.name), True)
