"""The UNets that are timed: SD1.5's and SDXL's topologies with random weights, and their graphs.

Weights are drawn once, rounded to half precision and saved, so that float32, float16, torch and ONNX
Runtime all compute with the very same numbers. Knows topologies and inputs; runs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # stages are named without it
    import torch

CONTEXT_TOKENS, TIME_IDS = 77, 6
BATCHES = (1, 4, 8)
NARROW_BATCHES = (1, 2)
_XL = {
    "addition_embed_type": "text_time",
    "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
_NARROW = {"layers_per_block": 1, "norm_num_groups": 8}
_CONFIGS: dict[tuple[str, bool], dict[str, Any]] = {
    ("sd15", False): {"cross_attention_dim": 768, "attention_head_dim": 8},
    ("sdxl", False): {
        **_XL,
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    ("sd15", True): {
        **_NARROW,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
    },
    ("sdxl", True): {
        **_XL,
        **_NARROW,
        "block_out_channels": (16, 32, 32),
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (2, 4, 4),
        "cross_attention_dim": 16,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + TIME_IDS * 8,
    },
}
_CELLS = {"sd15": 64, "sdxl": 128}  # 512x512 and 1024x1024, the sizes they were trained at


@dataclass(frozen=True)
class Model:
    """One topology, "sd15" or "sdxl", at full width or narrow; its files lie in `folder`."""

    name: str
    narrow: bool
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return _CONFIGS[self.name, self.narrow]

    @property
    def cells(self) -> int:
        """Height and width of the latents."""
        return 16 if self.narrow else _CELLS[self.name]

    @property
    def batches(self) -> tuple[int, ...]:
        return NARROW_BATCHES if self.narrow else BATCHES

    @property
    def context(self) -> int:
        return int(self.config["cross_attention_dim"])

    @property
    def pooled(self) -> int:
        """Width of SDXL's pooled text; 0 for SD1.5."""
        added = self.config.get("projection_class_embeddings_input_dim", 0)
        return int(added - TIME_IDS * self.config.get("addition_time_embed_dim", 0))

    @property
    def graph(self) -> Path:
        return self.folder / "unet.onnx"

    @property
    def step_graph(self) -> Path:
        return self.folder / "unet_step.onnx"

    def fused(self, graph: Path) -> Path:
        """The graph with ONNX Runtime's own attention where it was written, else the graph itself."""
        beside = graph.with_suffix(".ort.onnx")
        return beside if beside.is_file() else graph

    def save_weights(self) -> dict[str, Any]:
        """Draw the weights and save them in half precision. Gives their number."""
        import torch
        from diffusers import UNet2DConditionModel

        torch.manual_seed(0)
        unet = UNet2DConditionModel(sample_size=self.cells, **self.config)
        unet.half().save_pretrained(self.folder / "weights")
        return {"parameters": sum(weight.numel() for weight in unet.parameters())}

    def load(self, dtype: torch.dtype, device: str) -> Any:
        """diffusers' UNet with the saved weights."""
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_pretrained(self.folder / "weights", torch_dtype=dtype)
        return unet.eval().to(device)

    def flops(self, rows: int) -> float:
        """Floating-point operations of one forward of `rows` latents, as torch counts them; runs nothing."""
        import torch
        from diffusers import UNet2DConditionModel
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            unet = UNet2DConditionModel(sample_size=self.cells, **self.config)
            call(unet, {name: torch.empty(shape) for name, shape in self.shapes(rows).items()})
        return float(counter.get_total_flops())

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """Of the UNet's inputs, for `rows` latents (halves times pictures)."""
        shapes: dict[str, tuple[int, ...]] = {
            "sample": (rows, 4, self.cells, self.cells),
            "timestep": (rows,),
            "encoder_hidden_states": (rows, CONTEXT_TOKENS, self.context),
        }
        if self.pooled:
            shapes |= {"text_embeds": (rows, self.pooled), "time_ids": (rows, TIME_IDS)}
        return shapes

    def step_shapes(self, pictures: int) -> dict[str, tuple[int, ...]]:
        """Of the step graph's inputs with two halves."""
        latents = (pictures, 4, self.cells, self.cells)
        own = {name: shape for name, shape in self.shapes(2 * pictures).items() if name != "sample"}
        halves = (2, pictures, 1, 1, 1)
        return {
            "state": (4, *latents),
            "input_scale": halves,
            "guidance": halves,
            "mix": (4, 6, 1, 1, 1, 1),
            "noise": latents,
            **own,
        }

    def conditions(self, seed: int = 0) -> dict[str, NDArray[np.float32]]:
        """Random text for both halves, the unconditional one first: (2, ...) of every input but two."""
        draw = np.random.default_rng(seed)
        shapes = {name: shape for name, shape in self.shapes(2).items() if name not in {"sample", "timestep"}}
        made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        if self.pooled:
            side = 8.0 * self.cells
            made["time_ids"] = np.tile(np.array([side, side, 0, 0, side, side], np.float32), (2, 1))
        return made


def call(unet: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """One forward of diffusers' UNet on the inputs that a pack's graph has."""
    import torch

    added = {name: inputs[name] for name in ("text_embeds", "time_ids") if name in inputs}
    (predicted,) = unet(
        *(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]),
        added_cond_kwargs=added or None,
        return_dict=False,
    )
    return torch.as_tensor(predicted)


def export(model: Model) -> dict[str, Any]:
    """The UNet's graph in half precision, its step graph, and both with ONNX Runtime's attention."""
    import torch

    from faceavatar_export.diffusion.modules import SdUNet
    from faceavatar_export.fuse import write_fused
    from faceavatar_export.graphs import export_graph
    from faceavatar_export.step_graph import write_step_graph

    module = SdUNet(model.load(torch.float16, "cpu"), None, torch.float16)
    odd = {name: (2, 4, 13, 11) if name == "sample" else shape for name, shape in model.shapes(2).items()}
    example = {name: torch.randn(shape) for name, shape in odd.items()}
    batch, latents = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    axes = {name: latents if name == "sample" else batch for name in example}
    axes["encoder_hidden_states"] = {0: "batch", 1: "tokens"}
    export_graph(
        *(module, example, ["noise_pred"], axes, model.graph, {"noise_pred": latents}), external_data=True
    )
    write_step_graph(model.graph, model.step_graph)
    fused = [path.name for path in map(write_fused, (model.graph, model.step_graph)) if path is not None]
    size = sum(path.stat().st_size for path in model.folder.glob("unet.onnx*"))
    return {"bytes": size, "fused": fused}


def relative_error(ours: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Root mean square of the difference, over that of what was wanted."""
    difference = np.square(ours.astype(np.float64) - wanted).mean()
    return math.sqrt(difference / np.square(wanted.astype(np.float64)).mean())
