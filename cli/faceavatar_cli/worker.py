"""`faceavatar worker`: the flags. What happens then is in queue/, imported when it does."""

from __future__ import annotations

from pathlib import Path

import click

from faceavatar.errors import InvalidRequest, MissingExtra
from faceavatar_cli.exits import debug_option, epilog
from faceavatar_cli.queue.settings import (
    BROKER_VARIABLE,
    OUTPUTS_VARIABLE,
    RESULTS_VARIABLE,
    STATE_VARIABLE,
    from_environment,
)
from faceavatar_cli.running import Running, running_options

_FLAGS = {
    "memory_budget": "memory-budget",
    "keep_seconds": "keep",
    "lease_seconds": "lease",
    "task_seconds": "task-seconds",
}


@click.command(epilog=epilog())
@click.option("--broker", help="The queue: redis://, rediss://, amqp://, amqps:// ... (FACEAVATAR_BROKER).")
@click.option(
    "--results", help="The result store, a Redis or Valkey URL (FACEAVATAR_RESULTS, else the broker)."
)
@click.option("--outputs", help="A folder or fsspec URL that the server reaches too (FACEAVATAR_OUTPUTS).")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="In place of --broker: the state folder of a server on this machine (FACEAVATAR_STATE).",
)
@click.option(
    "--pack", "packs", multiple=True, help="A pack to draw with, name or folder; repeatable (toon)."
)
@running_options
@click.option("--tiling", is_flag=True, help="Decode in tiles what does not fit whole.")
@click.option(
    "--memory-budget", metavar="BYTES", help='What the process may grow to, such as "6GB" (what is free).'
)
@click.option(
    "--pool",
    type=click.Choice(["solo", "prefork"]),
    default="solo",
    show_default=True,
    help="Draw in this process, or in a child that is replaced when it crashes.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, help="A host that photos may come from although private."
)
@click.option("--keep", type=float, default=24 * 3600, help="Seconds that ended tasks are kept (86400).")
@click.option("--attempts", type=click.IntRange(1), default=3, help="How often a task is begun (3).")
@click.option("--lease", type=float, default=15, help="Seconds until a silent worker counts as dead (15).")
@click.option("--task-seconds", type=float, default=3600, help="Seconds that one task may take (3600).")
@debug_option
@click.pass_context
def worker(
    context: click.Context,
    broker: str | None,
    results: str | None,
    outputs: str | None,
    state: Path | None,
    packs: tuple[str, ...],
    provider: str,
    memory_budget: str | None,
    tiling: bool,
    threads: int | None,
    precision: str | None,
    engines: str | None,
    pool: str,
    hosts: tuple[str, ...],
    keep: float,
    attempts: int,
    lease: float,
    task_seconds: float,
) -> None:
    """Draw queued tasks: one worker for each GPU, on any number of machines.

    Ends with Ctrl-C or SIGTERM; a task that is drawn then is put back between two steps.
    """
    try:
        from faceavatar_cli.queue.join import Joining, join
    except ModuleNotFoundError as error:
        raise MissingExtra("queue", error.name or "celery") from error
    if broker and state:
        raise InvalidRequest("--state", "--broker beside it", "one of the two")
    if broker is None and state is None:
        broker = from_environment(BROKER_VARIABLE)
    joining = Joining(
        broker,
        results or from_environment(RESULTS_VARIABLE),
        outputs or from_environment(OUTPUTS_VARIABLE),
        state or _path(from_environment(STATE_VARIABLE)),
        {"keep_seconds": keep, "attempts": attempts, "lease_seconds": lease, "task_seconds": task_seconds},
    )
    try:
        running = Running(provider, threads, precision, engines, memory_budget, tiling)
        code = join(joining, packs or ("toon",), running, pool, hosts)
    except InvalidRequest as error:
        flag = _FLAGS.get(error.field, error.field)
        raise InvalidRequest(f"--{flag}", error.got, error.allowed) from None
    context.exit(code)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
