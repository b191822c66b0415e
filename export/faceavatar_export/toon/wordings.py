"""The words that captions are made of: a table an attribute, and for scores a table of templates kept apart.

Training captions use all tables but those named HELD_OUT; scores use those, sentence shapes and phrases that
no training caption has, made of words that training captions have. Knows no picture.
"""

from __future__ import annotations

STYLE = {
    "vector": (
        "vector cartoon", "flat vector cartoon", "vector cartoon illustration", "flat vector avatar",
        "bitmoji avatar", "flat design illustration", "vector art", "cartoon avatar", "flat cartoon",
        "vector illustration", "flat illustration",
    ),
    "storybook": (
        "storybook", "storybook illustration", "pixar-like toon", "toon", "animated movie character",
        "children's book style", "disney style", "storybook toon", "pixar character", "pixar style",
    ),
    "ink": (
        "comic ink", "comic book", "ink drawing", "comic style", "hand-drawn ink", "comic",
        "black ink outlines", "comic ink drawing", "comic book ink",
    ),
    "pixel": (
        "pixel art", "pixelated", "8-bit", "pixel art portrait", "retro game", "8 bit pixel art",
        "16-bit sprite", "pixel art avatar",
    ),
    "voxel": (
        "voxel art", "voxel 3d render", "voxel", "minecraft style", "blocky 3d character", "voxel character",
        "3d voxel", "made of blocks", "blocky voxel avatar", "voxel portrait",
    ),
    "line": (
        "line drawing", "line art", "minimalist line drawing", "outline drawing", "clean line art",
        "simple line drawing", "sketch", "pen sketch", "line art portrait", "hand-drawn sketch",
    ),
}  # fmt: skip
# Any of these says that a prompt names a style; to one without, the pack adds its default.
STYLE_WORDS = (
    "vector", "cartoon", "bitmoji", "flat", "storybook", "pixar", "toon", "disney", "animated",
    "children's book", "comic", "ink", "hand-drawn", "pixel", "pixels", "pixelated", "8-bit", "8 bit",
    "16-bit", "16 bit", "retro game", "voxel", "voxels", "minecraft", "blocky", "blocks", "line", "lines",
    "outline", "outlines", "sketch",
)  # fmt: skip
DEFAULT_STYLE = "flat vector cartoon"
EXPRESSION = {
    "smile": ("smiling", "happy", "with a smile", "smile", "cheerful", "friendly smile", "joyful", "joyous"),
    "laugh": ("laughing", "laughing out loud", "with a big grin", "big laugh", "grinning", "overjoyed"),
    "neutral": (
        "serious", "neutral expression", "calm", "neutral", "with a serious face", "straight face",
        "composed",
    ),
    "sad": ("sad", "unhappy", "with a sad face", "crying inside", "melancholic", "gloomy", "sad expression"),
    "surprised": ("surprised", "shocked", "astonished", "with a surprised look", "amazed", "surprise"),
    "angry": ("angry", "furious", "with an angry face", "mad", "annoyed", "angry expression"),
    "wink": ("winking", "wink", "with a wink", "winks at you", "one eye closed"),
}  # fmt: skip
GARMENT = {
    "t-shirt": ("t-shirt", "tee", "tshirt", "t shirt"),
    "hoodie": ("hoodie", "hooded sweatshirt", "sweatshirt"),
    "jacket": ("jacket", "blazer", "suit", "suit jacket"),
    "collar": ("collared shirt", "polo shirt", "sweater with a collar", "collared sweater"),
}
ANY_GARMENT = ("clothes", "outfit", "clothing", "top", "shirt")
PLURAL = ("clothes", "clothing")
HEADWEAR = {
    "beanie": ("beanie", "woolly hat", "winter hat", "knitted beanie", "bobble hat"),
    "cap": ("cap", "baseball cap", "peaked cap"),
    "crown": ("crown", "royal crown", "king's crown"),
}
GOLDEN = ("golden ", "gold ", "", "yellow ")
NO_HAT = ("no hat", "bareheaded", "without a hat")
COLOR = {
    "gray": ("gray", "grey"),
    "teal": ("teal", "turquoise"),
    "navy blue": ("navy blue", "navy", "dark blue"),
    "platinum blond": ("platinum blond", "platinum blonde", "very light blond"),
    "blond": ("blond", "blonde"),
}
PATTERN = {
    "plain": (
        "{c} background", "{c} plain background", "plain {c} background", "on a {c} background",
        "solid {c} background", "with a {c} background", "{c} backdrop", "background is {c}",
        "against a {c} wall", "in front of a {c} background", "the background is {c}", "a {c} wall behind",
    ),
    "gradient": (
        "{c} to {d} gradient background", "gradient background from {c} to {d}",
        "{c} and {d} gradient background", "background fading from {c} to {d}",
    ),
    "stripes": (
        "{c} and {d} striped background", "striped background in {c} and {d}", "{c} and {d} stripes",
        "background with {c} and {d} stripes",
    ),
    "dots": (
        "{c} background with {d} dots", "{d} polka dots on {c}", "polka dot background in {c} and {d}",
        "{c} polka dot background with {d} dots", "{d} dots on a {c} background",
        "{c} background with dots in {d}", "background in {c} with {d} dots", "{c} with {d} polka dots",
    ),
    "checks": (
        "{c} and {d} checkered background", "checkered background in {c} and {d}",
        "{c} and {d} checkerboard", "background with {c} and {d} checks",
    ),
}  # fmt: skip
PATTERN_ALONE = {
    "gradient": ("gradient background",),
    "stripes": ("striped background", "stripes behind"),
    "dots": ("polka dot background", "dots in the background"),
    "checks": ("checkered background", "checkerboard background"),
}
FRAMING = {
    "bust": ("head and shoulders", "bust portrait", "bust", "shoulder-up portrait", "portrait"),
    "close-up": ("close-up", "close-up portrait", "headshot", "face close up", "closeup of the face"),
    "half-body": (
        "half-body shot", "half-body portrait", "half body", "upper body", "waist up", "waist-up shot",
        "seen from the waist up",
    ),
}  # fmt: skip
MAN = ("man", "man", "man", "male", "guy", "gentleman", "boy")
WOMAN = ("woman", "woman", "woman", "female", "lady", "girl")
OLD_MAN = ("grandfather", "grandpa")
OLD_WOMAN = ("grandmother", "grandma")
PERSON = ("person", "person", "character", "someone", "face", "human")
OLD = ("old ", "elderly ", "senior ", "aged ")
YOUNG = ("young ", "young adult ")
WEAR = (
    "wearing a {g}", "in a {g}", "{g}", "dressed in a {g}", "with a {g}", "wears a {g}",
    "dressed up in a {g}", "who has a {g} on", "wearing the {g}",
)  # fmt: skip
WEAR_PLURAL = (
    "wearing {g}", "in {g}", "{g}", "dressed in {g}", "with {g}", "wears {g}", "dressed up in {g}",
)  # fmt: skip
HAIR_LENGTH = {
    "bald": ("bald", "no hair", "a shaved head"),
    "short": ("short{k}{c} hair", "short{c}{k} hair", "cropped{k}{c} hair"),
    "medium": ("medium{k}{c} hair", "shoulder-length{k}{c} hair", "medium length{c}{k} hair"),
    "long": ("long{k}{c} hair", "long{c}{k} hair", "flowing{k}{c} hair"),
}
HAIR = (" with{k}{c} hair", " who has{k}{c} hair")
CURLY, STRAIGHT, BUN = (" curly", " wavy"), (" straight",), (" in a bun", " tied in a bun", " and a bun")
BEARD = {
    "none": (", clean-shaven", ", no beard", ", without a beard"),
    "full": (" with a beard", " with a full beard", ", bearded"),
    "moustache": (" with a moustache", ", moustache", " with a mustache"),
}
GLASSES = {
    "none": (", no glasses", ", without glasses"),
    "glasses": (" with glasses", " wearing glasses", ", glasses", " in spectacles"),
    "sunglasses": (" with sunglasses", " wearing sunglasses", ", sunglasses", " in dark shades"),
}
NOISE = (
    "highly detailed", "award winning", "high quality", "8k", "looking at camera", "masterpiece",
    "best quality", "nice", "charming", "relaxed", "beautiful", "SFW content", "3d render",
    "no background elements", "cute", "profile picture", "trending", "high def textures", "dating profile",
    "centered", "detailed face", "professional", "social media avatar",
)  # fmt: skip
OPENINGS = ("portrait of ", "avatar of ", "a picture of ", "make me ", "please draw ", "image of ", "I want ")
JOINTS = (", ", ", ", ", ", ". ", "; ", " and ", " - ", " ", " | ", " / ", ", with ", " that is ")

# For scores alone: see captions._join_held_out.
HELD_OUT_OPENINGS = (
    "a high quality picture: ", "a nice face for a social media profile: ", "detailed character, ",
    "a professional picture, looking at camera, ",
)  # fmt: skip
HELD_OUT_JOINS = (" + ", ": ", ", also ")
HELD_OUT_WEAR = ("who wears a {g}", "and a nice {g}", "dressed in the {g}")
HELD_OUT_WEAR_PLURAL = ("who wears {g}", "and nice {g}", "dressed in the {g}")
HELD_OUT_PATTERN = {
    "plain": ("the background is solid {c}", "in front of a plain {c} wall", "a backdrop in {c}"),
    "gradient": ("the background is a gradient in {c} to {d}", "fading background in {c} to {d}"),
    "stripes": ("the background is striped in {c} and {d}", "in front of {c} and {d} stripes"),
    "dots": ("the background is {c} with polka dots in {d}", "in front of a {c} wall with {d} dots"),
    "checks": ("the background is checkered in {c} and {d}", "in front of {c} and {d} checks"),
}
