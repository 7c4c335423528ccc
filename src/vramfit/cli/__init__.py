"""The command: thin over the library; commands are imported when they are called."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

COMMANDS = {
    "infer": "vramfit.cli.infer:infer",
    "train": "vramfit.cli.train:train",
    "plan": "vramfit.cli.plan:plan",
    "rough": "vramfit.cli.rough:rough",
    "estimate": "vramfit.cli.infer:estimate",
    "compare": "vramfit.cli.compare:compare_command",
    "validate": "vramfit.cli.validate:validate_command",
    "trace": "vramfit.cli.trace:trace_command",
    "measure": "vramfit.cli.measure:measure_command",
    "models": "vramfit.cli.lists:models",
    "devices": "vramfit.cli.lists:devices",
    "explain": "vramfit.cli.lists:explain",
    "snapshot": "vramfit.cli.snapshot:snapshot_command",
    "completion": "vramfit.cli.lists:completion",
}
"""Command -> where it is defined."""


def main(args: list[str] | None = None) -> None:
    """Run the command; exit codes: 0 done, 1 ``--check`` and it does not fit, 2 the input was wrong."""
    if args is None:
        gc.disable()  # a process that lives for a tenth of a second has nothing to collect
        args = sys.argv[1:]
    if "--help" in args:
        from rich_click.patch import patch  # noqa: PLC0415 - only help is drawn by it

        patch()
    run(build(), args)


def build() -> Any:  # noqa: ANN401 - click is imported late
    """Return the group of commands; each is imported when it is looked up."""
    import click  # noqa: PLC0415 - `import vramfit.cli` stays light

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            del ctx
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            del ctx
            if cmd_name not in COMMANDS:
                return None
            module, _, name = COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            return command

        def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:  # noqa: ANN401 - click's own tuple
            if args and args[0] not in COMMANDS and not args[0].startswith("-"):
                from vramfit.names import nearest  # noqa: PLC0415

                close = nearest(args[0], COMMANDS)
                hint = f"; nearest: {', '.join(close)}" if close else ""
                raise click.UsageError(f"{args[0]!r} is no command{hint}; expected one of {', '.join(COMMANDS)}", ctx)
            return super().resolve_command(ctx, args)

    return click.version_option(_version(), prog_name="vramfit")(
        Lazy(
            "vramfit",
            help="How much GPU memory a model needs, on which and how many GPUs, and what to change to make it fit.",
            context_settings={"help_option_names": ["-h", "--help"]},
            no_args_is_help=True,
        )
    )


def _version() -> str:
    from vramfit.version import VERSION  # noqa: PLC0415

    return VERSION


def run(group: Any, args: list[str]) -> None:  # noqa: ANN401 - click is imported late
    """Run and turn every error that is the input's fault into one line and exit code 2."""
    import click  # noqa: PLC0415

    from vramfit.errors import VramfitError  # noqa: PLC0415

    try:
        code = group.main(args, prog_name="vramfit", standalone_mode=False)
    except VramfitError as error:
        click.echo(f"vramfit: {error}", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        click.echo("vramfit: stopped", err=True)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
