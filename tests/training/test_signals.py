import os
import signal
import subprocess
import sys

import pytest

from dalle_cli.training.signals import LAUNCHED, Stop, Stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_sets_the_exit_code_and_nothing_else(number, code):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert stop.code == 0
        os.kill(os.getpid(), number)
        assert stop.code == code
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked to tell")
@pytest.mark.parametrize("launched", [{"RANK": "0"}, {"ACCELERATE_MIXED_PRECISION": "no"}, {}])
def test_the_end_of_a_launcher_is_a_signal_to_stop(launched):
    """One that passes no signal on; what was started by hand outlives its shell."""
    program = (
        "import time\nfrom dalle_cli.training.signals import Stop\n"
        "with Stop() as stop:\n    print('ready', flush=True)\n    time.sleep(1)\n    print(stop.code, flush=True)"
    )
    launcher = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {program!r}])"
    environment = {key: value for key, value in os.environ.items() if key not in LAUNCHED} | launched
    with subprocess.Popen(
        [sys.executable, "-c", launcher], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        child.kill()
        assert child.stdout.read() == ("75\n" if launched else "0\n")


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


def test_signal_interrupts_a_wait_for_samples():
    with Stop() as stop, pytest.raises(Stopped), stop.interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.code == 75


def test_one_of_several_processes_does_not_leave_by_itself():
    with Stop() as stop:
        with stop.interruptible(enabled=False):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.code == 75
