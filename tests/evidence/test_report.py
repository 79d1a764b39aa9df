"""The report and the card: what they say, that hostile text stays text, and how a browser takes them."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from evidence.sample_report import sample
from headstart.evidence.figures import thumbnail
from headstart.evidence.report import ReportData, card, render, sentence

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'--></style></title><script>alert(1)</script>",
    "\x1b[31mred\x1b]0;title\x07",
    "a\u202etxt.exe\u2066",
    "nul\x00 \x9b bell\x07 \ud800",
    "javascript:alert(1)//http://evil.example/x.png",
    "![x](http://evil.example/x.png) [y](javascript:alert(1)) <b>",
    "---\nlicense: mit\n---\n# Heading",
    "{{ 7*7 }} {% raw %} ${7*7} $x^2$ \\frac",
    "*/ url(http://evil.example) }",
    "| a | b |\n\n```\nfence",
    "`<u>`",
)
CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


class Seen(HTMLParser):
    """Tags and attributes as a browser would find them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(page: str) -> Seen:
    parser = Seen()
    parser.feed(page)
    return parser


@cache
def harmless() -> Seen:
    return seen(render(hostile("harmless")))


def poisoned(value: Any, text: str) -> Any:
    """The same data with every string, and every key that is data, made hostile; words that steer the page are kept."""
    if isinstance(value, str):
        return value if value in ("helps", "no-evidence", "hurts", "chosen", "no-transfer") else text
    if isinstance(value, dict):
        return {k: poisoned(v, text) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [poisoned(v, text) for v in value]
    return value


def hostile(text: str) -> ReportData:
    data = sample()
    fields = {f.name: poisoned(getattr(data, f.name), text) for f in dataclasses.fields(data)}
    fields["versions"] = {text: text}
    fields["examples"] = [
        *fields["examples"],
        {"row": 1, "label": text, "predicted": text, "probability": None, "cells": {text: text}},
    ]
    return ReportData(**fields)


@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_string_in_every_field_stays_text(text: str) -> None:
    whole = render(hostile(text))
    page, plain = seen(whole), harmless()
    assert not {"script", "iframe", "object", "embed", "form", "base", "b-"} & set(page.tags)
    kinds = {(t, k) for t, k, _ in page.attributes}
    assert kinds <= {(t, k) for t, k, _ in plain.attributes} | {("svg", "viewbox")}
    assert set(page.tags) <= set(plain.tags) | {"code"}
    assert not set(whole) & {
        *map(chr, range(9)),
        *map(chr, range(11, 32)),
        "\x7f",
        *map(chr, range(128, 160)),
        "\u202e",
    }
    whole.encode("utf-8")
    for _, key, value in page.attributes:
        if key in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), value


@pytest.mark.parametrize("text", NASTY)
def test_a_hostile_string_in_every_field_stays_text_in_the_card(text: str) -> None:
    written = card(hostile(text))
    _, head, body = written.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert set(facts) <= {
        "library_name", "tags", "license", "license_name", "base_model", "pipeline_tag", "metrics", "model-index",
    }  # fmt: skip
    assert facts["library_name"] == "headstart"
    made = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(body)
    assert not {"script", "img", "a", "u", "b", "iframe"} & set(seen(made).tags)
    assert "\x1b" not in written
    assert "\u202e" not in written
    assert not [line for line in body.splitlines() if line.startswith(("license", "# Heading"))]


