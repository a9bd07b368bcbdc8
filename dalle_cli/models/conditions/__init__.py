"""What a U-Net can be conditioned on: one condition per file, registered under the name that recipes use.

A condition owns its side of everything: what it needs, its part of a training batch, its inputs in training and in
generation, and its null value. So a new condition is one file, and no task asks for the class of one.
"""
