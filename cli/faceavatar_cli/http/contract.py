"""What goes over the wire: the request and the eight fields of every answer, as pydantic models.

Knows names, ranges and words. Knows nothing of HTTP, queues or engines; AvatarRequest remains the judge of
what the engine takes, and a test holds the ranges here to those there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from faceavatar.request import AvatarRequest, Gender, SchedulerName
from faceavatar.sources import shown, source_kind

Status = Literal["queued", "running", "completed", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})

URL_PATTERN = "^[hH][tT][tT][pP][sS]?://"
IMAGE_PATTERN = "^([hH][tT][tT][pP][sS]?://|[dD][aA][tT][aA]:)"
COLOR_PATTERN = "^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"
LONGEST_URL = 4096
LONGEST_PROMPT = 4000
LONGEST_NAME = 128

EXAMPLE_REQUEST: dict[str, JsonValue] = {
    "app_id": "toon",
    "image": "https://example.com/selfie.jpg",
    "prompt": None,
    "negative_prompt": "glasses",
    "batch": 2,
    "height": 512,
    "width": 512,
    "num_inference_steps": 4,
    "guidance_scale": 4.0,
    "gender": "woman",
    "remove_background": False,
    "bg_color": "#88CCFF",
    "celery": False,
}
EXAMPLE_ANSWER: dict[str, JsonValue] = {
    "time_required": 0.46,
    "error": None,
    "error_data": None,
    "input": EXAMPLE_REQUEST,
    "output": ["https://example.org/outputs/Jv3kUGZ0n1Q5b2m8c7x4w6y9A0sDfGhK.png"],
    "app_id": "toon",
    "task_id": "5f0c7f8e4b5d4f0f9a6f1a2b3c4d5e6f",
    "status": "completed",
}


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ImageToImage(BaseModel):
    """A request for avatars: the contract's fields, and those that the engine knows beside them.

    `image` is an http(s) URL or a data URI, never a path; an uploaded file has become a data URI here.
    `refID` is kept with the task, and `/getImage` checks it where it is given. `webhook` is told
    when the task has ended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE_REQUEST]})

    image: str = Field(
        pattern=IMAGE_PATTERN,
        repr=False,
        description="The reference face: an http(s) URL or a data URI. Larger than 1536x1536 shrinks to fit.",
    )
    app_id: str | None = Field(
        default=None, max_length=LONGEST_NAME, description="The pack; null: the server's first."
    )
    prompt: str | None = Field(
        default=None,
        max_length=LONGEST_PROMPT,
        description="Replaces the whole default prompt; null: the default one, with the gender's word in it.",
    )
    negative_prompt: str | None = Field(default=None, max_length=LONGEST_PROMPT, description="What to avoid.")
    batch: int = Field(default=1, ge=1, le=8, description="How many avatars; number i takes seed + i.")
    height: int = Field(default=512, ge=256, le=1536, description="Pixels.")
    width: int = Field(default=512, ge=256, le=1536, description="Pixels.")
    num_inference_steps: int | None = Field(default=None, ge=1, le=50, description="Null: the pack's own.")
    guidance_scale: float | None = Field(
        default=None, ge=1, le=30, allow_inf_nan=False, description="Null: the pack's own."
    )
    gender: Gender | None = Field(default=None, description="Used with the default prompt only.")
    remove_background: bool = Field(default=False, description="A transparent background.")
    bg_color: str | None = Field(
        default=None, pattern=COLOR_PATTERN, description="A plain background; wins over remove_background."
    )
    celery: bool = Field(default=False, description="Queue the task and answer with its task_id at once.")
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1, description="Null: drawn, and told in input.")
    scheduler: SchedulerName | None = Field(default=None, description="Null: the pack's own.")
    face_scale: float | None = Field(
        default=None, ge=0, le=1.5, allow_inf_nan=False, description="How much of the face's looks to keep."
    )
    controlnet_scale: float | None = Field(
        default=None, ge=0, le=1.5, allow_inf_nan=False, description="How firmly InstantID holds the pose."
    )
    preview_every: int = Field(
        default=0, ge=0, le=50, description="A preview in the task's events after so many steps; 0: none."
    )
    face_index: int | None = Field(
        default=None, ge=0, le=999, description="Which face by size; null: largest."
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="Begin with the photo, changed this much."
    )
    guidance_interval: tuple[Share, Share] | None = Field(
        default=None, description="Shares of the schedule between which guidance acts; null: everywhere."
    )
    step_cache: int = Field(
        default=1, ge=1, le=10, description="The whole net at every n-th step only; 1: at all of them."
    )
    best_of: int = Field(
        default=1, ge=1, le=8, description="Candidates for each avatar; the one that resembles most is kept."
    )
    refID: str | None = Field(
        default=None, max_length=LONGEST_NAME, description="Your own name for the task."
    )
    webhook: str | None = Field(
        default=None,
        pattern=URL_PATTERN,
        max_length=LONGEST_URL,
        description="Where the finished task's answer is posted to, signed.",
    )

    @field_validator(
        "batch",
        "height",
        "width",
        "num_inference_steps",
        "seed",
        "preview_every",
        "face_index",
        "best_of",
        "step_cache",
        mode="before",
    )
    @classmethod
    def _whole(cls, value: object) -> object:
        """JSON knows one kind of number: 2.0 is as whole as 2."""
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @property
    def drawn(self) -> int:
        """How many pictures it has drawn, with the candidates that are not kept."""
        return self.batch * self.best_of

    def to_avatar_request(self, image: bytes | str | None = None) -> AvatarRequest:
        """What the engine is asked for; `image` replaces the URL or data URI by what it led to.

        Raises InvalidRequest.
        """
        fields = self.model_dump(exclude={"image", "refID", "webhook"})
        return AvatarRequest(image=self.image if image is None else image, **fields)

    def echo(self) -> dict[str, Any]:
        """The request as the answer's `input`: without picture bytes, credentials and queries of URLs."""
        fields = self.model_dump(mode="json", exclude_unset=True)
        fields["image"] = shown_source(self.image)
        if self.webhook is not None:
            fields["webhook"] = shown(self.webhook)
        return fields


