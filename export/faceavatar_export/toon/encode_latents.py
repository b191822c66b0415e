"""Turns drawn pictures into the latents that the UNet trains on: FOLDER/latents.npy, float16 (N, 64, 8, 8).

`python -m faceavatar_export.toon.encode_latents DATA AUTOENCODER.pt --count N`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from faceavatar_export.toon.autoencoder import LATENT_CHANNELS, Autoencoder
from faceavatar_export.toon.training import channels_last, load_checkpoint


def encode(data: Path, checkpoint: Path, count: int | None, batch_size: int = 32) -> None:
    """Encodes the first `count` pictures (all by default)."""
    pictures = np.load(data / "pictures.npy", mmap_mode="r")[:count]
    model = channels_last(Autoencoder()).eval()
    if load_checkpoint(checkpoint, model=model)[0] == 0:
        raise FileNotFoundError(f"{checkpoint}: no trained autoencoder; run train_autoencoder first")
    out = np.lib.format.open_memmap(
        data / "latents.npy", "w+", np.float16, (len(pictures), LATENT_CHANNELS, 8, 8)
    )
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(pictures), batch_size):
            image = torch.from_numpy(np.asarray(pictures[i : i + batch_size], np.float32)).permute(0, 3, 1, 2)
            out[i : i + batch_size] = model.encode(image / 127.5 - 1).float().numpy()
            if i % (batch_size * 50) == 0:
                print(f"{i}/{len(pictures)}", flush=True)
    out.flush()


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int)
    args = parser.parse_args()
    encode(args.data, args.checkpoint, args.count)


if __name__ == "__main__":
    main()
