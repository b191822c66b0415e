"""pack.json, schema version 1: its fields, their types, and the roles that a pack's graphs play.

Knows the words of the manifest; does not know the files it names. Shapes are lists of integers for fixed
sides and names ("batch", "height") for sides that vary. mean and std act on pixel values of 0..255.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from faceavatar.errors import MissingGraph, PackInvalid, SignatureMismatch
from faceavatar.request import SchedulerName
from faceavatar.strict_json import read_json

SCHEMA_VERSION = 1

# What the engine feeds a graph of each role, and what it takes from it.
ROLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text_encoder": (("input_ids",), ("last_hidden_state",)),
    "text_encoder_2": (("input_ids",), ("last_hidden_state", "text_embeds")),
    "face_encoder": (("aligned_face",), ("face_embeds",)),
    "image_encoder": (("pixel_values",), ("image_embeds",)),
    "face_projection": (("face_embeds",), ("face_tokens",)),
    "unet": (("sample", "timestep", "encoder_hidden_states"), ("noise_pred",)),
    # unet with guidance and the sampler's update around it, for loops that stay on a device.
    "unet_step": (
        ("state", "input_scale", "guidance", "mix", "noise", "timestep", "encoder_hidden_states"),
        ("new_state", "guided", "magnitude"),
    ),
    # unet's outermost layers, on what unet's deep ones said at an earlier step.
    "unet_shallow": (("sample", "timestep", "deep"), ("noise_pred",)),
    "vae_decoder": (("latents",), ("image",)),
    "vae_encoder": (("image",), ("latents",)),
    # vae_decoder in two: all up to twice the latents' size, and the rest for one tile of that.
    "vae_decoder_low": (("latents",), ("half",)),
    "vae_decoder_tile": (("half", "norms", "own", "core"), ("image", "own_norms")),
}  # and matting, whose input and output have the names that the part `matting` gives
# What some graphs of a role take besides: pairs come together or not at all.
_UNET_INPUTS = (
    frozenset({"face_tokens", "face_scale"}),
    frozenset({"text_embeds", "time_ids"}),
    frozenset({"timestep_cond"}),
    frozenset({"control_image", "controlnet_scale"}),
)
FURTHER_INPUTS: Mapping[str, tuple[frozenset[str], ...]] = {
    "unet": _UNET_INPUTS,
    "unet_step": _UNET_INPUTS,
    "unet_shallow": (frozenset({"encoder_hidden_states"}), *_UNET_INPUTS),
    "face_projection": (frozenset({"image_embeds"}),),
}
FURTHER_OUTPUTS: Mapping[str, tuple[frozenset[str], ...]] = {"unet": (frozenset({"deep"}),)}
FUSED_PROVIDERS = frozenset({"cpu", "cuda"})  # ONNX Runtime's own; the others compile the plain graph
REQUIRED_ROLES = frozenset({"text_encoder", "unet", "vae_decoder"})

_MOST_COMPLAINTS = 10
# No model comes near these; without them a manifest could ask for all the memory there is.
Sides = Annotated[int, Field(gt=0, le=2**16)]
DrawnSide = Annotated[int, Field(gt=0, le=2**13)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Three = tuple[float, float, float]


class Part(BaseModel):
    """Base of all parts: frozen, numbers not taken from strings, fields of later minor versions ignored.

    Validators are built when the first manifest is read, in one go for all its parts: at the import each part
    would get one of its own beside the whole's.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )


class File(Part):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    license: str
    attribution: str = ""


class Tensor(Part):
    dtype: str
    shape: tuple[int | str, ...]


class Graph(Part):
    """fused: the same graph with ONNX Runtime's own attention operator, sharing the weights' file.
    fp32: the file of the same graph in full precision, for what overflows in the graph's own.
    """

    file: str
    fused: str | None = None
    precision: str = "fp32"
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    fp32: str | None = None

    def file_for(self, provider: str) -> str:
        """The file that a provider runs best."""
        return self.fused if self.fused is not None and provider in FUSED_PROVIDERS else self.file


