"""Whatever somebody hands in becomes uint8 RGB of at most 1536x1536, or is refused with a reason."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from faceavatar import ImageError, image


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# Pillow tells of damage in metadata by a warning and reads on.
DAMAGED_WARNINGS = pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")


def quarters() -> NDArray[np.uint8]:
    """Red, green over blue, white: every turn and flip of it looks different."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :30] = (255, 0, 0)
    picture[:20, 30:] = (0, 255, 0)
    picture[20:, :30] = (0, 0, 255)
    picture[20:, 30:] = 255
    return picture


def test_an_array_comes_back_as_it_is() -> None:
    assert np.array_equal(image.load_image(quarters()), quarters())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP", "AVIF", "JPEG2000", "JPEG"])
def test_every_common_format_is_read_to_the_same_colours(kind: str) -> None:
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
        "JPEG": {"quality": 100},
    }.get(kind, {})
    loaded = image.load_image(encoded(Image.fromarray(quarters()), kind, **options))
    assert (loaded.shape, loaded.dtype) == ((40, 60, 3), np.uint8)
    centres = loaded[10:40:20, 15:60:30].astype(int)
    assert np.abs(centres - quarters()[10:40:20, 15:60:30]).max() <= 3


def test_a_path_a_string_bytes_a_pil_image_and_a_data_uri_give_the_same_picture(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(quarters()))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    for source in (path, str(path), data, Image.fromarray(quarters()), uri, uri.replace("+", "%2B")):
        assert np.array_equal(image.load_image(source), quarters())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_is_set_upright_by_its_exif_orientation(orientation: int, kind: str) -> None:
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](quarters())))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = image.load_image(encoded(stored, kind, exif=exif)).astype(int)
    assert loaded.shape == (40, 60, 3)
    assert np.abs(loaded[10:40:20, 15:60:30] - quarters()[10:40:20, 15:60:30]).max() <= 20


@DAMAGED_WARNINGS
def test_a_damaged_exif_block_is_ignored() -> None:
    data = encoded(Image.fromarray(quarters()), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert np.array_equal(image.load_image(data), quarters())


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_turns_white_and_half_transparent_half_white(mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    loaded = image.load_image(picture.convert(mode))
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert abs(int(loaded[0, 1, 0]) - 127) <= 1


def test_a_palette_with_a_transparent_colour_is_composited_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    loaded = image.load_image(encoded(picture, "PNG", transparency=0))
    assert loaded.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_truecolour_png_with_a_transparent_colour_is_composited_on_white() -> None:
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (4, 5, 6))
    loaded = image.load_image(encoded(picture, "PNG", transparency=(1, 2, 3)))
    assert loaded.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_pictures_become_rgb(mode: str) -> None:
    loaded = image.load_image(encoded(Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)))
    assert loaded.shape == (2, 3, 3)
    assert (loaded == 255).all()


def test_cmyk_becomes_rgb() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    loaded = image.load_image(encoded(picture, "JPEG", quality=100))
    assert loaded[8, 8, 0] > 200
    assert loaded[8, 8, 1:].max() < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    loaded = image.load_image(encoded(Image.fromarray(ramp), kind))
    assert np.abs(loaded[..., 0].astype(int) - np.arange(256).reshape(16, 16)).max() <= 1


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    assert image.load_image(encoded(Image.fromarray(np.full((4, 4), 200, np.uint16)))).max() <= 1


@pytest.mark.parametrize(("white", "expected"), [(1.0, 128), (255.0, 128)])
def test_float_samples_are_scaled_by_what_they_hold(white: float, expected: int) -> None:
    samples = np.full((2, 2), white / 2, np.float32)
    samples[0, 0] = white
    loaded = image.load_image(Image.fromarray(samples))
    assert loaded[0, 0, 0] == 255
    assert abs(int(loaded[1, 1, 0]) - expected) <= 1


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert image.load_image(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1536, 1536), (1536, 1536)),
        ((1537, 10), (1536, 10)),
        ((3000, 2000), (1536, 1024)),
        ((100, 4608), (33, 1536)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_larger_than_1536_shrinks_to_fit_with_its_aspect(
    size: tuple[int, int], expected: tuple[int, int], kind: str
) -> None:
    loaded = image.load_image(encoded(Image.new("RGB", size, (10, 20, 30)), kind))
    assert loaded.shape == (expected[1], expected[0], 3)
    assert np.abs(loaded.astype(int) - (10, 20, 30)).max() <= 2


def test_a_large_photo_lying_on_its_side_is_shrunk_and_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = image.load_image(encoded(Image.new("RGB", (3072, 2048)), "JPEG", exif=exif))
    assert loaded.shape == (1536, 1024, 3)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"], ids=["empty", "text", "eps", "svg"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="no picture, expected JPEG, PNG"):
        image.load_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_cut_short_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ImageError):
        image.load_image(data[: len(data) // 2])


@DAMAGED_WARNINGS
@given(
    st.binary(max_size=200),
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    st.integers(0, 300),
)
def test_a_corrupted_picture_is_read_or_refused_and_nothing_else(noise: bytes, kind: str, at: int) -> None:
    data = bytearray(encoded(Image.fromarray(quarters()), kind))
    data[at : at + len(noise)] = noise
    try:
        loaded = image.load_image(bytes(data))
    except ImageError:
        return
    assert loaded.dtype == np.uint8
    assert max(loaded.shape[:2]) <= 1536


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused_by_its_size(side: int) -> None:
    bomb = encoded(Image.new("1", (side, side)))
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="shrink it first"):
        image.load_image(bomb)


def test_a_file_larger_than_64_mb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(ImageError, match="more than 64 MB"):
        image.load_image(path)


def test_a_missing_file_and_a_folder_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        image.load_image(tmp_path / "a.png")
    with pytest.raises(ImageError, match="directory"):
        image.load_image(str(tmp_path))


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64", "data:image/png;base64,@@@@", "data:,hello", "data:;base64,aGVsbG8="]
)
def test_a_data_uri_without_a_picture_is_refused(uri: str) -> None:
    with pytest.raises(ImageError):
        image.load_image(uri)


