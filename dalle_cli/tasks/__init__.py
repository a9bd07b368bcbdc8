"""Objectives: a task holds a model and its frozen models, and its forward is the loss."""

from ..registry import Registry

tasks = Registry("task", __name__)