class Memory(Part):
    """What a pack takes with one provider, in bytes, as benchmarks/memory.py measures it.

    loaded: the whole process once all graphs are open that a plain request needs. stages: for each stage a
    base, bytes a cell, and bytes a cell squared; n pictures of c cells take base + n (a c + b c c). A cell is
    one of the latents' for unet, vae_decoder and vae_encoder, and else a pixel of the picture.
    """

    loaded: Annotated[int, Field(ge=0)]
    stages: dict[str, tuple[float, float, float]]


class DefaultStyle(Part):
    """What a prompt says of its style where it says nothing: a net of a few steps would draw a mean of all.

    words: a prompt with any of them, in any case, names a style. style: what is added to one without.
    """

    words: Annotated[tuple[str, ...], Field(min_length=1)]
    style: Annotated[str, Field(min_length=1)]


class Text(Part):
    """The tokenizer of text_encoder. text_encoder_2 reads the same tokens but for its padding.

    zeros_when_unset: a negative prompt of None is zeros in place of the empty text's states, as in SDXL.
    """

    tokenizer: str
    max_length: Annotated[int, Field(ge=3, le=2**13)] = 77
    bos_token_id: TokenId = 49406
    eos_token_id: TokenId = 49407
    pad_token_id: TokenId = 49407
    pad_token_id_2: TokenId = 0
    zeros_when_unset: bool = False
    default_style: DefaultStyle | None = None


class Latents(Part):
    channels: Sides
    downsample: Sides
    scaling_factor: float
    shift_factor: float = 0.0


class Sizes(Part):
    """native: (height, width) pairs the model draws; empty when it draws any multiple of `multiple_of`."""

    native: Annotated[tuple[tuple[DrawnSide, DrawnSide], ...], Field(strict=False)] = ()
    multiple_of: Sides = 8
    policy: Literal["extend", "cover"] = "cover"


class Detector(Part):
    """yunet runs by itself, scrfd with insightface's package."""

    kind: Literal["yunet", "scrfd"]
    file: str


class Alignment(Part):
    kind: Literal["arcface", "head"]
    size: Sides


class FaceEncoder(Part):
    mean: Three
    std: Three
    color: Literal["RGB", "BGR"] = "RGB"


class Recogniser(Part):
    """A recogniser of insightface's, run by its package from its own file in place of face_encoder."""

    kind: Literal["arcface"]
    file: str


class Adapter(Part):
    kind: Literal["faceid", "faceid_plus", "faceid_plus_v2", "faceid_portrait", "instantid"]
    tokens: Sides
    embedding_size: Sides
    normalize: bool


class ImageEncoder(Part):
    """What image_encoder sees: the face aligned at `align_size`, brought to `size`, as CLIP wants it."""

    align_size: Sides
    size: Sides
    mean: Three
    std: Three


class Face(Part):
    """Without detector, alignment and encoder the embedding has to be handed in by the caller."""

    detector: Detector | None = None
    alignment: Alignment | None = None
    encoder: FaceEncoder | Recogniser | None = None
    adapter: Adapter
    image_encoder: ImageEncoder | None = None

    @model_validator(mode="after")
    def _models_go_together(self) -> Self:
        if len({part is None for part in (self.detector, self.alignment, self.encoder)}) > 1:
            raise ValueError("detector, alignment and encoder go together")
        if isinstance(self.encoder, Recogniser) and self.alignment != Alignment(kind="arcface", size=112):
            raise ValueError("an arcface encoder wants the alignment arcface of size 112")
        return self

    @property
    def encoder_graph(self) -> FaceEncoder | None:
        """How the graph face_encoder is fed; None where there is none."""
        return self.encoder if isinstance(self.encoder, FaceEncoder) else None


