"""The page is there for everybody: read by machines, on phones, in the colours and the calm preferred."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from page_rig import DONE, PHONE, Open, choose, fits, make, number
from playwright.sync_api import expect


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
