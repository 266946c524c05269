"""report.html as a reader uses it, in headless Chromium: with mouse and keyboard, dark and light, on a phone, without scripts, in print."""

import csv
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from browser import Browser

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
SCHEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@pytest.fixture(scope="module")
def out(analyze, notebooks_data, tmp_path_factory):
    base = notebooks_data / "base/all-MiniLM-L6-v2-qv"
    return analyze(tmp_path_factory.mktemp("report") / "out", notebooks_data / "adapters", "--base", base, "--init",
                   notebooks_data / "init")


@pytest.fixture(scope="module")
def address(out):
    return (out / "report.html").as_uri()


@pytest.fixture(scope="module")
def deep_address(analyze, tmp_path_factory):
    """An adapter of so many layers that its maps are pictures, with names that try to be more."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("deep")
    names = [f"model.layers.{k}.q_proj" for k in range(30)]
    (folder / "base").mkdir()
    save_file({f"{name}.weight": torch.randn(16, 16) for name in names}, folder / "base/model.safetensors")
    adapter = folder / "<img src=x onerror=alert(1)>"
    adapter.mkdir()
    factors = {f"base_model.model.{name}.lora_{f}.weight": torch.randn(*s) for name in names for f, s in (("A", (2, 16)), ("B", (16, 2)))}
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    return (analyze(folder / "out", adapter, "--base", folder / "base") / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core. The package that holds it is not imported: it wants a browser library."""
    package = importlib.util.find_spec("axe_playwright_python")
    return (Path(package.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def rows(out, table):
    with open(out / f"{table}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cell(map_number, a, b):
    return f"document.querySelectorAll('table[data-map]')[{map_number}].tBodies[0].rows[{a}].cells[{b} + 1]"


def tip(page):
    """What the tip beside the cell says, None where it is not there."""
    return page.run("(() => { const t = document.getElementById('tip'); return t.hidden ? null : Object.fromEntries("
                    "[['title', t.querySelector('strong').textContent], ...[...t.querySelectorAll('dt')].map("
                    "dt => [dt.textContent, dt.nextSibling.textContent])]); })()")


def says(found, row):
    """Insists that a tip says what a row of similarity.csv does."""
    four = "{:.4f}".format
    assert found["title"] == f"layers {row['layer_a']} and {row['layer_b']}"
    assert found["φ"] == four(float(row["phi"]))
    assert float(found["error at most"]) == pytest.approx(float(row["phi_error_bound"]), rel=0.6)
    assert found["gaussian"] == f"{four(float(row['gaussian_mean']))} ± {four(float(row['gaussian_sd']))}"
    assert found["base alone (w0)"] == f"{four(float(row['w0_mean']))} ± {four(float(row['w0_sd']))}"
    assert found.get("untrained") == (four(float(row["init"])) if row["init"] else None)
    assert found["status"] == row["status"]


def column(page, table, name):
    """The fields of a column as they stand, in full."""
    return page.run(f"(() => {{ const t = document.querySelector('#table-{table} table'); const k = [...t.tHead.rows[0].cells].findIndex("
                    f"h => h.textContent === '{name}'); return [...t.tBodies[0].rows].filter(r => !r.hidden).map(r => {{ const d = "
                    "r.cells[k].querySelector('data'); return d ? d.value : r.cells[k].textContent; }); })()")


def head(table, name):
    return f"[...document.querySelectorAll('#table-{table} th')].find(h => h.textContent === '{name}')"


@SCHEMES
def test_it_loads_alone_and_without_a_complaint(browser, address, deep_address, dark):
    for where in (address, deep_address):
        page = browser.page(where, dark=dark)
        page.run("new Promise(done => setTimeout(done, 200))")
        assert [asked for asked in page.requests() if not asked.startswith("data:")] == [where]
        assert page.complaints() == []
        assert page.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.run("document.querySelectorAll('img[src=x]').length") == 0


def test_the_policy_stops_what_is_not_ours(browser, address):
    page = browser.page(address)
    page.run("(() => { const s = document.createElement('script'); s.textContent = 'window.intruder = true'; document.body.append(s); })()")
    page.run("fetch('http://127.0.0.1:9/').catch(() => null)")
    assert page.run("window.intruder === undefined")
    assert len([said for said in page.complaints() if "Content Security Policy" in said]) >= 2


def test_a_column_sorts_by_click_and_by_keyboard(browser, address, out):
    page = browser.page(address)
    numbers = [float(row["phi_mean"]) for row in rows(out, "summary")]
    assert [float(value) for value in column(page, "summary", "phi_mean")] == numbers
    button = head("summary", "phi_mean") + ".querySelector('button')"
    page.click(button)
    assert [float(value) for value in column(page, "summary", "phi_mean")] == sorted(numbers)
    assert page.run(head("summary", "phi_mean") + ".getAttribute('aria-sort')") == "ascending"
    # From there by keyboard: once more, and then the next column.
    page.press("Enter")
    assert [float(value) for value in column(page, "summary", "phi_mean")] == sorted(numbers, reverse=True)
    assert page.run(head("summary", "phi_mean") + ".getAttribute('aria-sort')") == "descending"
    assert page.run("document.getElementById('live').textContent") == "sorted by phi_mean, descending"
    page.press("Tab")
    page.press(" ")
    assert page.run("[...document.querySelectorAll('#table-summary [aria-sort]')].map(h => h.textContent)") == ["phi_min"]
    # Missing values stay at the end.
    for _ in range(2):
        page.click(head("summary", "init_mean") + ".querySelector('button')")
        found = column(page, "summary", "init_mean")
        known = [row["init_mean"] for row in rows(out, "summary") if row["init_mean"]]
        assert "" in found and found[len(known):] == [""] * (len(found) - len(known))


def test_rows_can_be_filtered(browser, address):
    page = browser.page(address)
    page.click("document.getElementById('filter-table-summary')")
    page.call("Input.insertText", text="TREC value")
    assert set(column(page, "summary", "adapter")) == {"trec-seed0"} and set(column(page, "summary", "module")) == {"value"}
    assert page.run("document.querySelector('.filter output').textContent") == "3 of 18"


@SCHEMES
def test_hover_and_keys_read_the_cells(browser, address, out, dark):
    page = browser.page(address, dark=dark)
    similarity = rows(out, "similarity")
    assert tip(page) is None
    for number in (0, 10):
        of_map = {(int(row["layer_a"]), int(row["layer_b"])): row for row in similarity[36 * number:36 * number + 36]}
        for a, b in ((0, 3), (5, 1), (2, 2)):
            page.point_at(cell(number, a, b))
            says(tip(page), of_map[a, b])
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert tip(page) is None
    # One stop of the tab key, then the arrows; the live region says what a screen reader reads.
    page.run(cell(0, 0, 0) + ".focus()")
    of_map = {(int(row["layer_a"]), int(row["layer_b"])): row for row in similarity[:36]}
    for key, at in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("End", (1, 5)), ("ArrowRight", (1, 5)), ("Home", (1, 0)),
                    ("ArrowUp", (0, 0)), ("ArrowUp", (0, 0))):
        page.press(key)
        says(tip(page), of_map[at])
        assert page.run("document.getElementById('live').textContent").startswith(f"layers {at[0]} and {at[1]}: φ ")
    assert page.run("document.querySelectorAll('table[data-map]')[0].querySelectorAll('td[tabindex=\"0\"]').length") == 1
    page.press("Escape")
    assert tip(page) is None


def test_a_picture_of_many_layers_reads_like_a_table(browser, deep_address):
    page = browser.page(deep_address)
    assert page.run("document.querySelectorAll('.picture[data-map]').length") == 3
    frame = "document.querySelector('.picture[data-map]')"
    size = page.run(frame + ".getBoundingClientRect().width") / 30
    # From the middle, which is a corner of four cells, to the middle of cell (18, 12).
    page.point_at(frame, part=(-2.5 * size, 3.5 * size))
    assert tip(page)["title"] == "layers 18 and 12"
    phi = tip(page)["φ"]
    page.run(frame + ".focus()")
    page.press("ArrowRight")
    assert tip(page)["title"] == "layers 18 and 13"
    page.press("ArrowLeft")
    assert tip(page)["φ"] == phi


@SCHEMES
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(browser, address, deep_address, axe, dark, width):
    for where in (address, deep_address):
        page = browser.page(where, dark=dark, width=width)
        page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        # One row of a long table is like another: a tenth of the time.
        page.run("document.querySelectorAll('table.rows tbody tr:nth-child(n+12)').forEach(row => row.remove())")
        page.run(axe + "; null")
        # The overview is an image: what is in it is the figures' business.
        found = page.run("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => "
                         "[v.impact, v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)]))")
        assert [violation for violation in found if violation[0] in ("serious", "critical")] == []


@SCHEMES
def test_the_scheme_is_followed(browser, address, dark):
    page = browser.page(address, dark=dark)
    ground = [int(part) for part in re.findall(r"\d+", page.run("getComputedStyle(document.body).backgroundColor"))]
    assert (max(ground) < 60) if dark else (min(ground) > 230)


def test_a_phone_scrolls_tables_and_not_the_page(browser, address, deep_address):
    for where in (address, deep_address):
        page = browser.page(where, width=390, height=844)
        page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.run("document.documentElement.scrollWidth") == 390
        assert page.run("[...document.querySelectorAll('.scroll')].some(s => s.scrollWidth > s.clientWidth)")


def test_without_scripts_figures_and_tables_are_there(browser, address):
    page = browser.page(address, scripts=False)
    document = page.call("DOM.getDocument", depth=-1)["root"]["nodeId"]

    def count(selector):
        return len(page.call("DOM.querySelectorAll", nodeId=document, selector=selector)["nodeIds"])

    assert count("table[data-map] tbody td") == 18 * 36 and count("#table-summary tbody tr") == 18
    assert count(".overview img") == 3 and count("button") == 0 and count("a[download]") == 8
    hint = page.call("DOM.querySelector", nodeId=document, selector=".script-only")["nodeId"]
    with pytest.raises(RuntimeError):
        page.call("DOM.getBoxModel", nodeId=hint)
    assert page.complaints() == []


def test_a_csv_can_be_saved(browser, address, out):
    page = browser.page(address)
    encoded = page.run("fetch === undefined ? '' : document.querySelector('a[download=\"summary.csv\"]').href.split(',')[1]")
    assert page.run(f"new TextDecoder().decode(Uint8Array.from(atob('{encoded}'), c => c.charCodeAt(0)))") == (out / "summary.csv").read_text()


def test_print_is_light_and_starts_each_adapter_on_a_page(browser, address, tmp_path):
    page = browser.page(address, dark=True)
    (tmp_path / "report.pdf").write_bytes(page.pdf())
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext")
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True).stdout
    pages = text.split("\f")
    # The answer with every adapter is on the first page; each adapter's maps begin one of their own.
    assert all(f"{name}" in pages[0] for name in ("sst2-seed0", "sst2-seed1", "trec-seed0"))
    for name in ("sst2-seed1", "trec-seed0"):
        assert [k for k, page in enumerate(pages) if page.lstrip().startswith(name)] != []
