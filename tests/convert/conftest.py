import subprocess
import sys
from pathlib import Path

import pytest

PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


@pytest.fixture
def peak():
    """Bytes by which lines of Python raise the peak memory of a new process, after lines that prepare it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not report the peak memory of a process")

    def measure(prepare: str, lines: str, *arguments: object) -> int:
        program = f"import sys\n{prepare}\nbefore = {PEAK}\n{lines}\nprint({PEAK} - before)"
        printed = subprocess.check_output([sys.executable, "-c", program, *map(str, arguments)], text=True)
        return 1024 * int(printed.split()[-1])

    return measure
