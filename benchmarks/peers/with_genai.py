"""OpenVINO GenAI's Text2ImagePipeline on the pack's own graphs, the face in the UNet as constants."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from child import GUIDANCE, NEGATIVE, latents_of, prompt_of

# Ours -> the folder that it looks in.
PARTS = {"text_encoder": "text_encoder", "unet": "unet", "vae_decoder": "vae_decoder"}


@dataclass
class Drawn:
    step_ends: list[float]
    decode_seconds: float | None
    picture: Any


class Given(openvino_genai.Generator):  # type: ignore[misc]  # untyped, in a venv of its own
    """A generator that hands out noise which was drawn elsewhere."""

    def __init__(self, noise: Any) -> None:
        super().__init__()
        self._numbers = iter(noise.ravel().tolist())
        self._noise = noise

    def next(self) -> float:
        return float(next(self._numbers))

    def randn_tensor(self, shape: Any) -> Any:
        return openvino.Tensor(np.ascontiguousarray(self._noise.reshape(tuple(shape))))


def prepare(spec: dict[str, Any]) -> None:
    """Converts the graphs to IR, weights in float32, and the tokenizer."""
    folder, source = Path(spec["folder"]), Path(spec["checkpoint"])
    if (folder / "model_index.json").is_file():
        return
    core, values = openvino.Core(), np.load(spec["inputs"])
    for role, part in PARTS.items():
        model = core.read_model(str(Path(spec["pack"]) / f"{role}.onnx"))
        if role == "unet":
            _fix(model, {"face_tokens": values["face_tokens"], "face_scale": np.ones(1, np.float32)})
            # It hands in whole timesteps and takes no other type; the graph casts them itself.
            types = openvino.preprocess.PrePostProcessor(model)
            types.input("timestep").tensor().set_element_type(openvino.Type.i64)
            model = types.build()
        openvino.save_model(model, str(folder / part / "openvino_model.xml"), compress_to_fp16=False)
        config = source / ("vae" if part == "vae_decoder" else part) / "config.json"
        shutil.copy(config, folder / part / "config.json")
    from openvino_tokenizers import convert_tokenizer
    from transformers import CLIPTokenizer

    tokenizer = convert_tokenizer(CLIPTokenizer.from_pretrained(source / "tokenizer"), with_detokenizer=False)
    openvino.save_model(tokenizer, str(folder / "tokenizer" / "openvino_tokenizer.xml"))
    shutil.copytree(source / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    shutil.copy(source / "model_index.json", folder / "model_index.json")


def load(spec: dict[str, Any]) -> Callable[[int, int, int, bool], Drawn]:
    """The folder on the processor at a precision, its graphs fixed to the size: quicker than left open."""
    pipeline = openvino_genai.Text2ImagePipeline(spec["folder"])
    pipeline.reshape(1, spec["size"], spec["size"], GUIDANCE)
    pipeline.compile("CPU", INFERENCE_PRECISION_HINT=spec["options"]["precision"])

    def draw(number: int, steps: int, size: int, decode: bool) -> Drawn:
        ends: list[float] = []

        def tick(step: int, count: int, latents: Any) -> bool:
            ends.append(time.perf_counter())
            return not decode and step == count - 1  # stops it before it decodes

        tensor = pipeline.generate(
            prompt_of(number),
            negative_prompt=NEGATIVE,
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=Given(latents_of(spec, number, size)),
            callback=tick,
        )
        decoding = time.perf_counter() - ends[-1]
        return Drawn(ends, decoding, tensor.data[0].copy()) if decode else Drawn(ends, None, None)

    return draw


def _fix(model: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        parameter = model.input(name).get_node()
        constant = openvino.opset13.constant(value)
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(constant.output(0))
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
