"""Reads the trained weights of a pack back from its graphs, so that training can start from a shipped pack.

`python -m faceavatar_export.toon.warm_start PACK RUN` writes RUN/warm.pt: state dicts under "unet" (of
train_unet.Model), "text", "decoder" and "matting". Most initializers keep their torch names; the exporter
transposes and folds the others (matrices of Linear layers, weights of GroupNorm) under names of its own, in
the order in which the layers run. Every module is compared with its graph before anything is written.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from faceavatar_export.toon.autoencoder import LATENT_CHANNELS, Decoder
from faceavatar_export.toon.identity import EMBEDDING_SIZE
from faceavatar_export.toon.matting_net import SIZE as MATTING_SIZE
from faceavatar_export.toon.matting_net import MattingNet
from faceavatar_export.toon.network import FACE_TOKENS
from faceavatar_export.toon.text_encoder import CONTEXT, EOS, VOCABULARY, WINDOW, TextEncoder
from faceavatar_export.toon.train_unet import Model
from faceavatar_export.verify import relative_error

TOLERANCE = 1e-4


def constants(path: Path) -> dict[str, np.ndarray]:
    """All initializers of a graph in the file's order; int8 storage is turned back into float32."""
    raw = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    values: dict[str, np.ndarray] = {}
    for name, value in raw.items():
        if name.endswith(".int8"):
            whole = name.removesuffix(".int8")
            values[whole] = value.astype(np.float32) * raw[whole + ".scale"]
        elif not (name.endswith(".scale") and name.removesuffix("scale") + "int8" in raw):
            values[name] = value
    return values


def _layers(module: nn.Module, inputs: dict[str, Tensor]) -> list[tuple[str, nn.Module]]:
    """The Linear and GroupNorm layers with their names, in the order in which they run."""
    seen: list[tuple[str, nn.Module]] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda layer, _inputs, _output: seen.append((name, layer))

    hooks = [
        layer.register_forward_hook(note(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.GroupNorm)
    ]
    with torch.no_grad():
        module(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def _folded(
    values: dict[str, np.ndarray], known: set[str]
) -> tuple[Iterator[np.ndarray], Iterator[np.ndarray]]:
    """Matrices and per-channel vectors that lost their names, each in the order of the run."""
    # The exporter numbers what it folds (`val_123`) in the order of the run.
    names = [n for n in values if n not in known and re.fullmatch(r"val_\d+", n)]
    names.sort(key=lambda name: int(name.removeprefix("val_")))
    floats = [values[n] for n in names if values[n].dtype == np.float32]
    matrices = (v for v in floats if v.ndim == 2)
    vectors = (v for v in floats if v.ndim == 3 and v.shape[1:] == (1, 1))
    return matrices, vectors


def fill(
    module: nn.Module, path: Path, inputs: dict[str, Tensor], named: dict[str, str] | None = None
) -> None:
    """Fills a module with the weights of its graph. `named`: names of torch -> names of the graph.

    Raises ValueError where a weight cannot be found, or the filled module strays from the graph on `inputs`.
    """
    values = constants(path)
    for ours, theirs in (named or {}).items():
        values[ours] = values.pop(theirs)
    state = module.state_dict()
    matrices, vectors = _folded(values, set(state))
    for name, layer in _layers(module, inputs):
        keys = [f"{name}.weight"] if isinstance(layer, nn.Linear) else [f"{name}.weight", f"{name}.bias"]
        for key in keys:
            if key not in values:
                value = next(matrices if isinstance(layer, nn.Linear) else vectors, None)
                if value is not None:
                    values[key] = value.T if isinstance(layer, nn.Linear) else value
    for key, old in state.items():
        if key not in values or values[key].size != old.numel():
            raise ValueError(f"{path.name}: no weights for {key} {tuple(old.shape)}; is it the same network?")
        state[key] = torch.from_numpy(np.array(values[key])).reshape(old.shape)
    module.load_state_dict(state)
    error = relative_error(module, path, inputs)
    if not error <= TOLERANCE:
        raise ValueError(f"{path.name}: read back, it is {error:.3g} off its graph, {TOLERANCE} allowed")


def load_text(pack: Path) -> TextEncoder:
    """The text encoder with the tokens it knows."""
    path = pack / "text_encoder.onnx"
    table = next((n, v) for n, v in constants(path).items() if v.shape == (VOCABULARY,))
    encoder = TextEncoder(torch.from_numpy(table[1].astype(np.int64)))
    ids = torch.randint(0, VOCABULARY, (2, WINDOW), generator=torch.Generator().manual_seed(0))
    ids[:, 30:] = EOS
    fill(encoder, path, {"input_ids": ids}, {"known": table[0]})
    return encoder


def load_unet(pack: Path, model: Model) -> None:
    """The UNet and the face projection."""
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "sample": torch.randn(2, LATENT_CHANNELS, 8, 8, generator=generator),
        "timestep": torch.tensor([999, 300]),
        "encoder_hidden_states": torch.randn(2, WINDOW, CONTEXT, generator=generator),
        "face_tokens": torch.randn(2, FACE_TOKENS, CONTEXT, generator=generator),
        "face_scale": torch.ones(1),
    }
    fill(model.unet, pack / "unet.onnx", inputs)
    embeds = torch.randn(2, EMBEDDING_SIZE, generator=generator)
    fill(model.projection, pack / "face_projection.onnx", {"face_embeds": embeds})


def load_decoder(pack: Path, decoder: Decoder) -> None:
    """The picture decoder and the latents' statistics."""
    path = pack / "vae_decoder.onnx"
    std, mean = (n for n, v in constants(path).items() if v.shape == (LATENT_CHANNELS, 1, 1))
    latents = torch.randn(1, LATENT_CHANNELS, 3, 5, generator=torch.Generator().manual_seed(0))
    fill(decoder, path, {"latents": latents}, {"std": std, "mean": mean})


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    model, decoder, matting = Model(), Decoder(), MattingNet()
    load_unet(args.pack, model)
    load_decoder(args.pack, decoder)
    image = torch.rand(1, 3, MATTING_SIZE, MATTING_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fill(matting, args.pack / "matting.onnx", {"image": image})
    parts = {"unet": model, "text": load_text(args.pack), "decoder": decoder, "matting": matting}
    args.run.mkdir(parents=True, exist_ok=True)
    torch.save({name: part.state_dict() for name, part in parts.items()}, args.run / "warm.pt")
    print(f"{args.run / 'warm.pt'}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
