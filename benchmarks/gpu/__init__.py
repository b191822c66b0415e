"""Parity and speed on an NVIDIA GPU, against diffusers in the same process: python benchmarks/gpu/run.py."""
