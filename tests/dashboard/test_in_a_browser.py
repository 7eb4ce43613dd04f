"""The dashboard in a real browser: budget, click, detail, link, files, and both themes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def heading(page: Page, words: str) -> Locator:
    return page.get_by_role("heading", name=words)


def asked(page: Page) -> dict[str, str]:
    """What the URL says."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(page.url).query).items()}


def click_point(page: Page, number: int) -> None:
    """Click the middle of a trial's point, as a person does."""
    place = page.evaluate(
        """number => {
            const plot = document.querySelector('.js-plotly-plot');
            for (const trace of plot._fullData) {
                const i = Array.from(trace.customdata || []).indexOf(number);
                if (i < 0) continue;
                const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
                const {xaxis, yaxis} = plot._fullLayout;
                return [box.x + xaxis.d2p(trace.x[i]), box.y + yaxis.d2p(trace.y[i])];
            }
        }""",
        number,
    )
    page.mouse.move(*place)
    page.wait_for_timeout(300)
    page.mouse.click(*place)


def look_at_the_files(page: Page) -> None:
    """What the download buttons give, with the budget at 0.1 ms."""
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    with Path(download.value.path()).open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    assert {number: row["standing"] for number, row in rows.items()} == {
        "0": "on the front",
        "1": "on the front",
        "2": "over a limit",
        "3": "over a limit",
        "4": "over a limit",
    }
    with page.expect_download() as download:
        page.get_by_role("button", name="Chart as HTML", exact=True).click()
    assert "Plotly.newPlot" in Path(download.value.path()).read_text()


def test_budget_click_detail_link_and_files(served: str, page: Page, sms: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=90_000)
    outside: list[str] = []
    page.on("request", lambda request: None if "127.0.0.1" in request.url else outside.append(request.url))
    page.goto(served)
    expect(heading(page, "Best: trial 2, textcnn, offline")).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer .points path.point")).not_to_have_count(0)
    expect(page.locator(".js-plotly-plot")).to_contain_text("latency, p90 (ms, log)")
    assert asked(page) == {"study": "sms"}

    budget = page.get_by_label("Budget (ms, p90)", exact=True)
    budget.fill("0.1")
    budget.press("Enter")
    expect(heading(page, "Best within the budget: trial 1, bag, offline")).to_be_visible()

    click_point(page, 3)
    expect(heading(page, "Picked: trial 3, textcnn, none")).to_be_visible()
    assert asked(page) == {"study": "sms", "within": "0.1", "trial": "3"}

    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(heading(page, "Picked: trial 3, textcnn, none")).to_be_visible()
    expect(page.get_by_label("Budget (ms, p90)", exact=True)).to_have_value("0.100")

    look_at_the_files(page)
    assert [url for url in outside if url.startswith("http")] == []


def test_the_slider_moves_the_budget_and_filters_move_the_front(served: str, page: Page, sms: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=90_000)
    page.goto(served)
    expect(heading(page, "Best: trial 2, textcnn, offline")).to_be_visible()
    handle = page.get_by_role("slider")
    handle.focus()
    for _ in range(25):
        handle.press("ArrowLeft")
    expect(page.get_by_label("Budget (ms, p90)", exact=True)).not_to_have_value("")
    page.get_by_role("button", name="bag").click()
    expect(heading(page, "Best within the budget: trial 1, bag, offline")).to_be_visible()
    assert asked(page)["student"] == "bag"


def test_dark_is_dark(served: str, page: Page, sms: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=90_000)
    page.emulate_media(color_scheme="dark")
    page.goto(served)
    expect(heading(page, "Best: trial 2, textcnn, offline")).to_be_visible()
    line = page.locator(".js-plotly-plot .scatterlayer .trace .js-line").first
    assert line.evaluate("line => getComputedStyle(line).stroke") == "rgb(238, 238, 238)"
    background = page.locator(".stApp").evaluate("app => getComputedStyle(app).backgroundColor")
    assert sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) < 150


def test_the_live_line_offers_what_is_new_and_draws_it_when_asked(served: str, page: Page, sms: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=90_000)
    page.goto(served)
    expect(heading(page, "Best: trial 2, textcnn, offline")).to_be_visible()
    sms.complete("bag", "none", quality=0.94, ms=0.05)
    show = page.get_by_role("button", name="1 new trial: show")
    expect(show).to_be_visible()
    expect(heading(page, "Best: trial 2, textcnn, offline")).to_be_visible()
    show.click()
    expect(heading(page, "Best: trial 5, bag, none")).to_be_visible()
    expect(show).not_to_be_visible()
