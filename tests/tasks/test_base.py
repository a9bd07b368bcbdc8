from torch import nn

from dalle_cli.tasks.base import Task


class Plain(Task):
    def __init__(self):
        super().__init__(nn.Dropout(0.5))
        self.companion = nn.Dropout(0.5).eval()


def test_switching_to_training_leaves_companions_alone():
    task = Plain()
    task.train()
    assert (task.training, task.model.training, task.companion.training) == (True, True, False)
    task.eval()
    assert (task.training, task.model.training) == (False, False)


def test_a_task_needs_neither_preparation_nor_pictures():
    task = Plain()
    task.prepare(iter(()))
    task.after_step()
    assert task.preview({}) is None
    assert task.codec is None
