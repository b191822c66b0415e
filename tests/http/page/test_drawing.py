"""The page draws: what it shows and hands out is what the engine draws, and every way to ask is enough."""

from __future__ import annotations

import base64
import io
import re
import zipfile

import numpy as np
import pytest
from page_rig import DONE, PHOTOS, Open, choose, make, number, saved
from PIL import Image
from playwright.sync_api import expect

from faceavatar import AvatarEngine, AvatarRequest


def test_a_photo_becomes_the_very_avatars_that_the_engine_draws(visit: Open, toon: AvatarEngine) -> None:
    page = visit()
    choose(page, gender="woman")
    number(page, batch=2, seed=7)
    make(page)
    expect(page.locator("#summary")).to_have_text(re.compile(r"2 avatars in \d+\.\d s"))
    expect(page.locator("#live")).to_have_text("2 avatars are ready.")
    drawn = toon.generate(AvatarRequest(image=PHOTOS / "ardern.jpg", gender="woman", batch=2, seed=7))
    for index, expected in enumerate(drawn.images):
        name, found = saved(page, index)
        assert name == f"avatar-{7 + index}.png"
        np.testing.assert_array_equal(found, expected)


def test_steps_and_previews_are_shown_while_it_draws(visit: Open) -> None:
    page = visit()
    choose(page)
    number(page, batch=1, num_inference_steps=12)
    page.click("#go")
    expect(page.locator("#doing")).to_have_text(re.compile(r"^Step [1-9]\d* of 12$"), timeout=30_000)
    preview = page.locator("#shelf .frame img")
    expect(preview).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    assert page.evaluate("document.getElementById('progress').max") == 12
    assert page.is_disabled("#go")
    page.wait_for_selector(DONE)
    assert page.is_enabled("#go")


def test_words_of_ones_own_replace_the_default_prompt(visit: Open) -> None:
    page = visit()
    choose(page, words="own")
    page.fill("#prompt", "storybook illustration of a woman, teal background")
    number(page, batch=1, negative_prompt="glasses")
    with page.expect_response("**/getImageToImage") as asked:
        page.press("#prompt", "Control+Enter")
    told = asked.value.json()["input"]
    assert told["prompt"] == "storybook illustration of a woman, teal background"
    assert told["negative_prompt"] == "glasses"
    assert "gender" not in told
    page.wait_for_selector(DONE)


def test_a_transparent_avatar_lies_on_a_checkerboard(visit: Open) -> None:
    page = visit()
    choose(page, background="clear")
    number(page, batch=1)
    make(page)
    assert "conic-gradient" in page.locator(".frame").evaluate("frame => getComputedStyle(frame).background")
    _, found = saved(page)
    assert found.shape == (512, 512, 4)
    assert {0, 255} <= set(np.unique(found[..., 3]))


def test_a_colour_goes_behind_the_avatar_and_a_size_of_ones_own_is_met(visit: Open) -> None:
    page = visit()
    choose(page, background="colour")
    page.fill("#bg_color", "#1240e0")
    expect(page.locator("#picker")).to_have_value("#1240e0")
    page.select_option("#size", "own")
    number(page, batch=1, width=400, height=600)
    make(page)
    _, found = saved(page)
    assert found.shape == (600, 400, 3)
    np.testing.assert_allclose(found[2, 2], (0x12, 0x40, 0xE0), atol=15)  # a little of the drawing is left


def test_all_avatars_come_in_one_zip_that_other_programs_read(visit: Open) -> None:
    page = visit()
    choose(page)
    number(page, batch=3, seed=4294967295)
    make(page)
    with page.expect_download() as download:
        page.click("#all")
    assert download.value.suggested_filename == "avatars.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["avatar-4294967295.png", "avatar-0.png", "avatar-1.png"]
        for index, entry in enumerate(archive.namelist()):
            inside = np.asarray(Image.open(io.BytesIO(archive.read(entry))))
            np.testing.assert_array_equal(inside, saved(page, index)[1])


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(visit: Open, way: str) -> None:
    page = visit()
    data = base64.b64encode((PHOTOS / "obama.jpg").read_bytes()).decode()
    page.evaluate(
        """([way, data]) => {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "obama.jpg", {type: "image/jpeg"}));
            const options = {bubbles: true, cancelable: true};
            const event = way === "drop" ? new DragEvent("drop", {...options, dataTransfer: carried})
                                         : new ClipboardEvent("paste", {...options, clipboardData: carried});
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [way, data],
    )
    expect(page.locator("#chosen-name")).to_have_text("obama.jpg")
    expect(page.locator("#shown")).not_to_have_js_property("naturalWidth", 0)
    number(page, batch=1)
    make(page)
    assert saved(page)[1].std() > 20


def test_the_keyboard_alone_is_enough(visit: Open) -> None:
    page = visit()
    keys = page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
                ring = page.evaluate(
                    """() => {
                        const own = document.activeElement;
                        const shown = [own, own.nextElementSibling, own.closest(".drop")].filter(Boolean);
                        return shown.some(each => getComputedStyle(each).outlineStyle === "solid");
                    }"""
                )
                assert ring, f"where the focus is at {selector} cannot be seen"
                return
        raise AssertionError(f"Tab never comes to {selector}")

    # Listened for from the start: the browser has to know of it before the key is pressed.
    page.on("filechooser", lambda chooser: chooser.set_files(PHOTOS / "macron.jpg"))
    tab_to("#photo")
    keys.press("Enter")
    expect(page.locator("#chosen-name")).to_have_text("macron.jpg")
    tab_to("[name=gender]")
    keys.press("ArrowLeft")  # from person to man
    tab_to("#batch")
    keys.press("Control+A")
    keys.type("1")
    tab_to("#go")
    with page.expect_response("**/getImageToImage") as asked:
        keys.press("Enter")
    assert asked.value.json()["input"]["gender"] == "man"
    page.wait_for_selector(DONE)
    tab_to("#shelf a")
    with page.expect_download() as download:
        keys.press("Enter")
    assert np.asarray(Image.open(download.value.path())).shape == (512, 512, 3)
