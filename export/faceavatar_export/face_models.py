"""InsightFace's detector and recogniser for a pack: found in a folder, fetched by name, proved.

Their files go into the pack as they are, so that their hashes stay those that everybody knows. Knows files,
licences and where InsightFace publishes; does not know what a pack draws.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime

import faceavatar
from faceavatar import AvatarEngine
from faceavatar.backends import TensorSpec
from faceavatar.errors import InvalidRequest, NoFaceFound, PackInvalid
from faceavatar.face.insight import arcface_problem, model_zoo, scrfd_problem
from faceavatar.image import load_image
from faceavatar.manifest import Recogniser
from faceavatar.pack import Pack
from faceavatar_export.graphs import signature
from faceavatar_export.pack_writer import Provenance

TERMS = "non-commercial"
LICENSE = "InsightFace model zoo: non-commercial research only"
SECONDS = 60  # of silence, after which a download is given up
PHOTO = Path(faceavatar.__file__).parent / "examples" / "astronaut.jpg"
DETECTION_SIDE = 640
# What the two ways may differ by: alignment rounds in float32 there, so some pixel is a level off.
LARGEST_PIXELS, LEAST_COSINE = 0.01, 0.9999
Say = Callable[[str], None]


@dataclass(frozen=True)
class Release:
    """A published pack: its zip, and the sha256 of the files that are wanted of it."""

    url: str
    sha256: Mapping[str, str]


_ZOO = "https://github.com/deepinsight/insightface/releases/download/model-zoo"
_SCRFD_10G = "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"  # one file under two names
RELEASES: Mapping[str, Release] = {
    "buffalo_l": Release(
        f"{_ZOO}/buffalo_l.zip",
        {
            "det_10g.onnx": _SCRFD_10G,
            "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        },
    ),
    "antelopev2": Release(
        f"{_ZOO}/antelopev2.zip",
        {
            "scrfd_10g_bnkps.onnx": _SCRFD_10G,
            "glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        },
    ),
}


@dataclass(frozen=True)
class FaceModels:
    """A detector and a recogniser with its embedding's size, and where they are from."""

    detector: Path
    recogniser: Path
    embedding_size: int
    provenance: Provenance

    def part(self) -> dict[str, Any]:
        """What the manifest's part `face` says of them."""
        return {
            "detector": {"kind": "scrfd", "file": self.detector.name},
            "alignment": {"kind": "arcface", "size": 112},
            "encoder": {"kind": "arcface", "file": self.recogniser.name},
        }

    def copy_to(self, folder: Path) -> dict[str, Provenance]:
        """Put the files into a pack, unchanged, and give their entries."""
        for path in (self.detector, self.recogniser):
            shutil.copyfile(path, folder / path.name)
        return {path.name: self.provenance for path in (self.detector, self.recogniser)}


@dataclass(frozen=True)
class FaceSource:
    """Where a pack's face models come from: a folder and its licence, or a name and the terms agreed to."""

    folder: Path | None = None
    license: str | None = None
    name: str | None = None
    accepted: str | None = None

    @property
    def given(self) -> bool:
        """Whether the pack gets face models at all."""
        return self.folder is not None or self.name is not None


NO_FACES = FaceSource()


def check_face_source(source: FaceSource, has_adapter: bool) -> None:
    """What can be refused before any file is read or fetched. Raises InvalidRequest, MissingExtra."""
    flag = "--face-pack" if source.folder is not None else "--with-face-pack"
    got = str(source.folder or source.name)
    if source.folder is not None and source.name is not None:
        raise InvalidRequest("--with-face-pack", source.name, "nothing beside --face-pack")
    if source.given and not has_adapter:
        raise InvalidRequest(flag, got, "nothing without --face-adapter, which is what looks at faces")
    if source.folder is not None and not source.license:
        raise InvalidRequest(
            "--face-pack-license", source.license, "the face models' licence, for the manifest"
        )
    if source.folder is not None and not source.folder.is_dir():
        raise InvalidRequest("--face-pack", got, "a folder with a detector and a recogniser of InsightFace's")
    if source.name is not None and source.name not in RELEASES:
        raise InvalidRequest("--with-face-pack", source.name, " or ".join(RELEASES))
    if source.name is not None and source.accepted != TERMS:
        allowed = f"{TERMS}: InsightFace's models are for research only, and the pack will say so"
        raise InvalidRequest("--accept-license", source.accepted, allowed)
    if source.given:
        model_zoo()  # the proof runs them; better missed now than after it


def open_face_models(source: FaceSource, embedding_size: int, scratch: Path, say: Say) -> FaceModels | None:
    """Find or fetch the models; None where none are wanted. embedding_size: what the adapter takes.

    Raises PackInvalid for a folder or a download that cannot be used.
    """
    if not source.given:
        return None
    if source.name is not None:
        models = find_face_models(fetch_face_models(source.name, scratch, say), LICENSE)
    else:
        models = find_face_models(Path(str(source.folder)), str(source.license))
    if models.embedding_size != embedding_size:
        raise PackInvalid(
            f"{models.recogniser.name} gives {models.embedding_size} numbers, the face adapter takes "
            f"{embedding_size}; take the recogniser that the adapter was trained with"
        )
    return models


