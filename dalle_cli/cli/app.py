"""The Typer app, the layout of its help, and how errors end: one line on standard error and an exit code."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__, distributed
from ..console import printable
from ..exits import BAD_INPUT, FAILED, INTERRUPTED, USAGE, Failure
from ..registry import RecipeError
from .hints import hint

TRAIN, CREATE, JUDGE, MANAGE = "Train", "Create", "Judge", "Manage"
GROUPS = (TRAIN, CREATE, JUDGE, MANAGE)
FIRST_COMMANDS = (
    ('dalle sample "an avocado chair" --rerank 16', "Generate images; keep the one that fits best."),
    ("dalle train-clip --recipe tiny", "Train a model in minutes on a CPU."),
    ("dalle recipes", "List what can be trained and sampled."),
)
MAX_ERROR_LENGTH = 800  # characters; names within an error can have any length

UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # the base of all usage errors, which typer does not export

Function = TypeVar("Function", bound=Callable[..., Any])


class HelpCommand(TyperCommand):
    """A command whose examples are printed as they are, one per line: rich would wrap and reflow them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        text, self.epilog = self.epilog, None
        super().format_help(ctx, formatter)
        self.epilog = text
        if text and formatter.getvalue():  # without rich
            formatter.write(f"\n{text}\n")
        elif text:  # rich has printed the rest
            typer.echo(f" {text}\n".replace("\n", "\n "))


class HelpGroup(TyperGroup):
    """A group of commands that prints its help when called without a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            if page := ctx.get_help():  # rich prints by itself and returns nothing
                typer.echo(page)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)


class RootGroup(HelpGroup):
    """The help of `dalle` itself, printed without rich, whose import takes as long as everything else."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = None
        formatter.width = max(formatter.width, 100)  # summaries fit in one line each
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("First commands"):
            formatter.write_dl(FIRST_COMMANDS)
        self.format_commands(ctx, formatter)
        rows = [row for parameter in self.get_params(ctx) if (row := parameter.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl(rows)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        column = max(map(len, self.commands))
        for title in (*GROUPS, None):
            members = [(name, one) for name, one in self.commands.items() if self._title(one) == title]
            if members:
                with formatter.section(title or "Other"):
                    formatter.write_dl([(name.ljust(column), _summary(one.help)) for name, one in members])

    @staticmethod
    def _title(command: Any) -> str | None:
        return command.rich_help_panel if command.rich_help_panel in GROUPS else None


def _summary(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


app = typer.Typer(
    name="dalle",
    cls=RootGroup,
    help="Train, sample and evaluate OpenAI's line of text-to-image models: DALL-E 1, CLIP, GLIDE and unCLIP.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(
    group: str | None, *examples: str, name: str | None = None, to: typer.Typer | None = None
) -> Callable[[Function], Function]:
    """Register a function as a command; its docstring is the help.

    group: one of GROUPS, under which `dalle --help` lists it; None within a subgroup. examples: command lines, shown
    one per line below the options. to: a subgroup in place of the app.
    """
    panel = group or "Commands"
    return (to or app).command(name, cls=HelpCommand, epilog=_epilog(examples), rich_help_panel=panel)


def subgroup(name: str, group: str, summary: str) -> typer.Typer:
    """Add `dalle NAME ...`, a group of commands of its own."""
    commands = typer.Typer(cls=HelpGroup, help=summary)
    app.add_typer(commands, name=name, rich_help_panel=group)
    return commands


def _epilog(examples: tuple[str, ...]) -> str | None:
    return "\n  ".join(["Examples:" if len(examples) > 1 else "Example:", *examples]) if examples else None


def _version(wanted: bool) -> None:
    if wanted:
        print(f"dalle {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["DALLE_DEBUG"] = "1"


def run() -> NoReturn:
    """Run the command line; an error of the user's becomes one line and its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs of a shell ignore SIGINT
        signal.signal(signal.SIGINT, _interrupt)
    distributed.silence_other_ranks()
    try:
        sys.exit(app(prog_name="dalle", standalone_mode=False))  # the value of typer.Exit, or None
    except UsageError as error:
        _end_usage(error)
    except Failure as error:
        _end(error, error.code)
    except RecipeError as error:
        _end(error, USAGE)
    except ValueError as error:  # errors in the user's data, images, checkpoints and vocabularies
        _end(error, BAD_INPUT)
    except (OSError, RuntimeError, MemoryError) as error:
        _end(error, FAILED)
    except SystemExit as error:
        distributed.exit_process(error.code)
    except KeyboardInterrupt:
        _end(Failure("interrupted"), INTERRUPTED)
    except Exception as error:
        _end(error, FAILED, f"internal error, {type(error).__name__} (dalle --debug ... shows where): ")


def _interrupt(number: int, frame: Any) -> None:
    """Handle Ctrl-C. The import of torch can swallow an exception; at that time there is nothing to lose yet."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _end_usage(error: Any) -> NoReturn:
    """End with an error of usage: what newcomers mean by an unknown option, else what Click suggests."""
    command = error.ctx.command_path if error.ctx else "dalle"
    option = getattr(error, "option_name", None)  # of an unknown option
    if isinstance(option, str) and (meant := hint(option, command)):
        _end(Failure(f"No such option: {option}. {meant}"), USAGE)
    _end(Failure(f"{error.format_message().rstrip('.').replace('Value error, ', '')}; see {command} --help"), USAGE)


def _end(error: BaseException, code: int, prefix: str = "") -> NoReturn:
    if os.environ.get("DALLE_DEBUG"):
        raise error
    message = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    line = printable(" ".join(message.split())) or type(error).__name__
    if len(line) > MAX_ERROR_LENGTH:  # the cause comes first, the remedy last
        line = f"{line[: MAX_ERROR_LENGTH // 2]} … {line[-MAX_ERROR_LENGTH // 2 :]}"
    print(f"dalle: {prefix}{line}", file=sys.stderr)
    distributed.exit_process(code)
