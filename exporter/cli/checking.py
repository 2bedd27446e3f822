"""The command that checks: whether things are whole, and whether they say who made them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import click

from exporter.cli.flags import BAD_REQUEST, DONE, PLACE, file_option
from exporter.console import OUT, Bar, explained, marked
from exporter.errors import ConfigError, counted
from exporter.stores import Place, on_disk


@click.command("check")
@click.argument("folder", metavar="RUN|CMP|FILE", type=PLACE)
@click.option(
    "--anonymous",
    is_flag=True,
    help="Instead, search everything in a file or folder that can be decoded for what identifies "
    "this user and this machine.",
)
@click.option("--also", metavar="A,B", default="", help="With --anonymous, search for these, too.")
@file_option(
    "--run",
    "runs",
    metavar="RUN",
    multiple=True,
    help="A run that a supplement has to be made from; repeatable.",
)
def check_command(folder: Place, *, anonymous: bool, also: str, runs: tuple[Path, ...]) -> int:
    """Check that a run, a training, a comparison or a supplement (FILE.zip) is intact.

    A supplement is compared with its checksums, and with the runs that it was made from.
    With --anonymous, check that a file or folder says nothing about who made it: user, host, home
    and working folder, and git's name, mail and remotes, as they are on this machine now.
    """
    from exporter.store import epochs_in
    from exporter.store.layout import is_comparison

    if also and not anonymous:
        raise ConfigError("--also says what --anonymous looks for; give both")
    if anonymous:
        return _check_anonymous(on_disk(folder, "--anonymous searches the disk"), also)
    pack = folder if isinstance(folder, Path) and _is_zip(folder) else None
    if runs and not pack:
        raise ConfigError("--run says what a supplement was made from; give its zip")
    with Bar() as bar:
        if pack:
            problems, whole = _check_pack(pack, runs)
        elif is_comparison(folder):
            problems, whole = _check_comparison(folder, bar)
        elif epochs := epochs_in(folder):
            told = [(run, *_check_run(run, bar)) for run in epochs.values()]
            problems = [f"{run}: {problem}" for run, own, _ in told for problem in own]
            whole = f"{counted(len(epochs), 'epoch')}, the last with {told[-1][2]}"
        else:
            problems, whole = _check_run(folder, bar)
    for problem in problems:
        OUT.print("[red]✗[/] " + marked(problem))
    if problems:
        return BAD_REQUEST
    OUT.print(f"[green]✓[/] {marked(str(folder))} is intact: {whole}")
    return DONE


def _is_zip(file: Path) -> bool:
    return file.is_file() and zipfile.is_zipfile(file)


def _check_anonymous(path: Path, also: str) -> int:
    from exporter.anonymity import identifiers_here, listed, named, search

    known, general = identifiers_here()
    identifiers = [*known, *named(also)]
    with Bar() as bar:
        bar.begin(f"searching {path}")
        searched = search(path, identifiers)
    for problem in searched.unread:
        OUT.print("[red]✗[/] " + marked(f"{problem}; what is in it was not searched"))
    for trace in searched.traces:
        OUT.print("[red]✗[/] " + marked(f"{trace.place}: {listed([trace.identifier])}"))
    if general:
        OUT.print(marked(f"too general or too short to look for: {listed(general)}"))
    said = f"in {counted(searched.files, 'file')}: {listed(identifiers)}"
    if searched.traces or searched.unread:
        OUT.print(marked(f"searched for {said}"))
        return BAD_REQUEST
    OUT.print(f"[green]✓[/] {marked(f'{path} has none of these {said}')}")
    OUT.print("What is drawn in pictures is not read.")
    return DONE


def _check_run(folder: Place, bar: Bar) -> tuple[list[str], str]:
    from exporter.store import check, open_run
    from exporter.writers import check as check_written

    problems = [*check(folder, bar), *check_written(open_run(folder), bar)]
    plan = open_run(folder).plan
    images, shards = len(plan.images), counted(len(plan.shards), "shard")
    return problems, f"{images} images in {shards}, {explained(plan)}"


def _check_pack(file: Path, runs: Sequence[Path]) -> tuple[list[str], str]:
    from exporter.publish.archive import check_pack
    from exporter.store import open_run

    problems = list(check_pack(file, [open_run(run) for run in runs]))
    origin = f", and made from {counted(len(runs), 'run')} as given" if runs else ""
    return problems, f"every file is as it was written{origin}"


def _check_comparison(folder: Place, _bar: Bar) -> tuple[list[str], str]:
    from exporter.comparison import check, open_comparison

    comparison = open_comparison(folder)
    runs = counted(len(comparison.contents.runs), "run")
    return list(check(comparison)), f"{comparison.contents.images} images in {runs}"
