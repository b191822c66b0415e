"""`faceavatar serve` and `faceavatar token`: the flags. What happens then is in http/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from faceavatar_cli.exits import Manner, debug_option, epilog, json_option, print_json
from faceavatar_cli.running import running_options


@click.command(epilog=epilog())
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; others need tokens.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one.")
@click.option(
    "--pack",
    "packs",
    multiple=True,
    help="A pack, name or folder; repeatable, the first is the default (toon).",
)
@running_options
@click.option("--tokens", type=click.Path(path_type=Path), help="A file of tokens; see `faceavatar token`.")
@click.option("--inline", is_flag=True, help="Answer pictures as data URIs.")
@click.option("--public-url", help="What the pictures' URLs begin with (the request's own host).")
@click.option(
    "--outputs", help="Where pictures are kept: a folder, or with --broker an fsspec URL (in --state)."
)
@click.option(
    "--keep", type=click.FloatRange(min=60), default=24 * 3600, help="Seconds pictures are kept (86400)."
)
@click.option(
    "--allow-host", "hosts", multiple=True, help="A host that photos may come from although private."
)
@click.option("--together", type=click.IntRange(1, 64), default=8, help="Most pictures in one run (8).")
@click.option(
    "--gather", type=click.FloatRange(0, 1000), default=5.0, help="Milliseconds a run waits for company (5)."
)
@click.option("--tiling", is_flag=True, help="Decode in tiles what does not fit whole.")
@click.option(
    "--memory-budget", metavar="BYTES", help='What the process may grow to, such as "6GB" (what is free).'
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Seconds that drawing one run may take (no end).",
)
@click.option("--waiting", type=click.IntRange(1), default=256, help="Tasks that may wait (256).")
@click.option(
    "--per-minute", type=click.FloatRange(min=1), default=600.0, help="Requests a token may send (600)."
)
@click.option("--body", type=click.IntRange(1), default=24, help="Megabytes that a request may have (24).")
@click.option(
    "--broker",
    help="The queue of `celery: true`: redis://, amqp:// ... (FACEAVATAR_BROKER, else an embedded one).",
)
@click.option(
    "--results", help="Its result store, a Redis or Valkey URL (FACEAVATAR_RESULTS, else the broker)."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Where the embedded queue and pictures are kept (FACEAVATAR_STATE).",
)
@click.option("--no-queue", is_flag=True, help="Queue in memory only: tasks are lost when the server ends.")
@debug_option
@click.pass_context
def serve(context: click.Context, /, **flags: Any) -> None:
    """Serve avatars over HTTP.

    Tokens come from --tokens or FACEAVATAR_TOKENS=name:secret,...; without any, only programs on this machine
    may call. Webhooks are signed with FACEAVATAR_WEBHOOK_SECRET.
    """
    from faceavatar.errors import MissingExtra

    try:
        from faceavatar_cli.http.serving import Serving
    except ModuleNotFoundError as error:
        raise MissingExtra("serve", error.name or "fastapi") from error
    Serving.of_flags(flags, os.environ).run(lambda words: click.echo(words, err=True))


@click.command()
@click.argument("name")
@json_option
@debug_option
@click.pass_obj
def token(manner: Manner, name: str) -> None:
    """Make a token for --tokens.

    Prints its secret, which is shown only here, and the line for the file.
    """
    from faceavatar_cli.http.settings import Limits
    from faceavatar_cli.http.tokens import hash_secret, new_secret, read_variable

    secret = new_secret()
    read_variable(f"{name}:{secret}", Limits())  # refuses a name that would not be read back
    line = f"{name}:{hash_secret(secret)}"
    if manner.json:
        print_json({"secret": secret, "line": line})
        return
    click.echo(secret)
    click.echo(f"for the file of tokens: {line}", err=True)
