"""The page in a real browser, in front of a real server with the embedded pack."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from live_server import serving
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route, expect, sync_playwright

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.page import page as page_bytes
from faceavatar_cli.http.page import page_headers
from faceavatar_cli.http.settings import Limits, Settings, Token
from faceavatar_cli.http.tokens import hash_secret

PHOTOS = Path(__file__).resolve().parents[1] / "fixtures" / "photos"
SECRET = "a secret of thirty characters."
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DONE = "#stage[data-state=done]"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu", threads=1)


@pytest.fixture(scope="module")
def url(toon: AvatarEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without tokens, for callers on this machine."""
    settings = Settings(outputs=tmp_path_factory.mktemp("outputs"), limits=Limits(per_minute=600))
    with serving(create_app(settings, engines={"toon": toon})) as running:
        yield running


@pytest.fixture
def guarded(toon: AvatarEngine, tmp_path: Path) -> Iterator[str]:
    """A server with a token that may ask once a minute, five times at first."""
    token = Token("tester", hash_secret(SECRET), Limits(per_minute=1))
    settings = Settings(outputs=tmp_path / "outputs", tokens=(token,))
    with serving(create_app(settings, engines={"toon": toon})) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page in a browser that knows nothing yet; what that complains of fails the test."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        # The browser logs every answer of 4xx by itself; the page tells those in its own words.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def open_page(at: str = url, viewport: Any = DESK, **options: Any) -> Page:
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", heard)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(f"{at}/")
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def choose(page: Page, photo: str = "ardern.jpg", **options: str) -> None:
    """Chooses a photo, and radio buttons by name."""
    page.set_input_files("#photo", PHOTOS / photo)
    for name, value in options.items():
        page.locator(f"input[name={name}][value={value}]").check(force=True)


def number(page: Page, **values: object) -> None:
    """Fills fields in, unfolding what they are hidden in."""
    for name, value in values.items():
        if not page.locator(f"#{name}").is_visible():
            page.locator("details", has=page.locator(f"#{name}")).locator("summary").click()
        page.fill(f"#{name}", str(value))


def make(page: Page) -> None:
    page.click("#go")
    page.wait_for_selector(DONE)


def saved(page: Page, index: int = 0) -> tuple[str, NDArray[np.uint8]]:
    """Downloads avatar `index` by its link: the file's name, and the picture."""
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Download avatar {index + 1}", exact=True).click()
    return download.value.suggested_filename, np.asarray(Image.open(download.value.path()), dtype=np.uint8)


