"""Where a run reports: RUN/log.jsonl always, and TensorBoard or wandb where asked for."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..console import json_safe


@dataclass(frozen=True)
class Tracker:
    """The `tracker` section. report_to: trackers besides log.jsonl. project: name of the project there."""

    report_to: list[Literal["tensorboard", "wandb"]] = field(default_factory=list)
    project: str = "dalle"


class Log:
    """Appends one JSON object per line, `json_safe`. Opening it removes a last line that a crash left incomplete."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            text = path.read_bytes()
            if text and not text.endswith(b"\n"):
                with open(path, "rb+") as file:
                    file.truncate(text.rfind(b"\n") + 1)
        # A file name that is not UTF-8 becomes JSON's own escapes.
        self._file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  (held for the run)

    def write(self, **values: Any) -> None:
        try:
            self._file.write(json.dumps(json_safe(values), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self.path)  # so that the message names the file on the full disk
            raise

    def close(self) -> None:
        self._file.close()
