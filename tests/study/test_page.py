"""The report: one page that needs no other file. It is read as a document, and looked at in a browser where there is one."""

import base64
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ntksim
import studies
from ntksim.study.config.study import parse_study
from ntksim.study.plan import jobs
from ntksim.study.report import page
from ntksim.study.run.project import CAPTIONS

CONTENT = {
    "dataset": {"name": "digits", "classes": [3, 8], "train": 4, "test": 7},
    "networks": {
        "relu_of_one_hidden_layer": {"activation": "relu", "depth": 1},
        "tanh": {"activation": "tanh", "depth": 1, "output_scale": [0.25, 1.0]},
    },
    "initial": {"widths": [8, 16], "seeds": 5},
    "training": {"widths": [8, 16], "seeds": 5, "relative_time": 10.0, "snapshots": 4, "remove_initial_output": True},
}  # fmt: skip
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" width="892pt" height="260pt" viewBox="0 0 892 260">
<rect width="892" height="260" fill="#0072B2"/><text x="20" y="40">{}</text></svg>"""
WIDTHS = (1400, 800)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A study with its report. A word on a coloured field stands for each figure: what figures show is tested elsewhere."""
    study = studies.computed(CONTENT, tmp_path_factory.mktemp("page"))
    folder = Path(study.results)
    (folder / "figures").mkdir()
    for name, suffix in itertools.product(jobs.figures(study), jobs.FORMATS):
        (folder / "figures" / f"{name}.{suffix}").write_text(DRAWING.format(name))
    page.write_html(folder, folder / "report.html", CAPTIONS)
    return folder


