"""Several runs, one after the other, in the process of a launch: python -m tests.training.runs JOBS.

JOBS: a JSON file, a list of {recipe, run, broken}; `broken` is a step whose loss is no number in the last process. So
that a test pays once for starting processes.
"""

import json
import os
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

from dalle_cli.tasks.dvae import DVAETask
from dalle_cli.training.loop import fit

whole = DVAETask.forward


def main(jobs: str) -> int:
    port = int(os.environ["MASTER_PORT"])
    for number, job in enumerate(json.loads(Path(jobs).read_text())):
        os.environ["MASTER_PORT"] = str(port + number)  # the store of the run before may still be there
        AcceleratorState._reset_state(reset_partial_state=True)
        DVAETask.forward = breaking(job["broken"]) if "broken" in job else whole
        code = fit(job["recipe"], Path(job["run"]))
        if code:
            return code
    return 0


def breaking(at: int):
    last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)

    def forward(self, batch, step):
        loss, logs = whole(self, batch, step)
        return loss * float("nan") if last and step == at else loss, logs

    return forward


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
