"""How a command ends: its exit codes, and the exception that carries one to the command line."""

DONE = 0
FAILED = 1
USAGE = 2  # options or recipe
BAD_INPUT = 3  # prompts, pictures or data
PARTIAL = 4  # some items failed; each is a result with `error`
WOULD_OVERWRITE = 73
STOPPED = 75  # state saved: the same command again goes on
INTERRUPTED = 130  # Ctrl-C
CLOSED_PIPE = 141  # what a shell shows for a program ended by SIGPIPE


class Failure(Exception):
    """The command cannot go on; the message is one line with the cause and the remedy, `code` the exit code."""

    def __init__(self, message: str, code: int = FAILED):
        super().__init__(message)
        self.code = code
