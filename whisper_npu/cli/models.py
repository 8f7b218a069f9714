"""whisper-npu models: list, pull, verify, path, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from whisper_npu.cli.help import Command, typer_app
from whisper_npu.cli.options import ModelName, Offline, say

if TYPE_CHECKING:
    from whisper_npu.catalogue import KnownModel

app = typer_app(
    name="models", help="List, download, verify and remove models.", no_args_is_help=True
)


@app.command("list", cls=Command)
def list_models() -> None:
    """List the models that have a short name, then others found on this machine.

    For example:

      whisper-npu models list
    """
    from whisper_npu import hub
    from whisper_npu.catalogue import known

    typer.echo(f"{'name':<17} {'size':>8}  {'languages':<9}  {'licence':<7}  {'here':<4}  from")
    for model in known().values():
        here, origin = _where(model)
        size = hub.readable(model.size) if model.size else "?"
        typer.echo(
            f"{model.name:<17} {size:>8}  {model.languages:<9}  {model.licence:<7}  {here:<4}  "
            f"{origin}"
        )
    for name, folder in hub.others().items():
        size = hub.readable(sum(path.stat().st_size for path in folder.iterdir()))
        typer.echo(f"{name:<17} {size:>8}  {'':<9}  {'':<7}  yes   {folder}")


def _where(model: KnownModel) -> tuple[str, str]:
    """Whether a model is here, and where it comes from."""
    from whisper_npu import hub, packages
    from whisper_npu.errors import WhisperNpuError

    for repository in model.repositories:
        if hub.cached(repository):
            return "yes", f"{repository.name}@{repository.revision[:8]}"
    preferred = model.repositories[0]
    try:
        if model.package and packages.find(model, join=False):
            return "yes", f"package {packages.names(model.package)}"
    except WhisperNpuError as error:
        return "no", str(error)
    return "-", f"{preferred.name}@{preferred.revision[:8]}"


@app.command(cls=Command)
def pull(name: ModelName, *, offline: Offline = False) -> None:
    """Download a model and verify it. What is here already is not downloaded again.

    For example:

      whisper-npu models pull small
    """
    from whisper_npu import sources
    from whisper_npu.catalogue import resolve

    typer.echo(sources.fetch(resolve(name), offline=offline, say=say))


@app.command(cls=Command)
def verify(
    name: ModelName,
    *,
    repair: Annotated[
        bool,
        typer.Option(show_default=False, help="Remove damaged files and download them again."),
    ] = False,
) -> None:
    """Check that the files of a model are complete and unchanged.

    For example:

      whisper-npu models verify --repair small
    """
    from whisper_npu import hub, packages, sources
    from whisper_npu.catalogue import known, resolve
    from whisper_npu.errors import ModelError

    folder, model = sources.find(name, offline=True), known().get(name)
    from_package = model if model and model.package and folder.parent.name != "snapshots" else None
    files = packages.genuine(from_package, folder) if from_package else hub.verify(folder)
    for file, genuine in files.items():
        typer.echo(f"{'ok     ' if genuine else 'DAMAGED'} {file}")
    damaged = [file for file, genuine in files.items() if not genuine]
    if damaged and (from_package or not repair):
        again = f"`whisper-npu models verify --repair {name}` fetches it again"
        cure = packages.cure(from_package) if from_package else again
        raise ModelError(f"{name}: {', '.join(damaged)} damaged; {cure}")
    for file in damaged:
        hub.discard(folder, file)
    if damaged:
        sources.fetch(resolve(name), say=say)


@app.command(cls=Command)
def path(name: ModelName) -> None:
    """Print where a model lies on this machine.

    For example:

      whisper-npu models path small
    """
    from whisper_npu import sources

    typer.echo(sources.open_checkpoint(name, offline=True).path)


@app.command(cls=Command)
def rm(name: ModelName) -> None:
    """Delete a downloaded model.

    For example:

      whisper-npu models rm small
    """
    from whisper_npu import hub, packages
    from whisper_npu.catalogue import resolve
    from whisper_npu.errors import ModelError

    model = resolve(name)
    freed = sum(hub.remove(repository) for repository in model.repositories)
    freed += packages.forget(model)
    if model.package and packages.find(model, join=False):
        say(f"{name} also comes from {packages.names(model.package)}: pip uninstall removes that")
    elif not freed:
        raise ModelError(f"{name} is not in the cache")
    say(f"removed {name}: {hub.readable(freed)} free")
