"""Where a manifest contradicts itself: a graph's stated shapes against what the other parts say of them.

Each graph is held to its stated shapes when it is opened; here the statements are held to each other, so that
a pack that cannot work is refused before anything is opened. Sides that vary agree with everything.
"""

from __future__ import annotations

from collections.abc import Iterator

from faceavatar.manifest import Manifest, Tensor

Side = int | str | None
Claim = tuple[str, Side]


def contradictions(manifest: Manifest) -> list[str]:
    """A line for each pair of statements that cannot both be true; none in a sound manifest."""
    pairs = [*_latents(manifest), *_text(manifest), *_face(manifest), *_matting(manifest)]
    return [
        f"{one} is {got}, but {other} is {want}"
        for (one, got), (other, want) in pairs
        if isinstance(got, int) and isinstance(want, int) and got != want
    ]


def _latents(manifest: Manifest) -> Iterator[tuple[Claim, Claim]]:
    channels: Claim = ("latents.channels", manifest.latents.channels)
    for role, side, name in (
        ("unet", "inputs", "sample"),
        ("unet", "outputs", "noise_pred"),
        ("vae_decoder", "inputs", "latents"),
        ("vae_encoder", "outputs", "latents"),
    ):
        yield _side(manifest, role, side, name, 1), channels
    for role, side in (("vae_decoder", "outputs"), ("vae_encoder", "inputs")):
        yield _side(manifest, role, side, "image", 1), ("the channels of a picture", 3)


def _text(manifest: Manifest) -> Iterator[tuple[Claim, Claim]]:
    encoders = [role for role in ("text_encoder", "text_encoder_2") if role in manifest.graphs]
    widths: list[Side] = []
    for encoder in encoders:
        length: Claim = ("text.max_length", manifest.text.max_length)
        yield _side(manifest, encoder, "inputs", "input_ids", 1), length
        yield _side(manifest, encoder, "outputs", "last_hidden_state", 1), length
        widths.append(_side(manifest, encoder, "outputs", "last_hidden_state", 2)[1])
    whole = sum(width for width in widths if isinstance(width, int))
    both: Claim = (
        f"last_hidden_state of {' and '.join(encoders)}",
        whole if all(isinstance(width, int) for width in widths) else None,
    )
    pooled = _side(manifest, "text_encoder_2", "outputs", "text_embeds", 1)
    for role in ("unet", "unet_step"):
        yield _side(manifest, role, "inputs", "encoder_hidden_states", 2), both
        yield _side(manifest, role, "inputs", "text_embeds", 1), pooled


def _face(manifest: Manifest) -> Iterator[tuple[Claim, Claim]]:
    face = manifest.face
    if face is None:
        return
    size: Claim = ("face.adapter.embedding_size", face.adapter.embedding_size)
    tokens: Claim = ("face.adapter.tokens", face.adapter.tokens)
    yield _side(manifest, "face_projection", "inputs", "face_embeds", 1), size
    yield _side(manifest, "face_encoder", "outputs", "face_embeds", 1), size
    yield _side(manifest, "face_projection", "outputs", "face_tokens", 1), tokens
    for role in ("unet", "unet_step"):
        yield _side(manifest, role, "inputs", "face_tokens", 1), tokens
        width = _side(manifest, "face_projection", "outputs", "face_tokens", 2)
        yield _side(manifest, role, "inputs", "face_tokens", 2), width
    if face.alignment is not None:
        yield from _square(
            manifest, "face_encoder", "aligned_face", "face.alignment.size", face.alignment.size
        )
    if face.image_encoder is not None:
        size_of_it = face.image_encoder.size
        yield from _square(manifest, "image_encoder", "pixel_values", "face.image_encoder.size", size_of_it)
        for axis in (1, 2):
            given = _side(manifest, "image_encoder", "outputs", "image_embeds", axis)
            yield _side(manifest, "face_projection", "inputs", "image_embeds", axis), given


def _square(manifest: Manifest, role: str, name: str, word: str, size: int) -> Iterator[tuple[Claim, Claim]]:
    yield _side(manifest, role, "inputs", name, 1), ("the channels of a picture", 3)
    for axis in (2, 3):
        yield _side(manifest, role, "inputs", name, axis), (word, size)


def _matting(manifest: Manifest) -> Iterator[tuple[Claim, Claim]]:
    settings = manifest.matting
    if settings is None:
        return
    for axis, size in zip((2, 3), settings.size, strict=True):
        yield _side(manifest, "matting", "inputs", settings.image, axis), ("matting.size", size)
        if settings.foreground is not None:
            yield _side(manifest, "matting", "outputs", settings.foreground, axis), ("matting.size", size)
    if settings.foreground is not None:
        yield _side(manifest, "matting", "outputs", settings.foreground, 1), ("the channels of a picture", 3)


def _side(manifest: Manifest, role: str, side: str, name: str, axis: int) -> Claim:
    """One side of a graph's stated tensor; None where there is no such graph, tensor or side."""
    words = f"side {axis} of {role}.{side}.{name}"
    graph = manifest.graphs.get(role)
    if graph is None:
        return words, None
    tensor: Tensor | None = (graph.inputs if side == "inputs" else graph.outputs).get(name)
    return words, tensor.shape[axis] if tensor is not None and axis < len(tensor.shape) else None
