"""Where fuzzing begins: small files of every kind, most of them whole, and what fuzzing found (found/)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tiny_pack
from hostile.broken import KINDS
from hostile.corpus import corpus
from hostile.raw import encoded, noise, profile, quarters

from faceavatar.identity import Identity, Place
from faceavatar_cli.http.contract import EXAMPLE_REQUEST

FOUND = Path(__file__).with_name("found")
CHOSEN = (
    b"\x02\x00\x05a cat\x04\x01\x01\x02\x09\x03\x01\x08\x08\x02"  # fields as targets.fields_of reads them
)
SMALL = 4096  # bytes; larger files make slow fuzzing


def seeds(target: str, scratch: Path) -> list[bytes]:
    """The seeds of a target, and after them what was found in it; scratch: a folder to build a pack in."""
    made = {
        "picture": _pictures,
        "manifest": lambda: [(tiny_pack.build(scratch / "tiny") / "pack.json").read_bytes()],
        "graph": lambda: [
            (tiny_pack.build(scratch / "tiny") / f"{n}.onnx").read_bytes() for n in ("matting",)
        ],
        "request": _requests,
        "body": _bodies,
        "identity": lambda: [_identity(None), _identity(np.ones((1, 2, 3), np.float32))],
        "data_uri": _data_uris,
    }[target]()
    kept = sorted(FOUND.glob(f"{target}-*")) if FOUND.is_dir() else []
    return [*made, *(path.read_bytes() for path in kept)]


def _pictures() -> list[bytes]:
    whole = [
        encoded(picture, kind, **options)
        for kind, options in KINDS.items()
        for picture in (noise(9), quarters(8, 8))
    ]
    whole.append(encoded(quarters(8, 8), icc_profile=profile()))
    cases = (case.build() for name, case in corpus().items() if not name.startswith("costly-"))
    return whole + [data for data in cases if len(data) < SMALL]


def _requests() -> list[bytes]:
    whole = {
        "image": "a.png",
        "prompt": "a cat",
        "negative_prompt": None,
        "batch": 2,
        "height": 512,
        "seed": 3,
        "guidance_scale": 4.5,
        "scheduler": "ddim",
        "bg_color": "#0af",
        "gender": "woman",
        "strength": 0.5,
        "best_of": 2,
    }
    return [json.dumps(whole).encode(), b"{}", b'{"image": "sha256:00"}', CHOSEN]


def _bodies() -> list[bytes]:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na cat\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\r\n--x--\r\n"
    )
    return [
        b"\0" + json.dumps(EXAMPLE_REQUEST).encode(),
        b"\0" + b'{"id": "5f0c", "refID": "mine"}',
        b"\x80" + CHOSEN,
        b"\1" + form,
        b"\2" + b"image=data%3Aimage%2Fpng%3Bbase64%2CAAAA&batch=2&height=300.0",
    ]


def _identity(image_embeds: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None) -> bytes:
    place = Place(np.ones((5, 2), np.float32), (1.0, 2.0, 3.0, 4.0), (40, 60))
    encoder = None if image_embeds is None else "b" * 64
    return Identity(np.ones((1, 8), np.float32), "a" * 64, "tiny", place, image_embeds, encoder).to_bytes()


def _data_uris() -> list[bytes]:
    return [
        b"image/png;base64,iVBORw0KGgo=",
        b",hello",
        b";charset=utf-8,%89PNG%0D%0A",
        b"image/gif;base64,R0lGODlh",
    ]
