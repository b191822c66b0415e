"""Stable Diffusion checkpoints with face adapters become packs; torch and diffusers live here."""
