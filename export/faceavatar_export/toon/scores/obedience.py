"""Are prompts obeyed? Held-out people, held-out wordings, and an attribute counts where a caption names it.

Half of the prompts come with the picture of the very person they describe, half with another's: what a prompt
names outweighs the picture. Knows no photo.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.errors import NoFaceFound
from faceavatar_export.toon import captions, colors, draw, styles
from faceavatar_export.toon.attributes import names_of, unseen
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.scores.judge import Judge, Picture, background_of, color_distance

SEED = 700_001  # of the people and scenes; training sets have others
BACKGROUND_DELTA = 12.0
# What captions name -> what the judge calls it. Colours between two names may rightly be called either.
JUDGED = {
    "style": "style", "expression": "expression", "garment": "garment", "garment_color": "garment_color",
    "headwear": "headwear", "headwear_color": "headwear_color", "background": "background",
    "pattern": "pattern", "framing": "framing", "female": "female", "old": "old", "hair": "hair_length",
    "curly": "curly", "hair_color": "hair_color", "beard": "beard", "glasses": "glasses",
}  # fmt: skip
PERSON = {
    "female": ("female",), "old": ("old",), "hair": ("hair_length",), "curly": ("curly", "bun"),
    "hair_color": ("hair_color",), "beard": ("beard",), "glasses": ("glasses",),
}  # fmt: skip
NAMES = {
    "garment_color": colors.CLOTH_COLORS,
    "headwear_color": colors.CLOTH_COLORS,
    "background": colors.BACKGROUND_COLORS,
    "hair_color": colors.HAIR_COLORS,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """A prompt, the picture that goes with it, and what should come: the person merged of both."""

    prompt: str
    reference: Picture
    person: Identity
    scene: Scene
    named: frozenset[str]


def portrait(person: Identity, style: str = "vector") -> Picture:
    """A plain drawn reference, uint8 (512, 512, 3)."""
    scene = Scene(
        style, "smile", "t-shirt", "#8c8f94", "none", "#000000", "#a9d6f5", "#a9d6f5", "plain", "bust", 0
    )
    return styles.composite(styles.draw_rgba(person, scene, 512), styles.background(scene, 512))


def wishes(engine: AvatarEngine, count: int, seed: int = SEED) -> Iterator[Wish]:
    """Prompts with references in which the engine finds a face; where it finds none, the next person."""
    rng, made, index = np.random.default_rng(seed), 0, 0
    while made < count:
        index += 1
        person, scene = draw.sample(seed, index)
        shown = person if index % 2 else draw.sample(seed + 1, index)[0]
        caption = captions.sample(person, scene, rng, held_out=True)
        reference = portrait(shown)
        try:
            engine.look(reference)
        except NoFaceFound:
            continue
        named = {field: getattr(person, field) for key in caption.named for field in PERSON.get(key, ())}
        made += 1
        yield Wish(caption.text, reference, replace(shown, **named), scene, caption.named)


def right(key: str, wish: Wish, seen: dict[str, str], picture: Picture) -> bool:
    """Whether what a wish names under `key` is seen; a plain background counts by its measured colour."""
    expected = names_of(wish.person, wish.scene)
    if key == "background" and wish.scene.pattern == "plain":
        name = colors.nearest_name(wish.scene.background, colors.BACKGROUND_COLORS)
        return color_distance(background_of(picture), colors.BACKGROUND_COLORS[name]) < BACKGROUND_DELTA
    judged = JUDGED[key]
    return seen[judged] == expected[judged]


@dataclass(frozen=True, slots=True)
class Obedience:
    """attribute -> (obeyed, named, right in drawings of the same scenes); and what was made."""

    counts: dict[str, tuple[int, int, int]]
    pictures: list[Picture]
    prompts: list[str]

    @property
    def share(self) -> float:
        """Of all that was named."""
        return sum(c[0] for c in self.counts.values()) / max(1, sum(c[1] for c in self.counts.values()))

    @property
    def ceiling(self) -> float:
        """The same share of the drawings themselves: more than this the judge cannot see."""
        return sum(c[2] for c in self.counts.values()) / max(1, sum(c[1] for c in self.counts.values()))

    def shares(self) -> dict[str, float]:
        """attribute -> share obeyed."""
        return {key: obeyed / named for key, (obeyed, named, _) in self.counts.items() if named}


def obedience(
    engine: AvatarEngine,
    judge: Judge,
    count: int,
    seed: int = SEED,
    steps: int | None = None,
    guidance: float | None = None,
) -> Obedience:
    """One picture a prompt; steps and guidance are the pack's own where they are None."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    pictures, prompts = [], []
    for index, wish in enumerate(wishes(engine, count, seed)):
        request = AvatarRequest(
            image=wish.reference,
            prompt=wish.prompt,
            seed=index,
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
        picture = engine.generate(request).images[0]
        drawing = styles.composite(
            styles.draw_rgba(wish.person, wish.scene, 512), styles.background(wish.scene, 512)
        )
        (seen, truth), _ = judge.look([picture, drawing])
        for key in sorted(wish.named):
            if JUDGED[key] not in unseen(wish.person, wish.scene):
                row = counts[key]
                row[0] += right(key, wish, seen, picture)
                row[1] += 1
                row[2] += right(key, wish, truth, drawing)
        pictures.append(picture)
        prompts.append(wish.prompt)
    return Obedience({key: (a, b, c) for key, (a, b, c) in sorted(counts.items())}, pictures, prompts)
