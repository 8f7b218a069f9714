"""whisper-npu models: list, pull, verify, path, rm."""

from __future__ import annotations

from typing import Annotated

import typer

from whisper_npu.cli.help import Command, typer_app
from whisper_npu.cli.options import Offline, say
from whisper_npu.published import KNOWN, resolve

app = typer_app(
    name="models", help="The models on this machine, and those to be had.", no_args_is_help=True
)
Name = Annotated[
    str, typer.Argument(help="base, large-v3-turbo, ..., owner/name, owner/name@revision.")
]


@app.command("list", cls=Command)
def list_models() -> None:
    """Show the models known by a short name, then others that are on this machine.

    For example: whisper-npu models list
    """
    from whisper_npu import hub

    typer.echo(f"{'name':<18} {'size':>9}  {'licence':<11} here  from")
    for model in KNOWN.values():
        folder = hub.cached(model)
        size = hub.size_of(folder) if folder else model.size
        typer.echo(
            f"{model.name:<18} {hub.readable(size) if size else '?':>9}  {model.licence:<11} "
            f"{'yes' if folder else '-':<4}  {model.repo}@{model.revision[:8]}"
        )
    for name, folder in hub.others().items():
        shown = hub.readable(hub.size_of(folder))
        typer.echo(f"{name:<18} {shown:>9}  {'':<11} yes   {folder}")


@app.command(cls=Command)
def pull(name: Name, *, offline: Offline = False) -> None:
    """Download a model and verify it; an interrupted download is continued.

    For example: whisper-npu models pull small
    """
    from whisper_npu import hub

    typer.echo(hub.pull(resolve(name), offline=offline, say=say))


@app.command(cls=Command)
def verify(
    name: Name,
    *,
    repair: Annotated[
        bool, typer.Option(help="Remove damaged files and fetch them again.")
    ] = False,
) -> None:
    """Compare each file of a downloaded model with its checksum.

    For example: whisper-npu models verify --repair small
    """
    from whisper_npu import hub
    from whisper_npu.errors import ModelError

    folder = hub.find(name, offline=True)
    damaged = []
    for file, genuine in hub.verify(folder).items():
        typer.echo(f"{'ok     ' if genuine else 'DAMAGED'} {file}")
        if not genuine:
            damaged.append(file)
    if damaged and not repair:
        raise ModelError(
            f"{name}: {', '.join(damaged)} damaged; `whisper-npu models verify --repair {name}` "
            "fetches it again"
        )
    for file in damaged:
        hub.discard(folder, file)
    if damaged:
        hub.pull(resolve(name), say=say)


@app.command(cls=Command)
def path(name: Name) -> None:
    """Print the folder of a model that is on this machine.

    For example: whisper-npu models path small
    """
    from whisper_npu import hub

    typer.echo(hub.find(name, offline=True))


@app.command(cls=Command)
def rm(name: Name) -> None:
    """Delete a downloaded model.

    For example: whisper-npu models rm small
    """
    from whisper_npu import hub

    freed = hub.remove(resolve(name))
    say(f"removed {name}: {hub.readable(freed)} free")
