"""Damaged and hostile packs: refused by name, with the file and what is wrong, before a session is made."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_pack
from onnx import TensorProto, helper, numpy_helper
from tiny_pack import change_manifest

from faceavatar import AvatarEngine, backends, pack
from faceavatar.errors import (
    EngineStale,
    HashMismatch,
    MissingGraph,
    PackError,
    PackInvalid,
    SignatureMismatch,
)
from faceavatar.graph_file import read_graph
from faceavatar.opening import here
from faceavatar.pack import Pack, verify
from faceavatar_cli.main import main

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pack of its own for tests that break it."""
    return tiny_pack.build(tmp_path / "packs" / "tiny")


@pytest.fixture(autouse=True)
def no_session(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The graphs for which a session was asked; nothing is put in place of opening them."""
    asked: list[Path] = []
    really = backends.open_session

    def open_session(path: Path, *others: Any, **named: Any) -> Any:
        asked.append(path)
        return really(path, *others, **named)

    monkeypatch.setattr(pack, "open_session", open_session)
    return asked


def rehash(folder: Path, *names: str) -> None:
    entries = {name: tiny_pack.file_entry(folder / name) for name in names}
    change_manifest(folder, lambda m: m["files"].update(entries))


def refusal(folder: Path, kind: type[PackError]) -> str:
    """What loading the pack is refused with; the same is in the list of verify."""
    with pytest.raises(kind) as caught:
        AvatarEngine.load(folder, provider="cpu")
    assert type(caught.value) is kind
    words = str(caught.value)
    assert ";" in words, "it does not say what to do"
    return words


def outward(folder: Path, location: str, offset: int = 0, length: int | None = None) -> None:
    """The UNet's first weights, said to lie elsewhere; with its hash put right."""
    model = onnx.load(folder / "unet.onnx")
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset), "length": str(size if length is None else length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "unet.onnx").write_bytes(model.SerializeToString())
    rehash(folder, "unet.onnx")


@pytest.mark.parametrize(
    "location",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "../secret.bin",
        "..\\secret.bin",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "more.bin",
    ],
)
def test_weights_outside_what_the_manifest_lists_are_refused(
    folder: Path, no_session: list[Path], location: str
) -> None:
    (folder.parent / "secret.bin").write_bytes(bytes(10**6))
    (folder / "more.bin").write_bytes(bytes(10**6))
    outward(folder, location)
    words = refusal(folder, PackInvalid)
    assert "unet.onnx: the weights 'constant_0' lie in" in words
    assert "which the manifest does not list" in words
    assert no_session == []
    assert [line for line in verify(Pack.read(folder)) if "does not list" in line] == [words]


def test_weights_in_a_link_that_leads_outside_are_refused(folder: Path, no_session: list[Path]) -> None:
    secret = folder.parent / "secret.bin"
    secret.write_bytes(bytes(10**6))
    (folder / "weights.bin").symlink_to(secret)
    outward(folder, "weights.bin")
    rehash(folder, "weights.bin")
    assert "'weights.bin' lies outside the pack's folder" in refusal(folder, PackInvalid)
    assert no_session == []


