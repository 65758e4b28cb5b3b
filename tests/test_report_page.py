"""The page of a run, in text and as a headless Chromium draws it."""

import json
import re
import shutil

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from runs import figures
from runs.compare import read_groups, write_comparison
from runs.page import run_page, write_run_page
from system.errors import UserError
from tests.reference.run import example_record, write_run

pytestmark = pytest.mark.slow

SECTIONS = ["What each part adds", "How it learned", "Where it is right", "What it confuses",
            "Base or new", "What MTA looks at", "How sure it is", "The run"]
NEED_LABELS = ["Where it is right", "What it confuses", "Base or new", "How sure it is"]
# Everything that a browser would fetch: of the page, of its style, of its drawings.
FETCHED = re.compile(r"""(?:src|href|srcset|data|poster|action)\s*=\s*["']?([^"'\s>]+)"""
                     r"""|url\(\s*["']?([^"')]+)|@import\s*["']([^"']+)""")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: path} of a run's page, of one without labels, and of a comparison."""
    place = tmp_path_factory.mktemp("pages")
    folders = [write_run(place / str(seed), seed, **{"lora.rank": rank})
               for seed, rank in ((1, 4), (2, 4), (1, 2))]
    comparison = str(place / "comparison.html")
    write_comparison(read_groups(folders), comparison)
    return {"run": write_run_page(folders[0]), "comparison": comparison,
            "unlabelled": write_run_page(write_run(place / "unlabelled", labelled=False))}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_every_part_is_there(pages):
    page = read(pages["run"])
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert page.count("<svg") == 8
    assert "blue &amp; &lt;white&gt; vase" in page and "<white>" not in page
    assert "#0102" not in page  # a stand-in for a colour that was not replaced


def test_without_labels_their_parts_say_why_they_are_left_out(pages):
    page = read(pages["unlabelled"])
    for title in NEED_LABELS:
        assert re.search(rf"<h2>{title}</h2>\s*<p [^>]*>No labels", page), title
    assert page.count("<svg") == 2 and re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS


def test_before_the_test_the_page_shows_the_training_alone(tmp_path):
    folder = write_run(tmp_path)
    (tmp_path / "test.pkl").unlink()
    page = read(write_run_page(folder))
    assert "not tested yet" in page and page.count("<svg") == 2


@pytest.mark.parametrize("n_images", [1, 2, 5, 12])
@pytest.mark.parametrize("right", ["none", "some", "all"])
def test_few_images_have_a_page_too(n_images, right):
    record = example_record(3, N=n_images)
    if right == "all":
        record["rankings"][:, 0] = record["labels"]
    elif right == "none":
        wrong = (record["labels"] + 1) % 4
        record.update(base_label=wrong, new_label=wrong, rankings=wrong[:, None])
        record["scores"][:] = 0.5
    page = re.sub(r'"data:image[^"]*"', "", run_page("few", record, []))
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS and "nan" not in page


@pytest.mark.parametrize("still, drawn", [
    (("head",), 2), (("prompt", "lora"), 2), (("prompt", "lora", "head"), 1)])
@pytest.mark.filterwarnings("error")
def test_a_part_that_has_not_moved_is_left_out_of_the_paces(tmp_path, still, drawn):
    """As the head of one epoch, or a part with a learning rate of 0."""
    folder = write_run(tmp_path)
    lines = [{**line, **{f"moved_{part}": 0.0 for part in still if f"moved_{part}" in line}}
             for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())]
    page = run_page("run", None, lines)
    assert page.count("<svg") == drawn and ("The paces" in page) == (len(still) < 3)
    paces = page.partition("The paces")[2]
    for part, name in (("prompt", "prompt"), ("lora", "LoRA"), ("head", "head")):
        assert (f">{name}<" in paces) == (part not in still and len(still) < 3), name
    assert "nan" not in re.sub(r'"data:image[^"]*"', "", page) and folder


@pytest.mark.filterwarnings("error")
def test_an_ablation_in_which_nothing_is_right_has_a_page():
    record = example_record()
    for _, shares in record["ablation"]:
        shares.update({name: 0.0 for name in shares})
    assert "What each part adds" in run_page("run", record, [])


