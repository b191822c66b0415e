"""What is wrong is told beside what it is about, by the page or by the server, and tokens are never shown."""

from __future__ import annotations

import re
from pathlib import Path

from live_server import SECRET
from page_rig import Open, choose, make, number, saved
from PIL import Image
from playwright.sync_api import expect


def test_what_is_wrong_with_the_form_is_told_beside_it_before_anything_is_sent(visit: Open) -> None:
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    number(page, batch=12, guidance_scale=0)
    page.click("#go")
    expect(page.locator("#image-wrong")).to_have_text("choose a photo, or give its address")
    expect(page.locator("#batch-wrong")).to_have_text("a whole number from 1 to 8")
    expect(page.locator("#guidance_scale-wrong")).to_have_text("a number from 1 to 30")
    expect(page.locator("#batch")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#photo")).to_be_focused()
    expect(page.locator("#said")).to_have_text("3 fields need a look.")
    number(page, batch=2)
    expect(page.locator("#batch-wrong")).to_be_hidden()
    assert sent == []


def test_a_photo_without_a_face_is_told_beside_the_photo(visit: Open, tmp_path: Path) -> None:
    page = visit()
    plain = tmp_path / "plain.png"
    Image.new("RGB", (300, 300), "teal").save(plain)
    page.set_input_files("#photo", plain)
    page.click("#go")
    expect(page.locator("#image-wrong")).to_contain_text("no face")
    expect(page.locator("#photo")).to_be_focused()
    expect(page.locator("#drop")).to_have_attribute("data-wrong", "")
    choose(page)
    expect(page.locator("#image-wrong")).to_be_hidden()


def test_a_file_that_is_no_picture_and_an_address_that_is_refused_are_told_there_too(
    visit: Open, tmp_path: Path
) -> None:
    page = visit()
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    page.set_input_files("#photo", broken)
    page.click("#go")
    expect(page.locator("#image-wrong")).to_contain_text("no picture")
    page.click("#remove")
    page.fill("#address", "http://127.0.0.1:9/me.jpg")
    page.click("#go")
    expect(page.locator("#image-wrong")).to_contain_text("only from public addresses")
    expect(page.locator("#address")).to_be_focused()


def test_what_the_server_refuses_is_told_beside_the_field_that_it_names(visit: Open) -> None:
    page = visit()
    choose(page)
    page.evaluate("document.getElementById('seed').max = ''")  # a page that is older than its server
    number(page, seed=4294967296)
    page.click("#go")
    expect(page.locator("#seed-wrong")).to_have_text(
        "got 4294967296; allowed: a whole number 0..4294967295 or null"
    )
    expect(page.locator("#seed")).to_be_focused()


def test_a_token_is_asked_for_kept_in_the_tab_and_never_shown(visit: Open, guarded: str) -> None:
    page = visit(at=guarded)
    choose(page)
    number(page, batch=1)
    page.click("#go")
    expect(page.locator("#token-wrong")).to_contain_text("a known token is needed")
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(SECRET)
    expect(page.locator("#access-state")).to_have_text("with a token")
    make(page)
    assert saved(page)[1].shape == (512, 512, 3)
    assert page.locator("#token").get_attribute("type") == "password"
    assert page.evaluate("[sessionStorage.token, localStorage.length, document.cookie, location.href]") == [
        SECRET,
        0,
        "",
        f"{guarded}/",
    ]
    page.reload()
    expect(page.locator("#token")).to_have_value(SECRET)
    page.locator("#access summary").click()
    page.fill("#token", "")
    assert page.evaluate("sessionStorage.getItem('token')") is None


def test_a_token_that_asks_too_often_is_told_when_to_come_again(visit: Open, guarded: str) -> None:
    page = visit(at=guarded)
    page.evaluate("token => sessionStorage.setItem('token', token)", SECRET)
    page.reload()
    choose(page)
    number(page, batch=1)
    for _ in range(5):
        page.request.post(f"{page.url}getImageToImage", headers={"Authorization": f"Bearer {SECRET}"})
    page.click("#go")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Too many requests just now")
    expect(alert).to_have_text(re.compile(r"try again in \d+ s"))


def test_a_server_that_is_gone_is_told(visit: Open) -> None:
    page = visit()
    choose(page)
    page.route("**/getImageToImage", lambda route: route.abort("connectionrefused"))
    page.click("#go")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    assert page.is_enabled("#go")