def test_an_array_of_another_type_is_refused() -> None:
    with pytest.raises(ImageError, match=r"float64 \(2, 2, 3\), expected uint8"):
        image.load_image(np.zeros((2, 2, 3)))  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(40, 60), (17, 31), (80, 20), (200, 300)])
def test_resize_gives_exactly_the_size_asked_for_and_keeps_a_plain_colour(
    size: tuple[int, int], channels: int
) -> None:
    resized = image.resize(np.full((40, 60, channels), 200, np.uint8), *size)
    assert resized.shape == (*size, channels)
    assert (resized == 200).all()


def test_resize_filters_before_it_samples() -> None:
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    small = image.resize(np.repeat(checker[..., None], 3, 2).astype(np.uint8), 16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_the_colour_under_what_is_clear_does_not_bleed_when_resized() -> None:
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:, :4] = (255, 0, 0, 255)
    picture[:, 4:] = (0, 255, 0, 0)
    resized = image.resize(picture, 5, 5)
    assert resized[..., 1][resized[..., 3] > 0].max() == 0


@pytest.mark.parametrize("policy", ["extend", "cover"])
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1536, 256), (256, 1536), (511, 257), (333, 1001)])
def test_fit_to_gives_exactly_the_size_asked_for(policy: Any, size: tuple[int, int]) -> None:
    assert image.fit_to(np.zeros((512, 512, 3), np.uint8), *size, policy).shape == (*size, 3)


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 80),
    st.sampled_from(["extend", "cover"]),
)
def test_fit_to_holds_for_every_shape(h: int, w: int, height: int, width: int, policy: Any) -> None:
    fitted = image.fit_to(np.full((h, w, 3), 9, np.uint8), height, width, policy)
    assert fitted.shape == (height, width, 3)
    assert (fitted == 9).all()


def test_extend_repeats_the_border_left_and_right_equally() -> None:
    wide = image.fit_to(quarters(), 40, 100, "extend")
    assert np.array_equal(wide[:, 20:80], quarters())
    assert (wide[:, :20] == quarters()[:, :1]).all()
    assert (wide[:, 80:] == quarters()[:, -1:]).all()


def test_extend_puts_all_the_height_at_the_top_so_that_the_body_touches_the_lower_edge() -> None:
    tall = image.fit_to(quarters(), 90, 60, "extend")
    assert np.array_equal(tall[50:], quarters())
    assert (tall[:50] == quarters()[:1]).all()


def test_above_a_hat_that_touches_the_border_only_the_background_goes_on() -> None:
    picture = np.full((64, 64, 3), (40, 90, 200), np.uint8)
    picture[:, :32] = (44, 90, 200)
    picture[:20, 24:40] = (200, 30, 30)
    tall = image.fit_to(picture, 128, 64, "extend")
    assert np.array_equal(tall[64:], picture)
    assert np.abs(tall[:64].astype(int) - (42, 90, 200)).max() <= 3


def test_stripes_go_on_above_as_they_are() -> None:
    striped = np.zeros((64, 64, 3), np.uint8)
    striped[:, ::2] = 255
    assert (image.fit_to(striped, 100, 64, "extend") == striped[:1]).all()


def test_cover_crops_the_centre() -> None:
    assert np.array_equal(image.fit_to(quarters(), 40, 20, "cover"), quarters()[:, 20:40])


def test_to_nchw_and_to_uint8_are_each_other_s_inverse() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    planes = image.to_nchw(batch, 127.5, 127.5)
    assert (planes.shape, planes.dtype) == ((2, 3, 5, 7), np.float32)
    assert (planes.min() >= -1, planes.max() <= 1) == (True, True)
    assert np.array_equal(image.to_uint8(planes), batch)


def test_to_nchw_takes_a_mean_and_a_deviation_a_channel_and_a_single_picture() -> None:
    planes = image.to_nchw(np.full((2, 2, 3), 10, np.uint8), [1, 2, 3], [1, 2, 7])
    assert planes[0, :, 0, 0].tolist() == [9, 4, 1]


def test_to_uint8_clips_what_lies_beyond() -> None:
    planes = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 0.5], np.float32).reshape(1, 3, 1, 2)
    assert image.to_uint8(planes).reshape(-1).tolist() == [0, 128, 255, 0, 255, 191]


def test_png_metadata_of_any_script_comes_back() -> None:
    data = image.encode_png(quarters(), {"prompt": "žluťoučký 🐎", "seed": 3})
    with Image.open(io.BytesIO(data)) as picture:
        assert np.array_equal(np.asarray(picture), quarters())
        assert "faceavatar" in picture.info
    assert "faceavatar" not in Image.open(io.BytesIO(image.encode_png(quarters()))).info
