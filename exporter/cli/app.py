"""The command group, and what every command does with errors, interrupts and terminals."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence

import click

import exporter
from exporter.cli import looking, running
from exporter.cli.exit_codes import BAD_REQUEST, DONE, INTERRUPTED
from exporter.console import ERR, marked
from exporter.errors import ExporterError
from exporter.guard import told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; ``sys.argv`` where no arguments are given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug: set[str] = set()
    _print_anything()
    try:
        with _terminated_like_interrupted():
            code = group.main(given, prog_name="exporter", standalone_mode=False, obj=debug)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return BAD_REQUEST
    except (ExporterError, MemoryError, SystemExit) as error:
        if debug:
            traceback.print_exception(error)
        said = str(error) if isinstance(error, ExporterError) else told(error)
        ERR.print(f"[bold red]error:[/] {marked(said)}")
        return BAD_REQUEST
    except (KeyboardInterrupt, click.Abort):
        ERR.print("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (``| head``); keep Python from complaining about it.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return DONE
    return code if isinstance(code, int) else DONE


def _print_anything() -> None:
    """Let a terminal that cannot show a character show ``?``, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller owns the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _debugged(command: click.Command) -> click.Command:
    """Give a command the flag that shows the traceback of an error."""

    def note(context: click.Context, _option: click.Parameter, given: bool) -> None:
        if given:
            context.obj.add("debug")

    command.params.append(
        click.Option(
            ["--debug"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=note,
            help="Show the traceback of an error.",
        )
    )
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(exporter.__version__, prog_name="exporter")
def group() -> None:
    """See what a vision model sees, over a whole image set, in one pass.

    Kernels, activations and class-activation maps go to an open run folder, and from there to
    TensorBoard, W&B and a static HTML report.
    """


for _command in (
    running.run_command,
    running.plan_command,
    running.work_command,
    running.finish_command,
    running.demo_command,
    looking.layers_command,
    looking.maps_command,
    looking.render_command,
    looking.check_command,
):
    group.add_command(_debugged(_command))
