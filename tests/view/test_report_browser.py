"""The page in a real Chromium: no console errors, tooltips, sorting, filtering, choosing, two widths.

Skipped where Chromium or selenium is not installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.results import Estimate
from sim.view.report import report

webdriver = pytest.importorskip("selenium.webdriver")
By = pytest.importorskip("selenium.webdriver.common.by").By
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("optional Chromium with chromedriver is absent")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


def show(browser: Any, folder: Path, *sources: Path, width: int = 1440) -> None:
    """Open the report of the sources; the page must be ready, silent and within its width."""
    path = folder / "report.html"
    path.write_text(report(sources), encoding="utf-8")
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def cells(browser: Any, column: int) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('table.ops tr.op')].map(r => r.cells[arguments[0]].textContent)", column
    )


@pytest.fixture
def result(tmp_path: Path, estimate: Estimate) -> Path:
    marked = replace(estimate.ops[3], name="<i>named</i> & marked", fused=("<b>",))
    other = replace(estimate, hardware_name="other", ops=(*estimate.ops[:3], marked, *estimate.ops[4:]))
    path = tmp_path / "r.json"
    path.write_text(json.dumps([estimate.to_dict(), other.to_dict()]))
    return path


@pytest.mark.parametrize("width", [1440, 390])
def test_all_sections_at_two_widths(browser: Any, tmp_path: Path, result: Path, width: int) -> None:
    show(browser, tmp_path, result, width=width)
    titles = [e.text for e in browser.find_elements(By.TAG_NAME, "h2")]
    assert titles == [
        "Side by side", "Where the time goes", "Roofline", "Ops and memory over time", "Ops", "Memory", "What if",
        "Where the numbers come from",
    ]  # fmt: skip


def test_areas_are_whole_numbers_from_a_thousand_on(browser: Any, tmp_path: Path, estimate: Estimate) -> None:
    """Eight dies of 826 mm2 are 6,608 mm2, as in the terminal, and no power of ten."""
    path = tmp_path / "areas.json"
    path.write_text(json.dumps([replace(estimate, area_mm2=area).to_dict() for area in (6608.0, 57.0)]))
    show(browser, tmp_path, path)
    (row,) = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "tr") if e.text.startswith("area")]
    assert row == "area 6,608 mm² 57 mm²"


def test_ops_sort_filter_and_open(browser: Any, tmp_path: Path, result: Path) -> None:
    show(browser, tmp_path, result)
    heads = browser.find_elements(By.CSS_SELECTOR, "table.ops th button")
    heads[0].click()
    names = cells(browser, 0)
    assert names == sorted(names)
    heads[0].click()
    assert cells(browser, 0) == sorted(names, reverse=True)
    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("layer3 conv2")
    kept = cells(browser, 0)
    assert len(kept) == 6
    assert all("layer3" in name and "conv2" in name for name in kept)
    browser.find_element(By.CSS_SELECTOR, "table.ops tr.op").click()
    assert "computing" in browser.find_element(By.CSS_SELECTOR, "td.more").text


def test_tooltips_choice_and_escaping(browser: Any, tmp_path: Path, result: Path) -> None:
    show(browser, tmp_path, result)
    browser.execute_script(
        "document.querySelector('svg circle').dispatchEvent(new MouseEvent('mousemove', {clientX: 200, clientY: 200}))"
    )
    tip = browser.find_element(By.ID, "tip")
    assert "FLOP/byte" in tip.text
    section = "document.getElementById('section-4')"
    browser.execute_script(f"{section}.querySelectorAll('.controls button.plain')[1].click()")
    assert "<i>named</i> & marked" in cells(browser, 0)
    assert browser.find_elements(By.CSS_SELECTOR, "td i, td b") == []


def test_the_timeline_zooms_and_tells(browser: Any, tmp_path: Path, result: Path) -> None:
    show(browser, tmp_path, result)
    canvas = browser.find_element(By.TAG_NAME, "canvas")
    before = browser.execute_script("return arguments[0].toDataURL()", canvas)
    browser.find_element(By.CSS_SELECTOR, "button[title='zoom in']").click()
    assert browser.execute_script("return arguments[0].toDataURL()", canvas) != before
    browser.execute_script(
        "const b = arguments[0].getBoundingClientRect(); arguments[0].dispatchEvent(new PointerEvent('pointermove',"
        "{clientX: b.left + b.width / 2, clientY: b.top + 12, bubbles: true}))", canvas
    )  # fmt: skip
    assert "of the time" in browser.find_element(By.ID, "tip").text


def test_a_point_of_the_front_opens_its_design(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    (folder / "winners" / "w1").mkdir(parents=True)
    (folder / "winners" / "w1" / "chip.yaml").write_text("name: <w1>\n")
    (folder / "designs.csv").write_text("id,latency_s,energy_j\nw1,1e-3,2\nw2,2e-3,1\nw3,3e-3,3\n")
    show(browser, tmp_path, folder)
    assert "2 of 3 designs are beaten by none" in browser.find_element(By.TAG_NAME, "main").text
    browser.execute_script("[...document.querySelectorAll('svg circle')].at(-2).dispatchEvent(new MouseEvent('click'))")
    details = browser.find_element(By.CSS_SELECTOR, ".details")
    assert "Design w1" in details.text
    assert "<w1>" in details.get_attribute("textContent")


def test_money_areas_and_rates_of_a_search_take_no_prefix_that_changes_their_unit(browser: Any, tmp_path: Path) -> None:
    """Half a square millimetre is not 500 mmm², a third of a dollar not 330 mUSD."""
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "pareto.csv").write_text(
        "trial,area [mm2],die_cost [USD],throughput [1/s],memory [B],energy [J]\n0,0.5,0.33,1200,2048,2e-3\n"
        "1,1500,12,1300,4096,1e-3\n"
    )
    show(browser, tmp_path, folder)
    shown = browser.find_element(By.TAG_NAME, "main").text
    for words in ("0.5 mm²", "1,500 mm²", "0.33 USD", "1.2 k/s", "2 KiB", "2 mJ"):
        assert words in shown


def test_five_thousand_ops_open_in_the_page(browser: Any, tmp_path: Path, estimate: Estimate) -> None:
    ops = tuple(replace(estimate.ops[i % len(estimate.ops)], name=f"op{i}") for i in range(5000))
    path = tmp_path / "many.json"
    path.write_text(json.dumps(replace(estimate, ops=ops, latency_s=sum(op.latency_s for op in ops)).to_dict()))
    show(browser, tmp_path, path)
    assert len(cells(browser, 0)) == 100
    browser.execute_script(
        "[...document.querySelectorAll('button')].find(b => b.textContent === 'show all 5000').click()"
    )
    assert len(cells(browser, 0)) == 5000


@pytest.mark.parametrize("width", [1440, 390])
def test_two_searches_open_the_design_of_the_one_that_is_chosen(browser: Any, tmp_path: Path, width: int) -> None:
    """Both have a winner 00007; every design of a small table is listed, not the front alone."""
    folders = []
    for name, seconds in (("one", "1e-3"), ("two", "2e-3")):
        folder = tmp_path / name
        (folder / "winners" / "00007").mkdir(parents=True)
        (folder / "winners" / "00007" / "chip.yaml").write_text(f"name: chip of {name}\n")
        (folder / "pareto.csv").write_text(f"trial,DRAM.bandwidth,latency [s],quality\n7,1,{seconds},70\n8,2,9e-3,60\n")
        study = {"schema": "dovetail.study/1", "version": "0", "space": "s", "trials": 1, "points": 2, "costed": 2}
        (folder / "search.json").write_text(json.dumps(study | {"better": {"latency [s]": -1, "quality": 1}}))
        folders.append(folder)
    show(browser, tmp_path, *folders, width=width)
    first = browser.find_element(By.CSS_SELECTOR, "section")
    assert [span.text for span in first.find_elements(By.CSS_SELECTOR, ".legend span")] == ["one", "two"]
    heads = [head.text for head in first.find_elements(By.CSS_SELECTOR, "th")][:5]
    assert [head.replace("\n", "") for head in heads] == ["search", "trial", "DRAM.bandwidth", "latency", "quality"]
    rows = first.find_element(By.TAG_NAME, "table").find_elements(By.CSS_SELECTOR, "tr.pick")
    assert len(rows) == 4
    next(row for row in rows if row.text.startswith("two 7")).click()
    details = first.find_element(By.CSS_SELECTOR, ".details").get_attribute("textContent")
    assert "chip of two" in details
    assert "chip of one" not in details
