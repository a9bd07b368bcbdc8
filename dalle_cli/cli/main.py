"""The app, its commands, and how errors end: one line on standard error and an exit code."""

import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, distributed
from ..console import printable
from ..exits import BAD_INPUT, FAILED, INTERRUPTED, USAGE, Failure
from ..registry import RecipeError

LONGEST = 800  # letters of an error: names in it may be of any length

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # that of all wrong options; typer exports no more of it


class Front(TyperGroup):
    """The app's own page of help, printed without rich: importing that takes as long as all else."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = None
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help or "") for name, command in self.commands.items()])


app = typer.Typer(
    name="dalle",
    cls=Front,
    help="Train, sample and judge the OpenAI text-to-image lineage: DALL-E 1, CLIP, GLIDE, unCLIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dalle {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["DALLE_DEBUG"] = "1"


def load() -> typer.Typer:
    """The app with all its commands."""
    from . import (  # noqa: F401
        check,
        convert,
        create,
        data,
        evaluate,
        inspect,
        judge,
        latents,
        manage,
        measure,
        measure_latents,
        paint,
        probe,
        tokenizer,
        train,
    )  # fmt: skip

    return app


def main() -> None:
    """Run the command line; errors of the user's become one line and their exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's job in the background ignores it
        signal.signal(signal.SIGINT, _interrupt)
    load()
    distributed.silence()
    try:
        sys.exit(app(prog_name="dalle", standalone_mode=False))  # the exit code of a command that gives one
    except UsageError as error:
        _end_usage(error)
    except Failure as error:
        _end(error, error.code)
    except RecipeError as error:
        _end(error, USAGE)
    except ValueError as error:  # what a user can get wrong: data, pictures, checkpoints, vocabularies
        _end(error, BAD_INPUT)
    except (OSError, RuntimeError, MemoryError) as error:
        _end(error, FAILED)
    except SystemExit as error:
        distributed.end(error.code)
    except KeyboardInterrupt:
        _end(Failure("interrupted"), INTERRUPTED)
    except Exception as error:
        _end(error, FAILED, f"internal error, {type(error).__name__} (dalle --debug ... shows where): ")


def _interrupt(number: int, frame: Any) -> None:
    """Ctrl-C. While torch is imported its own code may swallow an exception; nothing has begun that could be lost."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _end_usage(error: Any) -> None:
    """A wrong word on the command line; a group alone has nothing to say, as its help has been printed."""
    words = error.format_message().rstrip(".").replace("Value error, ", "")
    if not words:
        sys.exit(USAGE)
    command = error.ctx.command_path if error.ctx else "dalle"
    _end(Failure(f"{words}; see {command} --help"), USAGE)


def _end(error: BaseException, code: int, prefix: str = "") -> None:
    if os.environ.get("DALLE_DEBUG"):
        raise error
    words = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        words = f"{error.filename}: {error.strerror}"
    line = printable(" ".join(words.split())) or type(error).__name__
    if len(line) > LONGEST:  # the cause stands first, the remedy last
        line = f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"
    print(f"dalle: {prefix}{line}", file=sys.stderr)
    distributed.end(code)