def shown_source(image: str) -> str:
    """An image as it may be repeated: a URL without its query, a data URI as its type and length."""
    if source_kind(image) != "data":
        return shown(image)
    header, _, body = image.partition(",")
    kind = header[len("data:") :].partition(";")[0][:40] or "text/plain"
    return f"data:{kind} ({len(body)} characters)"


class GetImage(BaseModel):
    """Asks for a task: its id, and the refID that it was given, which must then be the same."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"id": EXAMPLE_ANSWER["task_id"]}]}
    )

    id: str = Field(min_length=1, max_length=LONGEST_NAME, description="The task_id of an earlier answer.")
    refID: str | None = Field(default=None, max_length=LONGEST_NAME)


class Answer(BaseModel):
    """The eight fields, always all of them.

    `error` is a stable code and `error_data` says more: `message` in words, and for a field out of its range
    `field`, `got` and `allowed`. `time_required` counts seconds from the request's arrival to the task's
    end, or so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE_ANSWER]})

    time_required: float = Field(ge=0, description="Seconds from arrival to the end, or so far.")
    error: str | None = Field(description="A stable code, or null.")
    error_data: dict[str, Any] | None = Field(
        description="The detail: `message`, and what belongs to the code."
    )
    input: dict[str, Any] | None = Field(description="The request, without secrets and picture bytes.")
    output: list[str] = Field(description="URLs of the pictures, or data URIs; empty until completed.")
    app_id: str | None = Field(description="The pack that was asked for.")
    task_id: str | None = Field(description="For /getImage and /tasks; null where no task was made.")
    status: Status


class TaskAnswer(Answer):
    """The eight fields and how far the task is."""

    refID: str | None
    step: int = Field(ge=0, description="Steps done.")
    total: int = Field(ge=0, description="Steps in all; 0 until it runs.")
    warnings: list[str] = Field(description="What the engine did otherwise than one may expect.")
    queue_position: int | None = Field(
        description="How many run before it, 0 for the next; null: not waiting."
    )


class TaskNews(TaskAnswer):
    """What an event of `/tasks/{id}/events` tells."""

    preview: list[str] = Field(description="Data URIs of the pictures so far, where they were asked for.")
