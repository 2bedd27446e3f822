"""The command group, and what every command does with errors, interrupts and terminals."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

import exporter
from exporter.cli import checking, comparing, looking, packing, publishing, running, sharing
from exporter.cli.completion import answer_shell, completion_command
from exporter.cli.flags import BAD_REQUEST, DONE
from exporter.cli.quiet import quiet_codecs
from exporter.cli.signals import interruptible
from exporter.console import ERR, marked
from exporter.errors import INTERRUPTED, ExporterError, reason
from exporter.guard import told

_GOES_ON = {"run": "with --resume continues ", "work": "continues "}


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - a way to end each
    """Run the command line and return the exit code; ``sys.argv`` where no arguments are given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug: set[str] = set()
    answered = answer_shell(group)
    if answered is not None:
        return answered
    _print_anything()
    try:
        with interruptible(to_the_end=arguments is None), quiet_codecs():
            code = group.main(given, prog_name="exporter", standalone_mode=False, obj=debug)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return BAD_REQUEST
    except (KeyboardInterrupt, click.Abort):
        # Python ends itself with SIGINT where one passed through exec, such as a dataclass's, also
        # if it was caught since; another exec makes it forget.
        exec("")
        again = _GOES_ON.get(next(iter(given), ""))
        kept = f"; what is done is kept: the same command {again}from it" if again else ""
        ERR.print(f"interrupted{kept}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away (``| head``)
        return DONE
    except (Exception, SystemExit) as error:
        # The same, while click wrote its help; it wraps the output that broke, and exits.
        if isinstance(error, SystemExit) and "PacifyFlush" in type(sys.stdout).__name__:
            return DONE
        try:
            said = _sentence(error)
            if said is None:
                raise
            with contextlib.suppress(OSError):
                if debug:
                    traceback.print_exception(error)
            ERR.print(f"[bold red]error:[/] {marked(said)}")
        except MemoryError:
            with contextlib.suppress(OSError):
                os.write(2, b"error: memory ran out; what is done is kept\n")
        return BAD_REQUEST
    finally:
        _flush()
    return code if isinstance(code, int) else DONE


def _sentence(error: BaseException) -> str | None:
    """Say what went wrong; None for a mistake of ours, whose traceback is needed."""
    said, kept = None, "what is done is kept, and --resume continues from it"
    match error:
        case ExporterError():
            said = str(error)
        case SystemExit():
            said = f"the command was ended from inside: {told(error)}; {kept}"
        case MemoryError():
            said = f"memory ran out: {told(error)}; give a lower --batch-size; {kept}"
        case _ if isinstance(error, ImportError) or _while_importing(error):
            said = f"a library cannot be loaded: {told(error)}"
        case FileNotFoundError(filename=None):  # only the current folder has no name
            said = f"the current folder no longer exists; {kept}"
        case OSError():
            where = "standard output" if error.filename is None else repr(str(error.filename))
            said = f"{where} cannot be used: {reason(error)}; {kept}"
        case RuntimeError() if "can't start new thread" in str(error):
            said = f"the system starts no more threads; raise the limit (ulimit -u); {kept}"
    return said


def _while_importing(error: BaseException) -> bool:
    """Tell whether a module was being imported: short of memory, one can raise anything."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename.startswith("<frozen importlib") for frame, _ in frames)


def _flush() -> None:
    """Close output that takes nothing, which Python would complain about at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                stream.close()


def _print_anything() -> None:
    """Let a terminal that cannot show a character show ``?``, rather than end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _debugged(command: click.Command) -> click.Command:
    """Give a command the flag that shows the traceback of an error; of a group, each of its own."""
    if isinstance(command, click.Group):
        for part in command.commands.values():
            _debugged(part)
        return command

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
    comparing.compare_command,
    publishing.figure_command,
    publishing.table_command,
    sharing.report_command,
    sharing.publish_command,
    packing.pack_command,
    checking.check_command,
    looking.tensorboard_command,
    looking.sync_command,
    completion_command,
):
    group.add_command(_debugged(_command))