class Matting(Part):
    """How a matting net is fed and read. `image` and `alpha` are the names of the graph's input and output.

    answer: what the output holds: "alpha" 0..1, "logits" of it, or "scores" that each picture stretches to
    0..1. spread: the picture's brightest value is made 255 before mean and std, as U2-Net was trained.
    refine: whether alpha is fitted to the picture's own edges: true for nets of few pixels, "near" for one
    that answers in full resolution and is off by a few pixels at most, "beyond" for one that knows of edges
    itself, where pictures are larger than it sees, false to take its answer as it is. foreground: the output
    with the figure's own colours, RGB in 0..1, where the net tells them too.
    """

    size: tuple[Sides, Sides]
    mean: Three
    std: Three
    image: str = "image"
    alpha: str = "alpha"
    answer: Literal["alpha", "logits", "scores"] = "alpha"
    spread: bool = False
    refine: bool | Literal["near", "beyond"] = True
    foreground: str | None = None


class Defaults(Part):
    num_inference_steps: Annotated[int, Field(ge=1, le=50)]
    guidance_scale: Annotated[float, Field(ge=1, le=30)]
    # The guidance that a distilled UNet has learnt: at this very scale the conditional half is enough.
    built_in_guidance: Annotated[float, Field(ge=1, le=30)] = 1.0
    scheduler: SchedulerName
    face_scale: Annotated[float, Field(ge=0, le=1.5)] = 1.0
    # None where the UNet has no ControlNet in it.
    controlnet_scale: Annotated[float, Field(ge=0, le=1.5)] | None = None


