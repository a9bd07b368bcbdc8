"""The mathematics of Gaussian diffusion, without networks.

A `Process` says how data becomes noise and what a network's output means. A denoiser is a function from (x, t) to a
`Prediction`; guidance maps denoisers to denoisers; samplers are functions over a denoiser and a list of steps.
"""
