from torch import nn

from dalle_cli.tasks.base import Task


class Plain(Task):
    def __init__(self):
        super().__init__(nn.Dropout(0.5))
        self.companion = nn.Dropout(0.5).eval()


def test_train_mode_leaves_frozen_models_in_eval():
    task = Plain()
    task.train()
    assert (task.training, task.model.training, task.companion.training) == (True, True, False)
    task.eval()
    assert (task.training, task.model.training) == (False, False)


def test_task_defaults():
    task = Plain()
    task.prepare(iter(()))
    task.after_step()
    assert task.preview({}) is None
    assert task.codec is None