@pytest.mark.parametrize("where", ["a constant", "a branch", "a function", "sparse weights"])
def test_weights_are_found_wherever_a_graph_may_hide_them(folder: Path, where: str) -> None:
    hidden = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    model = onnx.load(folder / "unet.onnx")
    node = helper.make_node("Constant", [], ["unused"], value=hidden)
    if where == "a constant":
        model.graph.node.append(node)
    elif where == "a branch":
        branch = helper.make_graph([node], "branch", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    elif where == "a function":
        model.functions.append(helper.make_function("own", "F", [], ["unused"], [node], []))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(hidden)
    (folder / "unet.onnx").write_bytes(model.SerializeToString())
    assert [one.location for one in read_graph(folder / "unet.onnx").elsewhere][:1] == ["/etc/passwd"]
    rehash(folder, "unet.onnx")
    assert "the weights 'hidden' lie in '/etc/passwd'" in refusal(folder, PackInvalid)


def test_weights_beside_the_graph_that_are_listed_are_read(folder: Path) -> None:
    model = onnx.load(folder / "unet.onnx")
    onnx.save(
        model, folder / "unet.onnx", save_as_external_data=True, location="unet.onnx.data", size_threshold=100
    )
    rehash(folder, "unet.onnx", "unet.onnx.data")
    assert verify(Pack.load(folder)) == []
    data = (folder / "unet.onnx.data").read_bytes()
    (folder / "unet.onnx.data").write_bytes(data[:-100])
    assert "unet.onnx.data has sha256" in refusal(folder, HashMismatch)
    rehash(folder, "unet.onnx.data")  # whoever made it says that it is right
    words = refusal(folder, PackInvalid)
    assert f"end at byte {len(data)} of unet.onnx.data, which has {len(data) - 100}" in words


@pytest.mark.parametrize(("offset", "length"), [(2**62, None), (-1, None), (0, -1)])
def test_weights_at_impossible_places_are_refused(
    folder: Path, no_session: list[Path], offset: int, length: int | None
) -> None:
    (folder / "weights.bin").write_bytes(bytes(10**5))
    outward(folder, "weights.bin", offset, length)
    rehash(folder, "weights.bin")
    assert "unet.onnx" in refusal(folder, PackInvalid)
    assert no_session == []


def test_a_swapped_graph_is_refused_by_its_hash_and_with_the_hash_put_right_by_its_signature(
    folder: Path,
) -> None:
    (folder / "unet.onnx").write_bytes((folder / "vae_decoder.onnx").read_bytes())
    assert "the file unet.onnx has sha256" in refusal(folder, HashMismatch)
    rehash(folder, "unet.onnx")
    assert "unet (unet.onnx): inputs are latents, expected sample" in refusal(folder, SignatureMismatch)


def with_node(folder: Path, operator: str, domain: str) -> None:
    model = onnx.load(folder / "vae_decoder.onnx")
    model.graph.node.append(helper.make_node(operator, ["latents"], ["y"], domain=domain))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    (folder / "vae_decoder.onnx").write_bytes(model.SerializeToString())
    rehash(folder, "vae_decoder.onnx")


def test_operators_of_a_domain_that_no_runtime_knows_are_refused_by_name(
    folder: Path, no_session: list[Path]
) -> None:
    with_node(folder, "RunShell", "com.example")
    words = refusal(folder, PackInvalid)
    assert "vae_decoder.onnx has operators that no runtime here knows: com.example:RunShell" in words
    assert no_session == []


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_an_operator_that_onnx_does_not_have_is_refused_by_name(folder: Path, provider: str) -> None:
    model = onnx.load(folder / "unet.onnx")
    next(node for node in model.graph.node if node.op_type == "Tanh").op_type = "NoSuchOperator"
    (folder / "unet.onnx").write_bytes(model.SerializeToString())
    rehash(folder, "unet.onnx")
    with pytest.raises(PackInvalid, match=rf"unet\.onnx: {provider} cannot open it.*NoSuchOperator"):
        Pack.load(folder).open("unet", provider)


def test_a_compiled_engine_in_place_of_a_graph_is_refused(folder: Path, no_session: list[Path]) -> None:
    with_node(folder, "EPContext", "com.microsoft")
    assert "holds a compiled engine, expected a graph" in refusal(folder, PackInvalid)
    assert no_session == []


class Malice:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return os.abort, ()


NO_GRAPHS = {
    "a Python pickle, which is never loaded": pickle.dumps(Malice()),
    "a zip archive, as torch.save writes it": b"PK\x03\x04archive/data.pkl",
    "an empty file": b"",
    "no ONNX graph": b"hello",
}


@pytest.mark.parametrize("kind", NO_GRAPHS)
def test_what_is_no_graph_is_called_what_it_is(folder: Path, no_session: list[Path], kind: str) -> None:
    (folder / "unet.onnx").write_bytes(NO_GRAPHS[kind])
    rehash(folder, "unet.onnx")
    words = refusal(folder, PackInvalid)
    assert f"unet.onnx: {kind}" in words
    assert no_session == []


@pytest.mark.parametrize("cut", [1, 10, 1000, -1])
def test_a_graph_cut_short_with_its_hash_put_right_is_refused_by_its_name(folder: Path, cut: int) -> None:
    (folder / "unet.onnx").write_bytes((folder / "unet.onnx").read_bytes()[:cut])
    rehash(folder, "unet.onnx")
    assert "unet.onnx" in refusal(folder, PackInvalid)


def deeper(depth: int) -> str:
    return "[" * depth + "]" * depth


MANIFESTS: dict[str, Callable[[str], str]] = {
    "more than 4194304 bytes": lambda text: text[:-1] + " " * 5_000_000 + "}",
    "nested too deeply": lambda text: text[:-1] + ', "deep": ' + deeper(200_000) + "}",
    "the key 'name' is there twice": lambda text: text[:-1] + ', "name": "other"}',
    "NaN is no number": lambda text: text[:-1] + ', "x": NaN}',
    "Expecting value": lambda text: "",
    "codec can't decode": lambda text: text[:-1] + ', "x": "\udcff"}',
}


@pytest.mark.parametrize("complaint", MANIFESTS)
def test_a_manifest_that_is_not_plain_json_is_refused(folder: Path, complaint: str) -> None:
    path = folder / "pack.json"
    changed = MANIFESTS[complaint](path.read_text(encoding="utf-8"))
    path.write_bytes(changed.encode("utf-8", "surrogateescape"))
    assert complaint in refusal(folder, PackInvalid)


def put(*path: Any) -> Change:
    """Sets the value that is last in a path of keys."""

    def change(manifest: dict[str, Any]) -> None:
        *keys, last, value = path
        place: Any = manifest
        for key in keys:
            place = place[key]
        place[last] = value

    return change


CONTRADICTIONS: dict[str, Change] = {
    "unet.inputs.sample is 8, but latents.channels is 4": put("latents", "channels", 4),
    "text_encoder.inputs.input_ids is 77, but text.max_length is 64": put("text", "max_length", 64),
    "face_tokens is 4, but face.adapter.tokens is 16": put("face", "adapter", "tokens", 16),
    "face_embeds is 20, but face.adapter.embedding_size is 512": put(
        "face", "adapter", "embedding_size", 512
    ),
    "aligned_face is 128, but face.alignment.size is 112": put("face", "alignment", "size", 112),
    "image is 256, but matting.size is 320": put("matting", "size", [320, 256]),
    "encoder_hidden_states is 32, but last_hidden_state of text_encoder is 24": put(
        "graphs", "unet", "inputs", "encoder_hidden_states", "shape", ["batch", "tokens", 32]
    ),
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_shapes_that_contradict_each_other_are_refused_before_a_graph_is_opened(
    folder: Path, no_session: list[Path], words: str
) -> None:
    change_manifest(folder, CONTRADICTIONS[words])
    assert words in refusal(folder, SignatureMismatch)
    assert no_session == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("latents", "channels"), 10**9),
        (("latents", "scaling_factor"), 1e999),
        (("sizes", "native"), [[10**6, 10**6]]),
        (("text", "max_length"), 10**9),
        (("text", "pad_token_id"), -1),
        (("face", "adapter", "tokens"), 10**12),
    ],
)
def test_numbers_that_would_take_all_memory_are_refused_by_their_place(
    folder: Path, place: tuple[str, ...], value: Any
) -> None:
    change_manifest(folder, put(*place, value))
    text = (folder / "pack.json").read_text(encoding="utf-8").replace("Infinity", "1e999")
    (folder / "pack.json").write_text(text, encoding="utf-8")
    with pytest.raises(PackInvalid, match=r"pack\.json: " + r"\.".join(place)):
        AvatarEngine.load(folder, provider="cpu")


