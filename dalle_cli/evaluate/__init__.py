"""Evaluation: every protocol is a function that takes systems, models or data and returns figures.

    from dalle_cli import evaluate

    evaluate.retrieval("starter/clip", num_samples=200).to_json()

Protocols are looked up when they are used: `evaluate.NAME` is the function of protocols/NAME.py, `evaluate.probe_NAME`
that of probes/NAME.py.
"""

from typing import Any

from . import protocol


def __getattr__(name: str) -> Any:
    probe = name.startswith("probe_")
    folder = protocol.PROBES if probe else protocol.PROTOCOLS
    try:
        return protocol.load(folder, name.removeprefix("probe_") if probe else name)
    except KeyError:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'") from None


def __dir__() -> list[str]:
    probes = [f"probe_{name}" for name in protocol.names(protocol.PROBES)]
    return sorted([*globals(), *protocol.names(protocol.PROTOCOLS), *probes])
