"""Tasks are cancelled, found again, copied as a request; the page asks nobody but its own server."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from live_server import SECRET
from page_rig import DONE, PHOTOS, Open, choose, make, number, saved
from playwright.sync_api import Browser, Route, expect

from faceavatar_cli.http.page import page as page_bytes
from faceavatar_cli.http.page import page_headers


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
