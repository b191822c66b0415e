"""AvatarRequest: what somebody asks for, checked before any model runs.

pydantic is imported here and its errors stay here: whoever builds a request sees InvalidRequest. This room
knows the ranges and the default prompt; it does not know packs, so a pack's defaults are still None in it.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from faceavatar.errors import InvalidRequest
from faceavatar.image import ImageSource
from faceavatar.sources import source_kind

DEFAULT_PROMPT = (
    "SFW Content, black plain background, joyous dating profile, VECTOR CARTOON ILLUSTRATION, "
    "half-body shot portrait enjoyable pleasing pleasurable nice {gender_word}, looking at camera, "
    "Relaxed, Charming, Cordial, Gracious, 5 o clock shadow, 3d bitmoji avatar render, pixar, "
    "high def textures 8k, highly detailed, 3d render, award winning, no background elements"
)
SchedulerName = Literal["ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm"]
Gender = Literal["man", "woman", "male", "female", "person", "neutral"]

_GENDER_WORDS = {"male": "man", "female": "woman", "neutral": "person", None: "person"}
_COLOR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_IMAGE_WORDS = (
    "the path of an existing file, an http(s) URL, a data URI, encoded bytes, a PIL image "
    "or a uint8 (H, W, 3) RGB array"
)
_WORDS = {
    "image": _IMAGE_WORDS,
    "prompt": "text, or None for the default prompt",
    "gender": "man, woman, male, female, person, neutral or None",
    "bg_color": '"#RRGGBB", "#RGB" or None',
    "scheduler": f"{', '.join(get_args(SchedulerName))} or None",
    "app_id": "text or None",
    "negative_prompt": "text, or None for none",
    "guidance_interval": "two numbers of 0..1, the smaller first, or None for the whole schedule",
    "strength": "a number above 0, up to 1, or None for pure noise",
}
_HASHED = "sha256:"


def _check_image(value: object) -> object:
    if isinstance(value, str):
        return _check_text_source(value)
    if isinstance(value, Path):
        return _check_file(value, str(value))
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size:
            return value
        raise InvalidRequest("image", f"{value.dtype} array {value.shape}", _IMAGE_WORDS)
    if isinstance(value, bytes) and value:
        return value
    from PIL.Image import Image

    if isinstance(value, Image):
        return value
    raise InvalidRequest("image", value, _IMAGE_WORDS)


def _check_text_source(value: str) -> str:
    kind = source_kind(value)
    if kind == "path":
        _check_file(Path(value), value)
    elif kind == "other" or (kind == "data" and "," not in value):
        raise InvalidRequest("image", value, _IMAGE_WORDS)
    return value


def _check_file(path: Path, got: str) -> Path:
    try:
        if path.expanduser().is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long a name, an unknown ~user, a NUL in it
        pass
    raise InvalidRequest("image", got, f"{_IMAGE_WORDS}; there is no such file")


def check_color(value: str | None) -> str | None:
    """ "#RRGGBB" or "#RGB" as "#rrggbb"; None stays None. Raises InvalidRequest (bg_color)."""
    if value is None:
        return None
    if not isinstance(value, str) or not _COLOR.fullmatch(value):
        raise InvalidRequest("bg_color", value, _WORDS["bg_color"])
    digits = value[1:].lower()
    return "#" + (digits if len(digits) == 6 else "".join(2 * digit for digit in digits))


class AvatarRequest(BaseModel):
    """One request; frozen, and valid once it exists. Raises InvalidRequest naming the first bad field.

    `image` is the face: encoded bytes, a path, an http(s) URL, a data URI, a PIL image, or a uint8 (H, W,
    3) RGB array. `prompt` None means DEFAULT_PROMPT with the gender's word in it; a prompt of one's own
    replaces it whole and `gender` is then not used. Image i of the batch takes seed + i; a seed of None is
    drawn and reported. `num_inference_steps`, `guidance_scale`, `scheduler` and `face_scale` are the pack's
    own where None, and so is `controlnet_scale`, which packs without a ControlNet refuse. A
    `negative_prompt` of None is what the pack takes for none; SDXL tells it from "". `remove_background`
    gives RGBA, `bg_color` a plain background. `preview_every` n shows a preview in the stream after every n
    steps, 0 none. `face_index` picks a face by size, 0 the largest; None also takes the largest. `image`
    may also be an identity file (path, URL or bytes) in place of a photo. `similarity` measures how much
    each picture resembles the face; `best_of` n draws n candidates for each picture and keeps the one that
    resembles most: picture i has the seeds seed + i n and the n - 1 after it. `guidance_interval` (from, to)
    are the shares of the schedule between which guidance acts: outside, the net runs its wanted half alone.
    `step_cache` n runs the whole net at every n-th step only, and its outermost layers at the others.
    `app_id` (the pack) and `celery` (queue it) are for servers; the engine does not read them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    image: Annotated[ImageSource, PlainValidator(_check_image), WithJsonSchema({"type": "string"})] = Field(
        repr=False
    )
    app_id: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    batch: int = Field(default=1, ge=1, le=8)
    height: int = Field(default=512, ge=256, le=1536)
    width: int = Field(default=512, ge=256, le=1536)
    num_inference_steps: int | None = Field(default=None, ge=1, le=50)
    guidance_scale: float | None = Field(default=None, ge=1, le=30, allow_inf_nan=False)
    gender: Gender | None = None
    remove_background: bool = False
    bg_color: str | None = None
    celery: bool = False
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    scheduler: SchedulerName | None = None
    face_scale: float | None = Field(default=None, ge=0, le=1.5, allow_inf_nan=False)
    controlnet_scale: float | None = Field(default=None, ge=0, le=1.5, allow_inf_nan=False)
    preview_every: int = Field(default=0, ge=0, le=50)
    face_index: int | None = Field(default=None, ge=0, le=999)
    best_of: int = Field(default=1, ge=1, le=8)
    similarity: bool = False
    strength: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    guidance_interval: tuple[float, float] | None = None
    step_cache: int = Field(default=1, ge=1, le=10)

    @model_validator(mode="wrap")
    @classmethod
    def _speak_plainly(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = str(problem["loc"][0]) if problem["loc"] else "request"
            got = "nothing" if problem["type"] == "missing" else problem["input"]
            raise InvalidRequest(name, got, _allowed(name)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _plain_numbers(cls, value: object) -> object:
        """numpy's numbers become Python's; a bool stays a bool, which strict mode refuses as a number."""
        if isinstance(value, np.generic) and isinstance(value, numbers.Number):
            return value.item()
        return value

    @field_validator("bg_color")
    @classmethod
    def _six_digits(cls, value: str | None) -> str | None:
        return check_color(value)

    @field_validator("guidance_interval", mode="before")
    @classmethod
    def _pair(cls, value: object) -> object:
        """JSON, and with it a PNG's metadata, has lists where Python has tuples."""
        return tuple(value) if isinstance(value, list) else value

    @field_validator("guidance_interval")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:  # NaN is in no order
            raise InvalidRequest("guidance_interval", value, _WORDS["guidance_interval"])
        return value

    @property
    def gender_word(self) -> str:
        """The word in the default prompt: man, woman or person."""
        return _GENDER_WORDS.get(self.gender, self.gender or "person")

    def text(self) -> str:
        """The whole prompt as the text encoder gets it."""
        return DEFAULT_PROMPT.format(gender_word=self.gender_word) if self.prompt is None else self.prompt

    def to_metadata(self) -> dict[str, Any]:
        """A JSON-able dict; the image as its path or URL, or "sha256:..." where it was handed in as data."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        return fields | {"image": _name_of(self.image)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], image: ImageSource | None = None) -> AvatarRequest:
        """The request that `to_metadata` described; `image` replaces the recorded one.

        Raises InvalidRequest when only a hash of the picture was recorded and none is handed in.
        """
        fields = dict(metadata)
        if image is not None:
            fields["image"] = image
        elif str(fields.get("image", "")).startswith(_HASHED):
            raise InvalidRequest("image", fields["image"], "the picture itself: only its hash was recorded")
        return cls(**fields)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, checked like a new request, which pydantic's own is not."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**fields | dict(update or {}))

    if not TYPE_CHECKING:  # for a type checker the fields are read-only already

        def __setattr__(self, name: str, value: object) -> None:
            raise InvalidRequest(name, value, "no change: a request is frozen, use model_copy(update={...})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AvatarRequest):
            return NotImplemented
        return self.to_metadata() == other.to_metadata()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_metadata(), sort_keys=True))


def _allowed(name: str) -> str:
    """Words for what a field takes: from the table above, or from the field's own bounds."""
    if name in _WORDS:
        return _WORDS[name]
    field = AvatarRequest.model_fields.get(name)
    if field is None:
        return f"these fields only: {', '.join(AvatarRequest.model_fields)}"
    low, high = (
        next((getattr(m, side) for m in field.metadata if hasattr(m, side)), None) for side in ("ge", "le")
    )
    if low is None:
        return "true or false"
    kind = "a number" if "float" in str(field.annotation) else "a whole number"
    return f"{kind} {low}..{high}" + ("" if field.default is not None else " or None")


def _name_of(image: ImageSource) -> str:
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, str) and source_kind(image) != "data":
        return image
    if isinstance(image, str):
        data = image.encode()
    elif isinstance(image, bytes):
        data = image
    elif isinstance(image, np.ndarray):
        data = str(image.shape).encode() + image.tobytes()
    else:
        data = f"{image.mode}{image.size}".encode() + image.tobytes()
    return _HASHED + hashlib.sha256(data).hexdigest()
