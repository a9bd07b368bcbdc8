import subprocess
import sys
from pathlib import Path

import pytest

PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


@pytest.fixture
def peak():
    """Bytes by which lines of Python, run in a process of their own, raise its peak memory, after others are run."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the peak memory of a program")

    def measure(prepare: str, lines: str, *arguments: object) -> int:
        program = f"import sys\n{prepare}\nbefore = {PEAK}\n{lines}\nprint({PEAK} - before)"
        printed = subprocess.check_output([sys.executable, "-c", program, *map(str, arguments)], text=True)
        return 1024 * int(printed.split()[-1])

    return measure
