"""Where a graph's time goes, operator by operator, as the engine itself counts it.

    python benchmarks/profile_graph.py PACK [--role unet] [--provider openvino] [--precision bf16] [--batch 2]
        [--size 512] [--runs 3]

Shapes are fixed to those of the run. Prints seconds and share by kind of operator, the longest first, then
one line of JSON. The counting itself costs time: shares are what this is for, not seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faceavatar.backends import physical_cores
from faceavatar.pack import Pack, find_pack
from faceavatar_cli.measure.subject import bind

Feeds = Mapping[str, Any]


def feeds_of(pack: Pack, role: str, batch: int, size: int) -> dict[str, Any]:
    """Noise of the right shapes and types for every input."""
    grain, random = pack.manifest.latents.downsample, np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    for name, tensor in pack.graph(role).inputs.items():
        shape = bind(tensor.shape, batch, (size // grain, size // grain), grain, name)
        whole = tensor.dtype.startswith("int")
        values = random.integers(0, 900, shape) if whole else random.standard_normal(shape)
        feeds[name] = values.astype(tensor.dtype)
    return feeds


def by_openvino(path: Path, feeds: Feeds, precision: str, runs: int) -> Counter[str]:
    """Seconds by kind of node, with what was computed in which type where the plugin says so."""
    import openvino

    model = openvino.Core().read_model(str(path))
    model.reshape({name: list(value.shape) for name, value in feeds.items()})
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
    config = {"INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True, "INFERENCE_NUM_THREADS": physical_cores()}
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    request.infer(feeds)
    found: Counter[str] = Counter()
    for _ in range(runs):
        request.infer(feeds)
        for node in request.get_profiling_info():
            seconds = node.real_time.total_seconds() / runs
            if seconds:
                found[f"{node.node_type} ({node.exec_type})"] += seconds
    return found


def by_onnxruntime(path: Path, feeds: Feeds, runs: int) -> Counter[str]:
    """Seconds by kind of node, as ONNX Runtime's own profile has them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = physical_cores(), True
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]
    # The first run fills the arena and is left out: every run has the same nodes.
    for event in nodes[len(nodes) // (runs + 1) :]:
        found[event["args"]["op_name"]] += event["dur"] / 1e6 / runs
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack")
    parser.add_argument("--role", default="unet")
    parser.add_argument("--provider", choices=["cpu", "openvino"], default="openvino")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    pack = Pack.load(find_pack(args.pack), check_hashes=False)
    graph, feeds = pack.graph(args.role), feeds_of(pack, args.role, args.batch, args.size)
    if args.provider == "openvino":
        found = by_openvino(pack.file(graph.file), feeds, args.precision, args.runs)
    else:
        found = by_onnxruntime(pack.file(graph.fused or graph.file), feeds, args.runs)
    whole = sum(found.values())
    for name, seconds in found.most_common(15):
        print(f"{name:48} {seconds:9.4f} s {seconds / whole:6.1%}")
    print(f"{'all':48} {whole:9.4f} s")
    head = {name: getattr(args, name) for name in ("pack", "role", "provider", "precision", "batch", "size")}
    print(json.dumps({**head, "seconds": whole, "nodes": dict(found.most_common())}))


if __name__ == "__main__":
    main()