def fits(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    axe = Axe()
    assert axe.run(page).response["violations"] == []
    for fold in page.locator("summary").all():
        fold.click()
    choose(page, background="colour", words="own")
    page.select_option("#size", "own")
    number(page, batch=9)
    page.click("#go")
    expect(page.locator("#batch-wrong")).to_be_visible()
    assert axe.run(page).response["violations"] == []
    number(page, batch=2)
    page.fill("#prompt", "comic ink portrait of a man")
    make(page)
    assert axe.run(page).response["violations"] == []


def test_a_phone_360_pixels_wide_never_scrolls_sideways(visit: Open) -> None:
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    assert fits(page)
    for fold in page.locator("summary").all():
        fold.click()
    choose(page, background="colour")
    page.select_option("#size", "own")
    assert fits(page)
    number(page, batch=0, seed=-1)
    page.click("#go")
    expect(page.locator("#seed-wrong")).to_be_visible()
    assert fits(page)
    number(page, batch=2, seed=4294967294)
    page.click("#go")
    page.wait_for_selector("#shelf canvas, #shelf img")
    assert fits(page)
    page.wait_for_selector(DONE)
    assert fits(page)
    edges = page.locator("#shelf li").evaluate_all(
        "items => items.map(item => item.getBoundingClientRect().right)"
    )
    assert max(edges) <= 360


def test_a_wide_screen_puts_the_avatars_beside_the_form(visit: Open) -> None:
    page = visit()
    form, stage = (page.locator(part).bounding_box() for part in ("#form", "#stage"))
    assert form
    assert stage
    assert stage["x"] >= form["x"] + form["width"]
    assert abs(stage["y"] - form["y"]) < 2


def test_the_page_takes_the_colours_that_the_system_prefers(visit: Open) -> None:
    grounds = {
        scheme: visit(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    light, dark = (sum(map(int, re.findall(r"\d+", grounds[scheme]))) for scheme in ("light", "dark"))
    assert light > 600
    assert dark < 150


def test_nothing_moves_for_those_who_ask_for_that(visit: Open) -> None:
    for motion, moving in (("no-preference", True), ("reduce", False)):
        page = visit(reduced_motion=motion)
        choose(page)
        page.evaluate("frames({batch: 1}); state('working')")
        animated = page.evaluate("document.getAnimations().length")
        assert bool(animated) is moving, motion


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


def test_a_task_can_be_cancelled_between_two_steps(visit: Open) -> None:
    page = visit()
    choose(page)
    number(page, batch=2, num_inference_steps=50)
    with page.expect_response("**/getImageToImage") as asked:
        page.click("#go")
    expect(page.locator("#doing")).to_have_text(re.compile("^Step [1-9]"), timeout=30_000)
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.click("#cancel")
    page.wait_for_selector("#stage[data-state=idle]")
    expect(page.locator("#live")).to_have_text("Cancelled.")
    expect(page.locator("#go")).to_be_focused()
    task = page.request.get(f"{page.url}tasks/{asked.value.json()['task_id']}").json()
    assert task["status"] == "cancelled"
    assert task["step"] < 50


def test_a_broken_connection_is_taken_up_again(visit: Open) -> None:
    page = visit()
    choose(page)
    number(page, batch=1)
    tries: list[str] = []

    def first_breaks(route: Route) -> None:
        tries.append(route.request.url)
        route.abort("connectionreset") if len(tries) == 1 else route.continue_()

    page.route("**/events", first_breaks)
    make(page)
    assert len(tries) == 2


def test_a_page_that_is_loaded_anew_finds_its_task_again(visit: Open) -> None:
    page = visit()
    choose(page)
    number(page, num_inference_steps=14, batch=2, seed=5)
    page.click("#go")
    expect(page.locator("#doing")).to_have_text(re.compile("^Step [1-9]"), timeout=30_000)
    page.reload()
    page.wait_for_selector(DONE)
    assert saved(page, 1)[0] == "avatar-6.png"
    assert page.evaluate("sessionStorage.getItem('task')") is None


def test_a_place_in_the_queue_is_told(visit: Open) -> None:
    page = visit()
    page.evaluate("frames({batch: 1}); state('working'); progress({status: 'queued', queue_position: 3})")
    expect(page.locator("#doing")).to_have_text("In the queue: 3 ahead of you")
    expect(page.locator("#live")).to_have_text("In the queue: 3 ahead of you")
    page.evaluate("progress({status: 'queued', queue_position: 0})")
    expect(page.locator("#doing")).to_have_text("In the queue: you are next")


def test_the_request_copied_as_curl_runs_and_holds_neither_token_nor_photo(
    visit: Open, guarded: str, tmp_path: Path
) -> None:
    page = visit(at=guarded, permissions=["clipboard-read", "clipboard-write"])
    choose(page, "obama.jpg", words="own", background="clear")
    page.fill("#prompt", "it's a man's portrait; $HOME `id` @here")
    number(page, batch=1, seed=3, token=SECRET)
    page.click("#curl")
    expect(page.locator("#curl")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert SECRET not in command
    assert "$TOKEN" in command
    assert len(command) < 1000
    shutil.copy(PHOTOS / "obama.jpg", tmp_path)
    ran = subprocess.run(
        ["sh", "-c", command.replace("curl ", "curl -sS --max-time 60 ", 1)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TOKEN": SECRET},
        capture_output=True,
        text=True,
        timeout=90,
    )
    answer = json.loads(ran.stdout)
    assert answer["status"] == "completed", answer
    assert answer["input"]["prompt"] == "it's a man's portrait; $HOME `id` @here"
    assert (answer["input"]["seed"], answer["input"]["remove_background"]) == (3, True)


def test_a_request_with_an_address_is_copied_as_json(visit: Open) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    page.fill("#address", "https://example.com/me.jpg?a='b'")
    page.click("#curl")
    expect(page.locator("#curl")).to_have_text("Copied")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", ""))
    assert "Authorization" not in " ".join(words)
    assert json.loads(words[words.index("-d") + 1]) == {
        "image": "https://example.com/me.jpg?a='b'",
        "gender": "person",
        "batch": 4,
        "width": 512,
        "height": 512,
    }


def test_the_policy_names_the_one_script_and_style_and_lets_no_other_run(
    visit: Open, browser: Browser
) -> None:
    policy = page_headers()["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page_bytes().decode(), re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    page = visit()
    served = page.request.get(page.url)
    assert served.headers["content-security-policy"] == policy
    assert served.headers["content-type"] == "text/html; charset=utf-8"
    stranger = browser.new_context()  # not through `visit`: the browser is to complain here
    foreign = stranger.new_page()
    foreign.goto(page.url)
    foreign.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.intruder = true";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.intruder = true'>");
        }"""
    )
    foreign.wait_for_timeout(200)
    assert foreign.evaluate("window.intruder") is None
    stranger.close()


def test_the_page_asks_nobody_but_its_own_server(visit: Open, url: str) -> None:
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    choose(page)
    number(page, batch=1)
    make(page)
    assert {address for address in asked if not address.startswith((url, "blob:", "data:"))} == set()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//[^"')\s]+""", page_bytes().decode())
    assert outside == []


def test_the_page_works_with_the_command_as_it_comes(visit: Open, tmp_path: Path) -> None:
    """`faceavatar serve` with its embedded queue and worker, both in processes of their own."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("FACEAVATAR_")}
    settings["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "faceavatar_cli", "serve", "--port", "0", "--provider", "cpu"]
    command += ["--threads", "1", "--state", str(tmp_path / "state")]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, env=settings, stdout=log, stderr=log) as server,
    ):
        try:
            page = visit(at=ready(tmp_path / "log", server))
            choose(page)
            number(page, batch=2, seed=11)
            make(page)
            assert saved(page, 1)[0] == "avatar-12.png"
        finally:
            server.terminate()


def ready(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Where a server says that it serves, once its packs are loaded and its worker is there."""
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        found = re.search(r"faceavatar serves on (http://\S+)", log.read_text())
        with suppress(httpx.TransportError):
            if found and httpx.get(f"{found[1]}/readyz").is_success:
                return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())
