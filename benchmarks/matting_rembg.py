"""rembg's cut-outs of a folder of PNG files, in every setting that runs offline with U2-Net.

    PYTHON_WITH_REMBG benchmarks/matting_rembg.py FOLDER OUT

Runs in an environment of its own (`pip install 'rembg[cpu]'`, with u2net.onnx in U2NET_HOME) and knows
nothing of faceavatar. Writes OUT/SETTING/NAME.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import rembg
from PIL import Image

SETTINGS: dict[str, dict[str, bool]] = {
    "plain": {},
    "post-processed": {"post_process_mask": True},
    "decontaminated": {"decontaminate": True},
    "alpha matting": {"alpha_matting": True},
}


class Remembered:
    """rembg's session, which asks the network once a picture and not once a setting."""

    def __init__(self) -> None:
        self._session = rembg.new_session("u2net")
        self._last: tuple[bytes, list[Image.Image]] | None = None

    def predict(self, picture: Image.Image, *args: object, **options: object) -> list[Image.Image]:
        key = picture.convert("RGB").tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._session.predict(picture)
        return [mask.copy() for mask in self._last[1]]


def main() -> None:
    folder, out = (Path(argument) for argument in sys.argv[1:])
    session = Remembered()
    for name in SETTINGS:
        (out / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.png")):
        picture = Image.open(path).convert("RGB")
        for name, options in SETTINGS.items():
            cut = rembg.remove(picture, session=session, **options)
            cut.save(out / name / path.name)
    print(f"rembg {rembg.__version__}")


if __name__ == "__main__":
    main()
