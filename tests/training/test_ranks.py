from typing import Any

import pytest
from accelerate import Accelerator

from dalle_cli.exits import Failure
from dalle_cli.training import ranks
from dalle_cli.training.trackers import Tracker


def test_a_smaller_layout_than_asked_for_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(Accelerator, "num_processes", 1)
    with pytest.raises(Failure, match="2 processes were asked for and 1 started; use --processes"):
        ranks.accelerator("no", Tracker(), tmp_path, print)


def test_a_tracker_that_does_not_start_stops_nothing(tmp_path, monkeypatch):
    def refuse(names, folder):
        raise OSError("no network")

    monkeypatch.setattr(ranks, "filter_trackers", refuse)
    said = []
    assert ranks.accelerator("no", Tracker(report_to=["wandb"]), tmp_path, said.append).trackers == []
    assert said == ["tracker wandb is skipped: no network; pip install 'dalle[wandb]' if it is missing"]


def test_autocast_keeps_no_copies_of_sharded_weights(tmp_path):
    """With them each device would hold the whole model in 16 bits until the end of the forward pass."""
    for sharded in (False, True):
        handler: Any = ranks.accelerator("no", Tracker(), tmp_path, print, sharded).autocast_handler
        assert handler.cache_enabled is not sharded
