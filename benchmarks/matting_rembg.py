"""rembg's cut-outs of a folder of PNG files, in every setting that runs offline with U2-Net.

    PYTHON_WITH_REMBG benchmarks/matting_rembg.py FOLDER OUT

Runs in an environment of its own (`pip install 'rembg[cpu]'`, with u2net.onnx in U2NET_HOME) and knows nothing
of faceavatar. Writes OUT/SETTING/NAME.png and OUT/seconds.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import rembg
from PIL import Image

SETTINGS: dict[str, dict[str, bool]] = {
    "plain": {},
    "post-processed": {"post_process_mask": True},
    "decontaminated": {"decontaminate": True},
    "alpha matting": {"alpha_matting": True},
}


def main() -> None:
    folder, out = (Path(argument) for argument in sys.argv[1:])
    session = rembg.new_session("u2net")
    seconds = {}
    for name, options in SETTINGS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        spent = 0.0
        for path in sorted(folder.glob("*.png")):
            picture = Image.open(path).convert("RGB")
            start = time.process_time()
            try:
                cut = rembg.remove(picture, session=session, **options)
            except Exception as error:  # closed-form matting fails where a trimap has no band
                print(f"{path.name}: {name}: {error}; rembg falls back to its plain cut-out", file=sys.stderr)
                cut = rembg.remove(picture, session=session)
            spent += time.process_time() - start
            cut.save(out / name / path.name)
        seconds[name] = spent
    (out / "seconds.json").write_text(json.dumps({"version": rembg.__version__, "seconds": seconds}))


if __name__ == "__main__":
    main()
