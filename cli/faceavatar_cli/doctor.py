"""`faceavatar doctor`: the command. What is checked, and how, is in checks.py."""

from __future__ import annotations

import click

from faceavatar_cli.exits import Manner, complain, debug_option, json_option, print_json


@click.command()
@json_option
@debug_option
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check this installation, with a fix for each problem.

    Looks at Python, packages that overwrite each other, execution providers, packs and memory.
    """
    from faceavatar_cli.checks import examine

    checks, problems = [], 0
    for check in examine():
        checks.append({"name": check.name, "ok": check.ok, "found": check.found, "fix": check.fix})
        problems += not check.ok
        if not context.ensure_object(Manner).json:
            click.echo(f"{'ok' if check.ok else 'problem':<8} {check.name:<12} {check.found}")
            if check.fix:
                click.echo(f"{'':<8} {'fix:':<12} {check.fix}")
    if context.ensure_object(Manner).json:
        print_json({"ok": not problems, "checks": checks})
    if problems:
        found = "1 problem was found" if problems == 1 else f"{problems} problems were found"
        context.exit(complain("doctor", f"{found}; each has its fix on stdout"))
