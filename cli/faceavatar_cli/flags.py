"""A flag for each field of a request. Knows names, types and words; the ranges are AvatarRequest's own.

A flag's parameter carries the field's name, so that what was refused can be told by its flag. Two fields have
none: `app_id`, which names the pack to a server, is `--pack` here, and `celery` needs a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])


def _or_word(
    kind: click.types.ParamType[Any], word: str, flag: str, words: str
) -> Callable[[Command], Command]:
    """A flag with a word that stands for None: it undoes what --from brings along."""

    def convert(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        return None if value is None or value == word else kind.convert(value, parameter, context)

    return click.option(flag, callback=convert, metavar=f"{kind.name.upper()}|{word}", help=words)


class _Pair(click.ParamType[tuple[float, float]]):
    """Two numbers with a comma between them."""

    name = "from,to"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        try:
            first, second = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers such as 0.2,0.8", param, ctx)
        return first, second


_OPTIONS = (
    click.option("--prompt", help="What to draw, in place of the whole default prompt."),
    click.option("--negative-prompt", help="What to avoid."),
    _or_word(
        click.STRING,
        "none",
        "--gender",
        "Word of the default prompt: man, woman, male, female, person or neutral.",
    ),
    click.option("--batch", type=int, help="How many avatars, 1 to 8; number i takes seed + i."),
    click.option("--height", type=int, help="256 to 1536 pixels (512)."),
    click.option("--width", type=int, help="256 to 1536 pixels (512)."),
    click.option("--steps", "num_inference_steps", type=int, help="1 to 50 (the pack's own)."),
    click.option(
        "--guidance",
        "guidance_scale",
        type=float,
        help="How closely to heed the prompt, 1 to 30 (the pack's own).",
    ),
    _or_word(
        _Pair(),
        "whole",
        "--guidance-interval",
        "Shares of the schedule, such as 0.2,0.8, between which guidance acts: less work outside (whole).",
    ),
    _or_word(
        click.INT,
        "random",
        "--seed",
        "0 to 4294967295; the same seed gives the same avatar (random).",
    ),
    click.option(
        "--remove-background/--keep-background", help="Make the background transparent.", default=None
    ),
    _or_word(
        click.STRING,
        "none",
        "--bg-color",
        "Put the avatar on a plain colour, such as '#88ccff'.",
    ),
    click.option(
        "--scheduler",
        help="ddim, euler, euler_ancestral, dpmpp_2m, dpmpp_2m_karras, unipc or lcm (the pack's own).",
    ),
    click.option(
        "--face-scale", type=float, help="How much of the face's looks to keep, 0 to 1.5 (the pack's own)."
    ),
    click.option(
        "--strength",
        type=float,
        help="Begin with the photo and change it this much, above 0 to 1 (begin with noise alone).",
    ),
    click.option(
        "--step-cache",
        type=int,
        help="Run the whole net at every n-th step only, 1 to 10: quicker and less exact (1: at all steps).",
    ),
    click.option(
        "--controlnet-scale",
        type=float,
        help="How firmly InstantID holds the face's pose, 0 to 1.5 (the pack's own; other packs refuse it).",
    ),
    _or_word(
        click.INT,
        "largest",
        "--face-index",
        "Which face of several: 0 is the largest, 1 the next (largest).",
    ),
    click.option(
        "--best-of",
        type=int,
        help="Draw so many candidates for each avatar, 1 to 8, and keep the one that resembles most (1).",
    ),
    click.option(
        "--similarity/--no-similarity",
        help="Measure how much each avatar resembles the face in the photo.",
        default=None,
    ),
    click.option(
        "--preview-every",
        type=int,
        help="Rewrite a preview picture beside the output after every so many steps (0: none).",
    ),
)


def request_options(command: Command) -> Command:
    """Adds the flags, in the order of --help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_fields(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose flags were on the command line, None among them where a word stood for it."""
    return {
        name: value
        for name, value in values.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def flag_of(context: click.Context, field: str) -> str | None:
    """The flag that sets a request's field, as the user types it."""
    for parameter in context.command.params:
        if parameter.name == field and isinstance(parameter, click.Option):
            return max(parameter.opts, key=len)
    return None