def test_without_new_classes_the_page_has_no_number_that_is_none():
    record = example_record()
    old = record["labels"] < 4
    record.update(classes=record["classes"][:4], scores=np.full(old.sum(), np.inf, np.float32),
                  threshold=np.inf, crops=[], pictures={}, names=record["names"][:old.sum()])
    for name in ("labels", "rankings", "base_label", "new_label", "zero_shot_label", "confidence",
                 "plain_confidence"):
        record[name] = np.minimum(record[name][old], 3)
    for _, shares in record["ablation"]:
        shares.update({name: np.nan for name in ("new", "new of all", "H")})
    page = run_page("run", record, [])
    assert not re.search(r"\b(inf|nan)\b", page, re.IGNORECASE)


def test_a_dollar_in_a_name_is_no_mathematics():
    assert "$x_1$ &amp; $y$" in figures.domains(["$x_1$ & $y$"], [0.5], [0.4])


def test_the_parameters_are_shown():
    page = run_page("run", {**example_record(), "parameters": {"CLIP": 1234567, "total": 1234568}},
                    [])
    assert "1,234,567" in page and "parameters, total" in page and "1,234,568" in page


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="log.jsonl nor test.pkl"):
        write_run_page(str(tmp_path))


@pytest.mark.parametrize("name", ["run", "unlabelled", "comparison"])
def test_nothing_is_fetched_from_elsewhere(pages, name):
    fetched = ["".join(groups) for groups in FETCHED.findall(read(pages[name]))]
    assert fetched and all(address.startswith(("data:", "#")) for address in fetched)


# What lies outside the window: (tag, text, right edge) of the drawn elements that are not in a
# box which scrolls by itself.
OVERFLOW = """[...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll, pre') && e.getClientRects().length)
    .map(e => [e.tagName, e.textContent.slice(0, 40), e.getBoundingClientRect().right])
    .filter(([, , right]) => right > innerWidth + 0.5)"""
BOXES = """[...document.querySelectorAll('section')].map(s => {
    const box = s.getBoundingClientRect();
    const drawn = [...s.querySelectorAll('svg, img')].filter(e => e.getClientRects().length);
    return [s.querySelector('h2').textContent, box.width, box.height, drawn.length,
            drawn.every(e => e.getBoundingClientRect().width > 0
                        && e.getBoundingClientRect().height > 0)];})"""
COLOURS = """[getComputedStyle(document.body).backgroundColor,
    ...new Set([...document.querySelectorAll('svg text')].map(e => getComputedStyle(e).fill))]"""


@pytest.fixture(scope="module")
def show():
    """Opens a page in a window of a width; it returns the page and the addresses it asked for."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                    "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as driver:
        process = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def show(path, width, look):
            page, asked_for = process.new_page(
                viewport={"width": width, "height": 800}, color_scheme=look), []
            page.on("request", lambda request: asked_for.append(request.url))
            page.goto(f"file://{path}")
            return page, asked_for

        yield show
        process.close()


def brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["run", "unlabelled", "comparison"])
def test_a_browser_draws_all_of_it_within_the_window(pages, show, name, width, look):
    page, asked_for = show(pages[name], width, look)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERFLOW) == []
    boxes = page.evaluate(BOXES)
    assert all(width > 0 and height > 20 and sizes for _, width, height, _, sizes in boxes)
    if name == "run":
        n_drawn = {title: n for title, _, _, n, _ in boxes}
        assert list(n_drawn) == SECTIONS and n_drawn["How it learned"] == 2
        assert n_drawn["Base or new"] == 3 and all(n_drawn[title] for title in SECTIONS[:-1])
    paper, *inks = map(brightness, page.evaluate(COLOURS))
    assert inks and (paper < 60 if look == "dark" else paper > 240)
    assert all(abs(ink - paper) > 60 for ink in inks)
    assert [address for address in asked_for if not address.startswith("data:")] == [
        f"file://{pages[name]}"]
    assert len(page.screenshot(full_page=True)) > 20_000  # bytes of PNG: it is not blank
    page.close()
