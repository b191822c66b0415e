"""A pack's graphs in the rooms that run them: some opened with the engine, the others when they
are first needed.

Knows which graph belongs to which room; does not know what a request is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

from faceavatar.backends import DeviceSession, Session
from faceavatar.look import FACE_ROLES, FaceReader
from faceavatar.matting import CutOut
from faceavatar.opening import Later, Opening
from faceavatar.text import TextEncoder, TextEncoders, open_tokenizer
from faceavatar.unet import StepCache, StepUNet, UNet
from faceavatar.vae import TiledVaeDecoder, VaeDecoder, VaeEncoder

TILE_ROLES = frozenset({"vae_decoder_low", "vae_decoder_tile"})
_LAZY_ROLES = TILE_ROLES | frozenset(
    {"matting", "vae_encoder", "vae_decoder", "unet", "unet_step", "unet_shallow"}
)


class Nets:
    """An opened pack's: `faces`, `text`, `unet`, `vae` are there at once, the others are asked for.

    Raises what Opening.open raises, each method of what it opens. May be used from many threads.
    """

    def __init__(self, opening: Opening) -> None:
        pack, manifest = opening.pack, opening.pack.manifest
        self._opening = opening
        wanted = {*manifest.graphs} - _LAZY_ROLES | {opening.net}
        eager = sorted(wanted, key=lambda role: role != opening.net)  # the longest first
        with ThreadPoolExecutor() as pool:  # opening a graph is optimising it, outside Python's lock
            opened = {role: pool.submit(_open, opening, role) for role in eager}
            tokenizer = pool.submit(open_tokenizer, pack.file(manifest.text.tokenizer))
            seeing = {role: opened[role].result() for role in FACE_ROLES if role in opened}
            self.faces = FaceReader(pack, seeing, opening.provider, opening.threads)
            sessions = {role: future.result() for role, future in opened.items()}
        first = TextEncoder(sessions["text_encoder"], tokenizer.result(), manifest.text)
        second = sessions.get("text_encoder_2")
        pad = manifest.text.pad_token_id_2
        self.text = TextEncoders(
            first,
            None if second is None else TextEncoder(second, tokenizer.result(), manifest.text, pad),
            manifest.text,
        )
        self.unet = _net(opening, sessions[opening.net])
        # The steps come first: whoever draws at once does not wait for what their end needs.
        self._decoder = Later(lambda: opening.guarded("vae_decoder"))
        self.vae = VaeDecoder(self._decoder, manifest.latents)
        self._cutters: dict[str, CutOut] = {}
        self._encoder: VaeEncoder | None = None
        self._shallow: Session | None = None
        self._tiles: TiledVaeDecoder | None = None
        self._lock = Lock()

    def wait(self) -> None:
        """Returns once the decoder, which opens in the background, is open."""
        self._decoder.wait()

    def encoder(self) -> VaeEncoder:
        """The VAE's encoder."""
        with self._lock:
            if self._encoder is None:
                session = self._opening.guarded("vae_encoder")
                self._encoder = VaeEncoder(session, self._opening.pack.manifest.latents)
            return self._encoder

    def tiles(self) -> TiledVaeDecoder:
        """The decoder in two graphs."""
        with self._lock:
            if self._tiles is None:
                low, tile = (self._opening.guarded(f"vae_decoder_{part}") for part in ("low", "tile"))
                self._tiles = TiledVaeDecoder(low, tile, self._opening.pack.manifest.latents)
            return self._tiles

    def saving(self, unet: UNet, step_cache: int) -> UNet | StepCache:
        """What a run denoises with."""
        if step_cache == 1:
            return unet
        with self._lock:
            if self._shallow is None:
                self._shallow = self._opening.guarded("unet_shallow")
        return StepCache(unet, self._shallow, step_cache)

    def cutter(self, net: str) -> CutOut:
        """The cut-out stage with the pack's net ("pack") or the one for photos ("photo")."""
        with self._lock:
            if net not in self._cutters:
                photos, opening = net == "photo", self._opening
                self._cutters[net] = (
                    CutOut.for_photos(opening.provider, opening.threads) if photos else CutOut.of(opening)
                )
            return self._cutters[net]


def _open(opening: Opening, role: str) -> Session:
    """The loop on a device watches its own steps, since they are no runs of `run`."""
    return opening.open(role) if role == "unet_step" else opening.guarded(role)


def _net(opening: Opening, session: Session) -> UNet | StepUNet:
    if not opening.device_loop:
        return UNet(session)
    assert isinstance(session, DeviceSession)  # of all providers openvino alone has none, and was refused
    exactly = partial(opening.pack.open_fp32, "unet", opening.provider, opening.threads)
    return StepUNet(session, exactly)