def find_face_models(folder: Path, license: str) -> FaceModels:
    """The SCRFD detector and the ArcFace recogniser of a folder; its other files are left alone.

    Raises PackInvalid where there is not exactly one of each.
    """
    detectors: list[Path] = []
    recognisers: list[tuple[Path, int]] = []
    reasons = []
    for path in sorted(folder.glob("*.onnx")):
        inputs, outputs = (_specs(side) for side in signature(path))
        not_detector, not_recogniser = scrfd_problem(inputs, outputs), arcface_problem(inputs, outputs)
        if not_detector is None:
            detectors.append(path)
        elif not_recogniser is None:
            recognisers.append((path, int(next(iter(outputs.values())).shape[1])))
        else:
            reasons.append(f"{path.name}: {not_detector if len(outputs) > 1 else not_recogniser}")
    if len(detectors) != 1 or len(recognisers) != 1:
        found = f"{len(detectors)} detectors and {len(recognisers)} recognisers"
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise PackInvalid(f"{folder}: {found}, expected one of each in this folder itself{why}")
    (recogniser, size), (detector,) = recognisers[0], detectors
    return FaceModels(detector, recogniser, size, Provenance(license, f"InsightFace, {folder.name}"))


def fetch_face_models(name: str, into: Path, say: Say) -> Path:
    """Fetch a pack of InsightFace's model zoo and give its folder, with the two wanted files in it alone.

    Raises PackInvalid where it cannot be fetched, and for files that are not those published.
    """
    import pooch

    release, folder = RELEASES[name], into / name
    folder.mkdir(parents=True)
    pooch.get_logger().setLevel("ERROR")  # it speaks of every file
    say(f"fetching {release.url}")
    with TemporaryDirectory(dir=into) as place:
        try:
            loader = pooch.HTTPDownloader(timeout=SECONDS)
            # The files are held to their own hashes: the zip around them has been packed anew before.
            archive = pooch.retrieve(release.url, None, f"{name}.zip", place, downloader=loader)
            with zipfile.ZipFile(archive) as zipped:
                for file, wanted in release.sha256.items():
                    _unpack(zipped, file, wanted, folder / file)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            first = str(error).splitlines()[0]
            raise PackInvalid(
                f"{name}: {release.url} could not be fetched ({first}); fetch it by other means and give its "
                "folder with --face-pack"
            ) from error
    return folder


def _unpack(zipped: zipfile.ZipFile, file: str, wanted: str, target: Path) -> None:
    """One file, wherever in the zip it lies. Raises PackInvalid where it is absent or another one."""
    members = [member for member in zipped.namelist() if Path(member).name == file]
    if len(members) != 1:
        raise PackInvalid(
            f"{file}: {len(members)} times in the fetched zip, expected once; fetch it by other means"
        )
    with zipped.open(members[0]) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    with target.open("rb") as written:
        got = hashlib.file_digest(written, "sha256").hexdigest()
    if got != wanted:
        raise PackInvalid(
            f"{file}: the fetched file has sha256 {got}, expected {wanted}; fetch it by other means"
        )


def prove(engine: AvatarEngine) -> dict[str, Any]:
    """What the pack sees in a photo beside what insightface's package sees with the same files.

    Gives the largest differences of boxes and landmarks in pixels, the cosine of the embeddings, and
    `misses`.
    """
    photo = load_image(str(PHOTO))
    try:
        look = engine.look(photo)
    except NoFaceFound as error:
        return {"box": None, "landmarks": None, "cosine": None, "misses": [f"{PHOTO.name}: {error}"]}
    assert look.face is not None
    box, landmarks, embedding = _insightface(engine.pack, photo)
    x, y, width, height = look.face.bbox
    apart = float(np.abs(np.array([x, y, x + width, y + height]) - box).max())
    away = float(np.abs(look.face.landmarks - landmarks).max())
    cosine = float(np.vdot(look.embeds, embedding) / np.linalg.norm(look.embeds) / np.linalg.norm(embedding))
    misses = []
    if max(apart, away) > LARGEST_PIXELS:
        misses.append(f"the face lies {max(apart, away):.2g} pixels away from insightface's")
    if not cosine >= LEAST_COSINE:
        misses.append(f"the face's embedding has the cosine {cosine:.4f} with insightface's")
    return {"box": apart, "landmarks": away, "cosine": cosine, "misses": misses}


def _insightface(pack: Pack, photo: Any) -> tuple[Any, Any, Any]:
    """Box, landmarks and embedding of the largest face, by the package alone."""
    from insightface.app.common import Face

    face = pack.manifest.face
    assert face is not None
    assert face.detector is not None
    assert isinstance(face.encoder, Recogniser)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    detector, recogniser = (
        model_zoo().get_model(str(pack.file(file)), providers=["CPUExecutionProvider"], sess_options=quiet)
        for file in (face.detector.file, face.encoder.file)
    )
    bgr = np.ascontiguousarray(photo[..., ::-1])
    boxes, points = detector.detect(bgr, input_size=(DETECTION_SIDE, DETECTION_SIDE))
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = int(sizes.argmax())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-image, about what the package calls
        found = recogniser.get(bgr, Face(bbox=boxes[largest, :4], kps=points[largest]))
    return boxes[largest, :4], points[largest], found


def _specs(side: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    """A graph's signature as a session tells it: a side that is neither fixed nor named varies too."""
    return {
        name: TensorSpec(tensor["dtype"], tuple(length or "?" for length in tensor["shape"]))
        for name, tensor in side.items()
    }