@pytest.mark.parametrize("steps", [10**12, -1, 10**400, True, "1000"])
def test_a_noise_schedule_of_impossible_length_is_refused(folder: Path, steps: Any) -> None:
    change_manifest(folder, put("scheduler", "num_train_timesteps", steps))
    assert "num_train_timesteps" in refusal(folder, PackInvalid)


def test_every_wrong_field_of_a_manifest_is_named_at_once(folder: Path) -> None:
    change_manifest(folder, put("latents", "channels", 0))
    change_manifest(folder, put("sizes", "policy", "stretch"))
    with pytest.raises(PackInvalid, match=r"latents\.channels: .*; sizes\.policy: "):
        Pack.load(folder)


def test_verify_lists_every_problem_of_a_pack(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "matting.onnx").unlink()
    outward(folder, "/etc/passwd")
    with_node(folder, "RunShell", "com.example")
    change_manifest(folder, put("latents", "channels", 4))
    change_manifest(folder, put("graphs", "face_encoder", "inputs", "aligned_face", "dtype", "float16"))
    said = "\n".join(verify(Pack.read(folder)))
    for words in (
        "tokenizer.json has sha256",
        "matting.onnx is missing",
        "unet.onnx: the weights",
        "com.example:RunShell",
        "latents.channels is 4",
        "face_encoder (face_encoder.onnx): input aligned_face is",
    ):
        assert words in said, words


