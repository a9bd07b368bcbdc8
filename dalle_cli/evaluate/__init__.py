"""Judging what was drawn: a program for the scenes, metrics and features for pictures at large."""
