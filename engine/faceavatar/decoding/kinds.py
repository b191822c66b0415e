"""What a file is by its first bytes, for the words of a refusal."""

from __future__ import annotations

# Kinds that people hand in and that are not read: (first bytes, where they stand, the kind, what to do).
_UNREAD = (
    (b"%PDF-", 0, "a PDF document", "export its page as PNG or JPEG"),
    (b"<svg", 0, "an SVG drawing", "export it as PNG"),
    (b"<?xml", 0, "an XML or SVG file", "export it as PNG"),
    (b"<!doctype html", 0, "a web page", "hand in the picture's own URL or file"),
    (b"<html", 0, "a web page", "hand in the picture's own URL or file"),
    (b"8BPS", 0, "a Photoshop document", "export it as PNG or JPEG"),
    (b"\xff\x0a", 0, "a JPEG XL picture", "save it as JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", 0, "a JPEG XL picture", "save it as JPEG or PNG"),
    (b"PK\x03\x04", 0, "a zip archive", "hand in the picture inside"),
    (b"\x1f\x8b", 0, "a gzip archive", "hand in the picture inside"),
    (b"\x1aE\xdf\xa3", 0, "a film", "hand in a frame of it as JPEG"),
    (b"%!PS", 0, "a PostScript document", "export it as PNG"),
    (b"qoif", 0, "a QOI picture", "save it as PNG"),
    (b"\0\0\x01\0", 0, "an icon", "save it as PNG"),
    (b"MZ", 0, "a program", "hand in a picture"),
    (b"\x7fELF", 0, "a program", "hand in a picture"),
)
# ISO media files name their kind in a box of its own: ftyp and the major brand.
_BRANDS = {
    "a HEIC picture": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "a Canon raw picture": (b"crx ",),
    "a film": (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"3gp4", b"3gp5"),
}
# What is read, by its first bytes.
_READ = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"Py"),
    "JPEG2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
}


def kind_of(data: bytes) -> str | None:
    """The format that a file's first bytes say it has, by Pillow's name; None for all others."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:12] in {b"ftypavif", b"ftypavis"}:
        return "AVIF"
    return next((kind for kind, starts in _READ.items() if data.startswith(starts)), None)


def unread_kind(data: bytes) -> tuple[str, str] | None:
    """What a file is that people take for a picture, and what to do with it; None where that is not known."""
    if not data:
        return "an empty file", "hand in a picture"
    if data[4:8] == b"ftyp":
        for kind, brands in _BRANDS.items():
            if data[8:12] in brands:
                return kind, "save it as JPEG or PNG"
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, at, kind, cure in _UNREAD:
        if data.startswith(magic, at) or (magic.isascii() and start.startswith(magic.lower())):
            return kind, cure
    return None
