"""The toon pack's UNet and noise schedule: sizes in one place, the same for training, sampling and export."""

from __future__ import annotations

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceavatar_export.face_attention import FaceProjection, FaceUNet
from faceavatar_export.toon.autoencoder import LATENT_CHANNELS
from faceavatar_export.toon.identity import EMBEDDING_SIZE
from faceavatar_export.toon.text_encoder import CONTEXT

FACE_TOKENS = 4
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}


def make_unet() -> FaceUNet:
    """The UNet, untrained: 8x8 grid at 160 channels with attention, 4x4 at 256."""
    return FaceUNet(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(160, 256),
            layers_per_block=1,
            cross_attention_dim=CONTEXT,
            attention_head_dim=(5, 8),  # diffusers reads this as the number of heads: 32 channels each
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            time_cond_proj_dim=FACE_TOKENS * CONTEXT,
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )
    )


def make_projection() -> FaceProjection:
    """The face adapter's projection, untrained."""
    return FaceProjection(EMBEDDING_SIZE, 256, FACE_TOKENS, CONTEXT)


def make_schedule() -> DDIMScheduler:
    """diffusers' DDIM with the pack's schedule: training adds noise with it, sheets are sampled with it."""
    return DDIMScheduler(**SCHEDULE, set_alpha_to_one=True, clip_sample=False)
