"""The command `faceavatar`: its subcommands, and every error turned into one line and an exit code.

The engine is imported by the commands when they run: --help must not wait for numpy and pydantic.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from faceavatar import FaceAvatarError, __version__
from faceavatar_cli.bench import bench
from faceavatar_cli.compile import compile_
from faceavatar_cli.cutout import cutout
from faceavatar_cli.doctor import doctor
from faceavatar_cli.embed import embed
from faceavatar_cli.exits import Manner, debug_option, epilog, fail
from faceavatar_cli.export import export
from faceavatar_cli.generate import generate
from faceavatar_cli.packs import packs
from faceavatar_cli.serve import serve, token
from faceavatar_cli.worker import worker


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(),
)
@click.version_option(__version__, prog_name="faceavatar", message="%(prog)s %(version)s")
@debug_option
@click.pass_context
def cli(context: click.Context) -> None:
    """A photo in, avatars out. Begin with: faceavatar generate --example"""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (generate, cutout, embed, export, packs, compile_, doctor, bench, serve, worker, token):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (sys.argv where arguments is None) and gives its exit code; raises nothing."""
    manner = Manner()
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="faceavatar",
            obj=manner,
            standalone_mode=False,
        )
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        manner.json |= "--json" in (sys.argv if arguments is None else arguments)  # it was not parsed so far
        return fail("usage", error, _advice(error), manner)
    except click.Abort as error:
        return fail("interrupted", error, "stopped; nothing half-done was left behind", manner)
    except FaceAvatarError as error:
        return fail(error.code, error, str(error), manner)
    except Exception as error:
        message = f"{type(error).__name__}: {error}; run it again with --debug and report what that shows"
        return fail("internal", error, message, manner)


def _advice(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "faceavatar"
    return f"{error.format_message().rstrip('.')}; see {path} --help"