def test_a_pack_with_a_missing_file_is_refused_by_the_file_s_name(folder: Path) -> None:
    (folder / "unet.onnx").unlink()
    assert "the file unet.onnx is missing" in refusal(folder, MissingGraph)


def test_a_deep_or_doubled_list_of_engines_is_refused(folder: Path) -> None:
    (folder / "engines").mkdir()
    for text in ('{"schema_version": 1, "schema_version": 2}', '{"a": ' + deeper(200_000) + "}", "[1]"):
        (folder / "engines" / "engines.json").write_text(text)
        assert "engines.json" in refusal(folder, PackInvalid)


def engine_entry(folder: Path, **other: Any) -> dict[str, Any]:
    """One of the UNet for this very machine and these very versions, but for what is said otherwise."""
    fits = here("cpu")
    name = Pack.read(folder).sources("unet", "cpu")[0]
    (folder / "engines").mkdir(exist_ok=True)
    (folder / "engines" / "unet.bin").write_bytes(b"an engine")
    file = tiny_pack.file_entry(folder / "engines" / "unet.bin")
    return {
        "role": "unet",
        "provider": "cpu",
        "precision": "fp32",
        "files": [{"file": "unet.bin", "sha256": file["sha256"], "size": file["size"]}],
        "graph": {name: tiny_pack.file_entry(folder / name)["sha256"]},
        "device": fits.device,
        "driver": fits.driver,
        "versions": dict(fits.versions),
        **other,
    }


STALE: dict[str, dict[str, Any]] = {
    "made for the device Another GPU, here is": {"device": "Another GPU"},
    "made for the driver 999.0, here is": {"driver": "999.0"},
    "made with onnxruntime 0.1, here is": {"versions": {"onnxruntime": "0.1"}},
    "the graph was changed since (unet.onnx)": {"graph": {"unet.onnx": "0" * 64}},
}


@pytest.mark.parametrize("words", STALE)
def test_an_engine_for_another_device_version_or_graph_is_refused_by_name_and_may_be_left_aside(
    folder: Path, no_session: list[Path], words: str
) -> None:
    entry = engine_entry(folder, **STALE[words])
    content = {"schema_version": 1, "pack": "tiny", "engines": [entry]}
    (folder / "engines" / "engines.json").write_text(json.dumps(content))
    refused = refusal(folder, EngineStale)
    assert words in refused
    assert f"faceavatar compile {folder} --provider cpu" in refused
    assert "unet.onnx" not in [path.name for path in no_session]
    AvatarEngine.load(folder, provider="cpu", engines="ignore")


def test_an_engine_that_was_changed_is_refused_by_its_hash_and_listed_by_verify(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"schema_version": 1, "pack": "tiny", "engines": [engine_entry(folder)]}
    (folder / "engines" / "engines.json").write_text(json.dumps(content))
    (folder / "engines" / "unet.bin").write_bytes(b"another")
    assert "the engine file unet.bin is not the one that engines.json names" in refusal(folder, HashMismatch)
    assert main(["packs", "verify", str(folder)]) == 6
    assert "the engine file unet.bin is not the one that engines.json names" in capsys.readouterr().out


def test_engines_that_lie_outside_their_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "engines").mkdir()
    entry = {"sha256": "0" * 64, "size": 1}
    for name in ("../unet.onnx", "/etc/passwd", "a/b", ".."):
        engine = {
            "role": "unet",
            "provider": "cpu",
            "precision": "fp32",
            "files": [{"file": name, **entry}],
            "graph": {},
            "device": "x",
            "versions": {},
        }
        content = {"schema_version": 1, "pack": "tiny", "engines": [engine]}
        (folder / "engines" / "engines.json").write_text(json.dumps(content))
        with pytest.raises(PackInvalid, match=r"engines\.json: engines\.0\.files\.0\.file"):
            AvatarEngine.load(folder, provider="cpu")
