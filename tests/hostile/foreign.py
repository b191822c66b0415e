"""What is no picture, what is another kind of picture, and what is two things at once."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from functools import partial

from hostile import raw
from hostile.cases import QUARTERS, Case, picture, refused
from hostile.raw import chunk, encoded, quarters, segment, split_jpeg, split_png

SCRIPT = b"<script>alert(1)</script>"


def cases() -> Iterator[Case]:
    for name, data in OTHERS.items():
        yield refused(name, partial(bytes, data))
    yield refused("pickle", lambda: pickle.dumps({"a": 1}))
    yield refused("zip", lambda: _zip())
    yield picture("png-and-zip", lambda: encoded(quarters()) + _zip(), *QUARTERS)
    yield picture("png-with-html", lambda: split_png(chunk(b"tEXt", b"a\0" + SCRIPT)), *QUARTERS)
    yield picture("gif-and-script", lambda: encoded(quarters(), "GIF") + b"*/=1;" + SCRIPT, *QUARTERS)
    yield picture("jpeg-and-pdf", lambda: split_jpeg(segment(0xFE, b"%PDF-1.7\n1 0 obj")), *QUARTERS, near=25)
    yield picture(
        "jpeg-and-php", lambda: split_jpeg(segment(0xFE, b"<?php system($_GET[0]); ?>")), *QUARTERS, near=25
    )
    yield picture("bmp-and-program", lambda: encoded(quarters(), "BMP") + b"MZ" + bytes(200), *QUARTERS)
    yield refused("pdf-and-jpeg", lambda: b"%PDF-1.7\n" + encoded(quarters(), "JPEG"))
    yield refused("html-and-png", lambda: SCRIPT + encoded(quarters()))
    yield refused("png-in-png-signature-twice", lambda: raw.PNG_SIGNATURE + encoded(quarters()))
    yield refused("json", lambda: json.dumps({"image": "a"}).encode())
    yield refused("nuls", lambda: bytes(10_000))
    yield refused("spaces", lambda: b" " * 10_000)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    return buffer.getvalue()


def _media(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0" + brand + b"mif1" + bytes(400)


OTHERS = {
    "empty": b"",
    "one-byte": b"\x89",
    "text": b"hello, I am a picture",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "svg-with-declaration": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg-with-entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
    "svg-compressed": b"\x1f\x8b\x08\0" + bytes(30),
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(w) file\n",
    "heic": _media(b"heic"),
    "heif-sequence": _media(b"msf1"),
    "canon-raw": _media(b"crx "),
    "film": _media(b"isom"),
    "avif-of-nothing": _media(b"avif"),
    "jpeg-xl": b"\xff\x0a" + bytes(40),
    "jpeg-xl-box": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "photoshop": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x09\0\0\0\x09\0\x08\0\3",
    "icon": b"\0\0\1\0\1\0\1\1\0\0\1\0\x18\0" + bytes(60),
    "program": b"\x7fELF" + bytes(60),
    "windows-program": b"MZ" + bytes(60),
    "matroska": b"\x1aE\xdf\xa3" + bytes(60),
    "qoi": b"qoif\0\0\0\1\0\0\0\1\3\0" + bytes(8),
    "fits": b"SIMPLE  =                    T" + b" " * 50,
    "fli": b"\x80\0\0\0\x11\xaf" + bytes(122),
    "pcx": b"\x0a\5\1\x08" + bytes(124),
    "tga": bytes([0, 0, 2, *[0] * 9, 4, 0, 4, 0, 24, 0]) + bytes(48),
    "windows-metafile": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "dds": b"DDS |\0\0\0" + bytes(120),
    "python": b"import os\nos.system('id')\n",
    "webp-of-nothing": b"RIFF\x04\0\0\0WEBP",
    "riff-wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
}