class Document(HTMLParser):
    """What a page holds: its tags with attributes, in order, and the text inside every kind of tag."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def document(results):
    return Document((results / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_no_other_file(results, document):
    """It has no scripts, and every address is a place in the page, data, or a file of the results folder that exists."""
    assert document.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in document.tags}
    addresses = [value for _, attributes in document.tags for name, value in attributes.items() if name in ("src", "href")]
    places = {attributes["id"] for _, attributes in document.tags if "id" in attributes}
    assert addresses
    (results / "record").mkdir(exist_ok=True)
    for address in addresses:
        if address.startswith("#"):
            assert address[1:] in places
        elif not address.startswith("data:image/svg+xml;base64,"):
            assert (results / address).exists(), address
    assert "@import" not in document.texts["style"][0]
    assert "url(" not in document.texts["style"][0]


def test_every_figure_is_in_the_page_above_its_caption(results, document):
    study = parse_study(CONTENT | {"results": str(results)})
    names, images = [figure["id"] for figure in document.all("figure")], document.all("img")
    assert names == jobs.figures(study)
    assert names == ["convergence", "spectrum", "drift", "drift_parts", "loss", "test_loss", "accuracy", "lazy_or_rich"]
    for name, image, caption in zip(names, images, document.texts["figcaption"], strict=True):
        content = base64.b64decode(image["src"].partition(",")[2])
        assert content == (results / "figures" / f"{name}.svg").read_bytes()
        written = re.sub(r"[*`]", "", " ".join((CAPTIONS / f"{name}.rst").read_text().split()))
        assert " ".join(caption.split()).startswith(written)
        assert written.startswith(image["alt"])
        assert image["alt"].endswith(".")
        assert f"figures/{name}.pdf" in caption
    order = [tag for tag, _ in document.tags if tag in ("img", "figcaption")]
    assert order == ["img", "figcaption"] * len(names)


def test_the_first_sentence_of_a_caption_is_text():
    assert page.first_sentence("By width *m*\nand ``K_t``. Then more.") == "By width m and K_t."
    assert page.first_sentence("No more than one") == "No more than one"


def test_headings_descend_one_level_at_a_time_and_are_listed(document):
    levels = [int(tag[1]) for tag, _ in document.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert document.texts["h2"] == ["Findings", "Figures", "Laws", "Verdicts", "Provenance"]
    listed = [attributes["href"] for attributes in document.all("a") if attributes["href"].startswith("#")]
    assert {f"#{section['id']}" for section in document.all("section")} <= set(listed)


def test_the_page_opens_with_three_lines(results, document):
    """Data with its scaling, networks with seeds, and what is excluded, which is what tables say."""
    lines = document.texts["p"][:3]
    assert lines[0].startswith("Data and scaling: Digits, classes 3 and 8: 4 training and 7 test points, 1 output. Points: ")
    assert lines[1].startswith(
        "Networks and seeds: relu_of_one_hidden_layer, tanh_scale_0p25, tanh_scale_1. At initialisation 5 "
    )
    assert lines[2] == "Excluded: Nothing: every network finished."
    assert set(ntksim.read_table(results, "final")["status"]) == {"finished"}


def test_findings_are_the_numbers_of_the_tables(results, document):
    errors = ntksim.read_table(results, "convergence").query("network == 'tanh_scale_1'").set_index(["quantity", "width"])
    drift = ntksim.read_table(results, "drift").query("network == 'tanh_scale_1'").set_index(["quantity", "width"])
    text = document.texts["section"][0].partition("tanh_scale_1")[2]
    first, last = (100 * errors.loc[("relative_frobenius_error", width), "root_mean_square"] for width in (8, 16))
    assert f"differs from its infinite-width limit by {first:.3g}% at width 8 and {last:.3g}% at width 16" in text
    moved = 100 * drift.loc[("kernel_drift", 16), "root_mean_square"]
    assert f"Training moves the kernel by {moved:.3g}% at width 16" in text
    law = ntksim.read_table(results, "scaling_laws").query("network == 'tanh_scale_1' and quantity == 'kernel_drift'").iloc[0]
    assert f"the power {law['exponent']:+.2f}, with a 95% interval of {law['interval_low']:+.2f} to" in text
    verdict = ntksim.read_table(results, "lazy").query("network == 'tanh_scale_1' and width == 16")["verdict"].item()
    assert verdict in text.partition("Verdict: ")[2].partition(".")[0]


# Measures the page, and writes what it finds into the document, which the browser prints.
MEASURE = """<script>addEventListener("load", () => {
  const images = [...document.images], box = (element) => element.getBoundingClientRect();
  const captions = [...document.querySelectorAll("figcaption")];
  const found = {
    window: innerWidth, page: document.documentElement.scrollWidth,
    drawn: images.every((image) => image.naturalWidth > 0 && box(image).width > 0.5 * Math.min(innerWidth, image.naturalWidth)),
    inside: images.every((image) => box(image).left >= 0 && box(image).right <= innerWidth),
    below: images.every((image, index) => box(captions[index]).top >= box(image).bottom),
    text: Math.min(...[...document.querySelectorAll("p, li, td")].map((text) => parseFloat(getComputedStyle(text).fontSize))),
    wide: [...document.querySelectorAll("table")].filter((table) => box(table).width > innerWidth).length,
    loaded: performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length};
  document.body.replaceChildren(JSON.stringify(found)); document.body.id = "measured";
});</script>"""


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_the_page(results, tmp_path, width):
    """Nothing is wider than the window but tables, which scroll in their boxes. Figures are loaded, with captions below."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed, so the report is not looked at (on Debian: apt install chromium)")
    text = (results / "report.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--window-size={width},2000",
        "--virtual-time-budget=10000",
        "--dump-dom",
    ]
    done = subprocess.run([*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=300)
    measured = re.search(r'<body id="measured">(.*?)</body>', done.stdout, re.DOTALL)
    assert measured, done.stderr[-2000:]
    found = json.loads(measured[1])
    assert found["window"] == width
    assert found["page"] <= width
    assert found["wide"] or width > 800  # the table of verdicts, so that there is something to scroll
    assert found["drawn"]
    assert found["inside"]
    assert found["below"]
    assert found["text"] >= 12  # pixels
    assert found["loaded"] == 0
