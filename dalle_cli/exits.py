"""Exit codes, and the exception that carries one to the command line."""

DONE = 0
FAILED = 1
USAGE = 2  # options or recipe
BAD_INPUT = 3  # prompts, images or data
PARTIAL = 4  # some items failed; their results have an `error`
WOULD_OVERWRITE = 73
STOPPED = 75  # state saved; the same command resumes
INTERRUPTED = 130  # Ctrl-C
CLOSED_PIPE = 141  # as shells report a program ended by SIGPIPE


class Failure(Exception):
    """An error of the user's: one line with cause and remedy, and the exit code."""

    def __init__(self, message: str, code: int = FAILED):
        super().__init__(message)
        self.code = code