def test_everything_asked_for_is_on_the_page() -> None:
    page = render(sample())
    text = " ".join(" ".join(seen(page).text).split())
    for wanted in (
        "Transfer helps", "gains 0.118 in macro-F1", "char_tfidf", "linear_probe of minilm", "majority",
        "Does transfer help?", "Did choosing help?", "McNemar", "its upper end 0.67", "needed 9.1 GB",
        "cut by time", "worse than no transfer",
        "Kendall", "exchange rate", "Card never came.", "ECE, 15 bins", "Brier", "forecast", "cc-by-nc-4.0",
        "non-commercial", "hub:sentence-transformers/all-MiniLM-L6-v2@8b3219a", "opened 2 times", "cut trial 0010",
        "headstart predict result new.csv", "headstart solve tickets.csv", "torch 2.13.0", "of 10 min",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "default-src 'none'" in page


def test_no_examples_shows_no_input() -> None:
    page = render(sample(), examples=False)
    assert "Card never came." not in page
    assert "a private text" not in render(sample())  # the card's examples never are
    assert "data:image" not in page
    assert "left out of this report" in page


def test_the_same_data_give_the_same_page_also_after_a_round_trip() -> None:
    data = sample()
    assert render(ReportData.from_dict({**data.as_dict(), "of a later version": 1})) == render(data)


def test_the_verdict_in_one_sentence() -> None:
    assert "Transfer hurts" in render(sample(0.6, 0.9))
    assert sentence(sample(0.6, 0.9).summary).startswith("the chosen system loses 0.226 in macro-F1")
    unsure = sample(0.8, 0.79)
    assert "holds 0; the best system without transfer is returned" in sentence(unsure.summary)
    assert sentence({**sample().summary, "protocol": "outer_cv"}).startswith(
        "choosing and adapting a source in this way"
    )
    assert "stay sealed" in sentence({"verdict": None, "score": None, "metric": "accuracy"})


def test_a_run_without_verify_and_one_of_numbers_are_drawn() -> None:
    summary = {
        "verdict": None,
        "returned": "no-transfer",
        "metric": "rmse",
        "score": None,
        "gain": None,
        "seconds": 3.0,
    }
    page = render(ReportData(title="t", summary=summary, card={"task": {"type": "regression"}}))
    assert "Not verified" in page
    assert "<svg" not in page
    assert "A system without transfer" in card(ReportData(title="t", summary=summary, card={}))


def test_many_classes_are_shown_as_pairs() -> None:
    data = sample()
    cells = [[5 if i == j else int(i == 3 and j == 4) for j in range(60)] for i in range(60)]
    verified = {**data.verified, "chosen": {**data.verified["chosen"], "confusion": cells}}
    page = render(dataclasses.replace(data, verified=verified, classes=[f"class {i}" for i in range(60)]))
    assert "of 60 classes" in page
    assert "class 3" in page


def test_an_image_that_is_not_one_is_not_shown() -> None:
    data = sample()
    rows = [{"row": 1, "label": "a", "predicted": "b", "probability": 0.5, "thumbnail": "data:text/html;base64,AAAA"}]
    assert "text/html" not in render(dataclasses.replace(data, examples=rows))


def test_thumbnails_are_small_pngs() -> None:
    for size in ((8, 8), (1, 1), (3000, 20)):
        address = thumbnail(Image.new("RGBA", size, (200, 10, 10, 120)))
        image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
        assert max(image.size) <= 112


def test_the_cards_licences_are_carried_over_and_conflicts_flagged() -> None:
    written = card(sample())
    facts = yaml.safe_load(written.split("---\n")[1])
    assert facts["license"] == "other"
    assert "cc-by-nc-4.0" in facts["license_name"]
    assert facts["base_model"] == ["sentence-transformers/all-MiniLM-L6-v2", "news-bert"]
    assert facts["pipeline_tag"] == "text-classification"
    assert "conflict between" in written


def browse(page: Path, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", *more, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_a_browser_shows_a_hostile_report_and_its_console_stays_silent(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    every = hostile(" ".join(NASTY).replace("\ud800", ""))
    page.write_text(render(every), encoding="utf-8")
    found = browse(
        page, tmp_path, "--window-size=390,3000", f"--screenshot={tmp_path / 'phone.png'}", "--hide-scrollbars"
    )
    assert not re.findall(r"CONSOLE.*|.*Refused to.*|.*Content Security.*", found.stderr)
    image = Image.open(tmp_path / "phone.png")
    assert image.size == (390, 3000)
    assert len(image.convert("RGB").getcolors(maxcolors=2**24) or ()) > 20


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
def test_long_words_in_every_field_make_no_page_wider_than_the_window(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    script = (
        "<script>const d = document; d.title = d.documentElement.scrollWidth + ' of ' + innerWidth + ' by ' + "
        "[...d.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre') && "
        "e.getBoundingClientRect().right > innerWidth).map(e => e.tagName + '.' + e.className)</script>"
    )
    text = re.sub(r"<meta http-equiv[^>]*>", "", render(hostile("x" * 300)))  # the measuring itself is a script
    page.write_text(text.replace("</body>", script + "</body>"), encoding="utf-8")
    found = re.search(
        r"<title>((\d+) of (\d+).*?)</title>", browse(page, tmp_path, "--window-size=500,800", "--dump-dom").stdout
    )
    assert found is not None
    assert int(found[2]) <= int(found[3]), found[1]