class Manifest(Part):
    """The whole of pack.json. `scheduler` holds the noise schedule's fields, read by the schedulers."""

    schema_version: int
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: str
    family: str
    description: str = ""
    files: dict[str, File]
    graphs: dict[str, Graph]
    text: Text
    scheduler: dict[str, Any]
    latents: Latents
    sizes: Sizes
    face: Face | None = None
    matting: Matting | None = None
    defaults: Defaults
    memory: dict[str, Memory] = {}

    @field_validator("files")
    @classmethod
    def _files_stay_inside(cls, files: dict[str, File]) -> dict[str, File]:
        for name in files:
            windows, posix = PureWindowsPath(name), PurePosixPath(name)
            if windows.is_absolute() or windows.drive or posix.is_absolute() or ".." in windows.parts:
                raise ValueError(f"the path {name!r} leaves the pack's folder")
        return files

    @property
    def runnable(self) -> list[str]:
        """The files that some runtime is handed as a graph."""
        graphs = self.graphs.values()
        named = [file for graph in graphs for file in (graph.file, graph.fused, graph.fp32)]
        if self.face is not None and self.face.detector is not None:
            named.append(self.face.detector.file)
        if self.face is not None and isinstance(self.face.encoder, Recogniser):
            named.append(self.face.encoder.file)
        return list(dict.fromkeys(file for file in named if file is not None))

    @model_validator(mode="after")
    def _named_files_are_listed(self) -> Self:
        for name in [*self.runnable, self.text.tokenizer]:
            if name not in self.files:
                raise ValueError(f"the file {name!r} is used but not listed under files")
        return self

    @model_validator(mode="after")
    def _graphs_have_their_parts(self) -> Self:
        face = self.face
        pairs = {
            "matting": (self.matting, "matting"),
            "face_projection": (face, "face"),
            "face_encoder": (face and face.encoder_graph, "face.encoder"),
            "image_encoder": (face and face.image_encoder, "face.image_encoder"),
        }
        for role, (part, name) in pairs.items():
            if role == "face_projection" and face is not None and role not in self.graphs:
                continue  # said by name when roles are checked
            if role == "face_encoder" and part is not None and role not in self.graphs:
                continue
            if (role in self.graphs) != (part is not None):
                raise ValueError(f"the graph {role} and the part {name} go together")
        return self

    @model_validator(mode="after")
    def _controlnet_has_its_parts(self) -> Self:
        unet = self.graphs.get("unet")
        takes = unet is not None and "control_image" in unet.inputs
        if takes != (self.defaults.controlnet_scale is not None):
            raise ValueError("the input control_image of unet and defaults.controlnet_scale go together")
        if takes and (self.face is None or self.sizes.native):
            raise ValueError("a unet with control_image wants the part face, and sizes without native ones")
        return self

    @model_validator(mode="after")
    def _shallow_takes_what_deep_gives(self) -> Self:
        unet, shallow = self.graphs.get("unet"), self.graphs.get("unet_shallow")
        if unet is None or shallow is None or "deep" not in shallow.inputs:
            return self
        if shallow.inputs["deep"] != unet.outputs.get("deep"):
            raise ValueError("the input deep of unet_shallow and an output of unet go together")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read and check a pack.json.

    Raises PackInvalid for one that cannot be read, is of another schema version or contradicts itself,
    MissingGraph when a role has no graph, SignatureMismatch when a graph's signature is not its role's.
    """
    try:
        text, content = read_json(path)
    except (OSError, ValueError) as error:
        raise PackInvalid(f"{path}: cannot be read as JSON: {error}; get the pack anew") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise PackInvalid(
            f"{path}: schema_version: got {version!r}, this version reads {SCHEMA_VERSION}; "
            "upgrade faceavatar, or export the pack with this version"
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise PackInvalid(f"{path}: {_complaints(error)}") from error
    _check_roles(manifest)
    _check_step_graph(manifest)
    _check_matting(manifest)
    return manifest


def _complaints(error: ValidationError) -> str:
    """Each on its place in the manifest, the first of them first, and how many are left out."""
    found = error.errors(include_url=False)
    said = []
    for problem in found[:_MOST_COMPLAINTS]:
        place = ".".join(str(part) for part in problem["loc"])
        said.append(f"{place + ': ' if place else ''}{problem['msg']}")
    left = len(found) - len(said)
    return "; ".join(said) + (f"; and {left} more" if left else "")


def _check_step_graph(manifest: Manifest) -> None:
    """It takes what the UNet takes, but for the latents."""
    step, unet = manifest.graphs.get("unet_step"), manifest.graphs["unet"]
    if step is None:
        return
    own = set(step.inputs) - set(ROLES["unet_step"][0])
    missing = set(unet.inputs) - set(ROLES["unet"][0]) - own
    further = own - set(unet.inputs)
    if missing or further:
        raise SignatureMismatch(
            f"{manifest.name}: unet_step: inputs are {', '.join(step.inputs)}, expected unet's, no sample "
            f"({', '.join(sorted(missing | further))} differ); "
            "write it again: python -m faceavatar_export.step_graph PACK"
        )


def _check_matting(manifest: Manifest) -> None:
    """Any net will do: its one input is the picture, alpha is one of its outputs."""
    graph, settings = manifest.graphs.get("matting"), manifest.matting
    if graph is None or settings is None:
        return
    if list(graph.inputs) != [settings.image]:
        raise SignatureMismatch(
            f"{manifest.name}: matting: inputs are {', '.join(graph.inputs)}, expected {settings.image}"
        )
    for wanted in (settings.alpha, settings.foreground):
        if wanted is not None and wanted not in graph.outputs:
            raise SignatureMismatch(
                f"{manifest.name}: matting: outputs are {', '.join(graph.outputs)}, expected {wanted}"
            )


def _check_roles(manifest: Manifest) -> None:
    for role, (inputs, outputs) in ROLES.items():
        graph = manifest.graphs.get(role)
        if graph is None:
            if role not in _needed_roles(manifest):
                continue
            raise MissingGraph(f"{manifest.name}: the manifest has no {role} graph; export the pack again")
        for side, wanted, stated in (("inputs", inputs, graph.inputs), ("outputs", outputs, graph.outputs)):
            further = set(stated) - set(wanted)
            sets = (FURTHER_INPUTS if side == "inputs" else FURTHER_OUTPUTS).get(role, ())
            known = further == set().union(*(group for group in sets if group <= further))
            expected = ", ".join(wanted) + "".join(f"[, {', '.join(sorted(group))}]" for group in sets)
            if not known or not set(wanted) <= set(stated):
                raise SignatureMismatch(
                    f"{manifest.name}: {role}: {side} are {', '.join(stated)}, expected {expected}"
                )


def _needed_roles(manifest: Manifest) -> set[str]:
    """The roles without which this pack cannot do what its manifest says."""
    needed = set(REQUIRED_ROLES)
    if manifest.face is not None:
        needed.add("face_projection")
        if manifest.face.encoder_graph is not None:
            needed.add("face_encoder")
    return needed
