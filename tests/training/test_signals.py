import os
import signal
import subprocess
import sys

import pytest

from dalle_cli.training.signals import Stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_sets_the_exit_code_and_nothing_else(number, code):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert stop.code == 0
        os.kill(os.getpid(), number)
        assert stop.code == code
    assert signal.getsignal(number) is before


def test_the_first_signal_decides():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.code == 75


def test_a_second_ctrl_c_leaves_at_once():
    program = (
        "import os, signal\nfrom dalle_cli.training.signals import Stop\n"
        "with Stop():\n    for _ in range(2):\n        os.kill(os.getpid(), signal.SIGINT)\n    print('on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (130, b"")
