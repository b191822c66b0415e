"""What both TensorRT providers share: optimisation profiles, and engines as EPContext models.

An EPContext model is an ONNX file of one node, which holds or names what the provider compiled
(onnxruntime.ModelCompiler writes it). It fits one GPU, driver and set of versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from faceavatar.backends.session import Bucket, Dimensions, first_line
from faceavatar.errors import PackInvalid


def profile_options(prefix: str, buckets: Sequence[Bucket] | None) -> Mapping[str, str]:
    """The provider's options for one optimisation profile over all buckets; {} where none are known.

    prefix: "trt" or "nv". The shapes it is tuned for are the first bucket's usual ones. One profile and not
    one a bucket: which of several a run uses would have to be said at each run, which only one of the two
    providers lets a caller do.
    """
    if not buckets:
        return {}
    least, most = _extreme(buckets, "least"), _extreme(buckets, "most")
    usual = buckets[0].usual
    named = {"min": least, "opt": usual, "max": most}
    return {f"{prefix}_profile_{name}_shapes": _words(shapes) for name, shapes in named.items()}


def compile_to(settings: onnxruntime.SessionOptions, path: Path, target: Path) -> tuple[Path, ...]:
    """Compile an ONNX file with the provider in `settings`; gives the EPContext model and its binaries.

    Raises PackInvalid with the provider's words, also where it would have compiled nothing.
    """
    before = set(target.parent.iterdir())
    try:
        compiler = onnxruntime.ModelCompiler(
            settings,
            str(path),
            embed_compiled_data_into_model=False,  # a protobuf holds no more than 2 GB
            external_initializers_file_path=f"{target.name}.data",
            flags=onnxruntime.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
        )
        compiler.compile_to_file(str(target))
    except Exception as error:  # the bindings raise a dozen unrelated classes
        raise PackInvalid(f"{path.name}: cannot be compiled: {first_line(error)}") from error
    return target, *sorted(set(target.parent.iterdir()) - before - {target})


def _extreme(buckets: Sequence[Bucket], end: str) -> Dimensions:
    choose = min if end == "least" else max
    every = [bucket.least if end == "least" else bucket.most for bucket in buckets]
    return {
        name: tuple(choose(sides) for sides in zip(*(shapes[name] for shapes in every), strict=True))
        for name in every[0]
    }


def _words(shapes: Dimensions) -> str:
    """ "sample:2x4x64x64,timestep:2", as both providers read it."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
