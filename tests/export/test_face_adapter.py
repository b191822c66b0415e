"""Which face adapter a file holds, and what is refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from safetensors.torch import save_file

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.checkpoint import Lora, find_source, open_checkpoint
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.face_adapter import face_weights, merge_lora, read_face_adapter
from faceavatar_export.diffusion.options import Options

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.mark.parametrize(
    ("name", "made", "kind", "tokens"),
    [
        ("ip-adapter-faceid_sd15.bin", "faceid", "faceid", 4),
        ("ip-adapter-faceid-plusv2_sd15.bin", "plus", "faceid_plus_v2", 4),
        ("portrait.safetensors", "portrait", "faceid_portrait", 16),
    ],
)
def test_the_kind_is_told_by_keys_and_name(
    sd: Path, tmp_path: Path, name: str, made: str, kind: str, tokens: int
) -> None:
    adapter = read_face_adapter(checkpoints.face_adapter(tmp_path / name, sd, made))
    assert (adapter.kind, adapter.tokens, adapter.embedding_size) == (kind, tokens, 512)


def test_plus_and_plusv2_are_refused_until_one_is_named(sd: Path, tmp_path: Path) -> None:
    path = checkpoints.face_adapter(tmp_path / "ip-adapter-faceid-plus_sd15.bin", sd, "plus")
    with pytest.raises(InvalidRequest, match=r"--face-adapter-kind: got None.*fit both"):
        read_face_adapter(path)
    assert read_face_adapter(path, "faceid_plus").kind == "faceid_plus"
    with pytest.raises(InvalidRequest, match=r"got 'faceid', allowed faceid_plus or faceid_plus_v2"):
        read_face_adapter(path, "faceid")


def test_what_is_no_face_adapter_is_refused(tmp_path: Path) -> None:
    save_file({"image_proj.x": torch.ones(1), "ip_adapter.y": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        PackInvalid, match=r"other\.safetensors: not an IP-Adapter-FaceID file.*proj\.0\.weight"
    ):
        read_face_adapter(tmp_path / "other.safetensors")
    (tmp_path / "noise.bin").write_bytes(b"no pickle")
    with pytest.raises(PackInvalid, match=r"noise\.bin: cannot be read as a face adapter"):
        read_face_adapter(tmp_path / "noise.bin")


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "owned",))

    torch.save({"image_proj": Evil(), "ip_adapter": {}}, tmp_path / "evil.bin")
    with pytest.raises(PackInvalid, match="cannot be read as a face adapter"):
        read_face_adapter(tmp_path / "evil.bin")
    assert not (tmp_path / "owned").exists()


def test_lora_halves_are_merged_into_every_attention(sd: Path, tmp_path: Path) -> None:
    adapter = read_face_adapter(checkpoints.face_adapter(tmp_path / "faceid.bin", sd, "faceid"))
    unet = open_checkpoint(sd).pipeline.unet
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    assert merge_lora(unet, adapter) == 4 * len(unet.attn_processors)
    changed = {name for name, weight in unet.named_parameters() if not torch.equal(weight, before[name])}
    assert all(".attn1.to_" in name or ".attn2.to_" in name for name in changed)
    assert len(changed) == 4 * len(unet.attn_processors)


def test_an_adapter_of_another_family_is_refused(sd: Path, tmp_path: Path) -> None:
    xl = checkpoints.sdxl(tmp_path / "xl")
    adapter = read_face_adapter(checkpoints.face_adapter(tmp_path / "faceid.bin", xl, "faceid"))
    with pytest.raises(PackInvalid, match="made for another family"):
        face_weights(open_checkpoint(sd).pipeline.unet, adapter)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequest, match=r"diffusers' layout, a \.safetensors file, or OWNER/NAME@COMMIT"
    ):
        find_source("nowhere")
    with pytest.raises(InvalidRequest, match="all 40 digits"):
        find_source("someone/model@main")
    with pytest.raises(PackInvalid, match="not a checkpoint folder"):
        open_checkpoint(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(PackInvalid, match="FluxPipeline cannot be exported"):
        open_checkpoint(tmp_path)


def test_a_hub_id_at_a_commit_is_read_from_the_hubs_cache(
    sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--someone--model" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(sd)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_source(f"someone/model@{commit}").resolve() == sd.resolve()


def test_what_an_export_lacks_is_said_before_it_works(sd: Path, tmp_path: Path) -> None:
    plus = checkpoints.face_adapter(tmp_path / "plusv2.bin", sd, "plus")
    taken = Options(str(sd), tmp_path, "pack", "CC0-1.0")
    with pytest.raises(InvalidRequest, match=r"--out: got .*a folder that does not exist yet"):
        export_pack(taken, print)
    blind = Options(str(sd), tmp_path / "pack", "pack", "CC0-1.0", face_adapter=plus)
    with pytest.raises(InvalidRequest, match=r"--image-encoder: got None.*CLIP vision model"):
        export_pack(blind, print)


def test_loras_are_fused_with_their_weights_one_after_the_other(sd: Path, tmp_path: Path) -> None:
    place = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    plain = open_checkpoint(sd).pipeline.unet.get_submodule(place).weight
    width = plain.shape[0]
    down, up = torch.randn(4, width), torch.randn(width, 4)
    save_file(
        {f"unet.{place}.lora_A.weight": down, f"unet.{place}.lora_B.weight": up}, tmp_path / "l.safetensors"
    )
    loras = [Lora(tmp_path / "l.safetensors", 0.5), Lora(tmp_path / "l.safetensors")]
    fused = open_checkpoint(sd, loras).pipeline.unet.get_submodule(place).weight
    assert torch.allclose(fused, plain + 1.5 * up @ down, atol=1e-4)


def test_a_lora_of_another_model_is_refused(sd: Path, tmp_path: Path) -> None:
    save_file({"something.else": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(PackInvalid, match=r"other\.safetensors: cannot be fused as a LoRA"):
        open_checkpoint(sd, [Lora(tmp_path / "other.safetensors")])
