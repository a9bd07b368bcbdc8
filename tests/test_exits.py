import subprocess
import sys

from dalle_cli import exits


def test_codes_are_stable():
    codes = {name: value for name, value in vars(exits).items() if name.isupper()}
    assert codes == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "BAD_INPUT": 3,
        "PARTIAL": 4,
        "WOULD_OVERWRITE": 73,
        "STOPPED": 75,
        "INTERRUPTED": 130,
        "CLOSED_PIPE": 141,
    }


def test_failure_has_message_and_code():
    assert (str(exits.Failure("no space")), exits.Failure("no space").code) == ("no space", exits.FAILED)
    assert exits.Failure("there already", exits.WOULD_OVERWRITE).code == 73


def test_outputs_are_imported_without_torch():
    code = (
        "import sys, dalle_cli.generate.outputs; print([m for m in ('torch', 'rich', 'omegaconf') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
