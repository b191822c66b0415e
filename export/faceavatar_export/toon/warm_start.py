"""Reads the trained weights of a pack back from its graphs, so that training can start from a shipped pack.

`python -m faceavatar_export.toon.warm_start PACK RUN` writes RUN/warm.pt: state dicts under "unet" (of
train_unet.Model), "text", "decoder" and "matting". Most initializers keep their torch names; the exporter
transposes and folds the others (matrices of Linear layers, weights of GroupNorm) under names of its own, in
the order in which the layers run. Every module is compared with its graph before anything is written. Weights
that a graph stores as int8 come back as the runtime sees them, not as they were trained. Knows nothing of the
encoder, the face encoder or optimizers: those are not in a pack, or not in this form.
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
from faceavatar_export.toon.export_pack import drawn_people
from faceavatar_export.toon.identity import EMBEDDING_SIZE
from faceavatar_export.toon.matting_coarse import CoarseAlpha
from faceavatar_export.toon.matting_net import SIZE as MATTING_SIZE
from faceavatar_export.toon.matting_net import MattingNet
from faceavatar_export.toon.network import FACE_TOKENS
from faceavatar_export.toon.text_encoder import BOS, CONTEXT, EOS, VOCABULARY, WINDOW, TextEncoder
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
        module(*inputs.values())
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


def _named(
    module: nn.Module, values: dict[str, np.ndarray], inputs: dict[str, Tensor]
) -> dict[str, np.ndarray]:
    """`values` with the folded weights under their names of torch as well, in torch's shapes."""
    found, state = dict(values), module.state_dict()
    matrices, vectors = _folded(values, set(state))
    for name, layer in _layers(module, inputs):
        linear = isinstance(layer, nn.Linear)
        for key in (f"{name}.weight",) if linear else (f"{name}.weight", f"{name}.bias"):
            if key in found:
                continue
            value = next(matrices if linear else vectors, None)
            if value is not None:
                found[key] = value.T if linear else value[:, 0, 0]
    return found


def fill(
    module: nn.Module, path: Path, inputs: dict[str, Tensor], known: dict[str, np.ndarray] | None = None
) -> None:
    """Fills a module with the weights of its graph; `known` holds those that no name or order tells.

    Raises ValueError where weights cannot be found, or the filled module strays from the graph on `inputs`.
    """
    found = _named(module, constants(path) | (known or {}), inputs)
    state = module.state_dict()
    lost = [
        f"{key} {tuple(old.shape)}"
        for key, old in state.items()
        if key not in found or found[key].shape != tuple(old.shape)
    ]
    if lost:
        raise ValueError(f"{path.name}: no weights for {', '.join(lost)}; is it the same network?")
    module.load_state_dict({key: torch.from_numpy(np.array(found[key])) for key in state})
    training = module.training
    error = relative_error(module, path, inputs)
    module.train(training)
    if not error <= TOLERANCE:
        raise ValueError(f"{path.name}: read back, it is {error:.3g} off its graph, {TOLERANCE} allowed")


def _of_shape(path: Path, shape: tuple[int, ...], count: int, what: str) -> list[np.ndarray]:
    """The constants of a shape that only `what` has, in the file's order."""
    found = [value for value in constants(path).values() if value.shape == shape]
    if len(found) != count:
        raise ValueError(f"{path.name}: {len(found)} constants of shape {shape} for {what}, {count} expected")
    return found


def load_text(pack: Path) -> TextEncoder:
    """The text encoder, with the tokens that the pack's captions used."""
    path = pack / "text_encoder.onnx"
    (table,) = _of_shape(path, (VOCABULARY,), 1, "known")
    known = table.astype(np.int64)
    encoder = TextEncoder(torch.from_numpy(known))
    # Every known token once, and one unknown in each window: random ids are nearly all unknown.
    words = np.setdiff1d(np.flatnonzero(known), (BOS, EOS))
    unknown = int(np.flatnonzero(known == 0)[0])
    ids = np.full((-(-len(words) // (WINDOW - 7)), WINDOW), EOS)  # five end tokens: the mask is seen to work
    ids[:, 0], ids[:, 1] = BOS, unknown
    ids[:, 2 : WINDOW - 5].flat[: len(words)] = words
    fill(encoder, path, {"input_ids": torch.from_numpy(ids)}, {"known": known})
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
    """The picture decoder and the latents' statistics; `depth` adds nothing where the pack has none."""
    path = pack / "vae_decoder.onnx"
    std, mean = _of_shape(path, (LATENT_CHANNELS, 1, 1), 2, "std and mean")
    latents = torch.randn(1, LATENT_CHANNELS, 3, 5, generator=torch.Generator().manual_seed(0))
    known = {"std": std[:, 0, 0], "mean": mean[:, 0, 0]}
    if not any(name.startswith("depth.") for name in constants(path)):
        for name, value in decoder.named_parameters():
            if name.startswith("depth."):  # identities: a block's last convolution adds nothing
                silent = torch.zeros_like(value) if ".conv2." in name else value
                known[name] = silent.detach().numpy()
    fill(decoder, path, {"latents": latents}, known)


def load_matting(pack: Path, net: MattingNet) -> None:
    """The matting net; of a pack that has the coarse half alone, that half."""
    path = pack / "matting.onnx"
    (tensor,) = onnx.load(path).graph.input
    side = tensor.type.tensor_type.shape.dim[3].dim_value
    image = drawn_people(1, side, side)
    if side == MATTING_SIZE:
        fill(net, path, {"image": image})
        return
    # Alone it tells nobody of styles, and its graph has nothing of that.
    styles = {f"coarse.style.{name}": value.numpy() for name, value in net.coarse.style.state_dict().items()}
    fill(CoarseAlpha(net.coarse), path, {"image": image}, styles)


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
    load_matting(args.pack, matting)
    parts = {"unet": model, "text": load_text(args.pack), "decoder": decoder, "matting": matting}
    args.run.mkdir(parents=True, exist_ok=True)
    torch.save({name: part.state_dict() for name, part in parts.items()}, args.run / "warm.pt")
    print(f"{args.run / 'warm.pt'}: {', '.join(parts)}")


if __name__ == "__main__":
    main()
