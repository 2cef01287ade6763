"""The page in a real browser: what is painted over comes back filled, and nothing is asked of another server."""

import importlib
import os
import re
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from gan_lightning.faces import render_face, sample_face
from tests.processes import Process

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PATIENCE = 90  # seconds for each step beside a busy process


@pytest.fixture
def browser(monkeypatch):
    """A headless browser of this machine."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    shared = importlib.import_module("browser")
    if (path := shared.find_browser()) is None:
        missing = f"no browser: install one of {', '.join(shared.BROWSERS)}, such as by apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with shared.launched(path) as launched:
        yield launched


@pytest.fixture
def address(generator, tmp_path):
    """Address of the page, served by a process of its own."""
    process = Process("gan_lightning", "app", "--generator", generator, "--port", 0, folder=tmp_path)
    try:
        until = time.monotonic() + PATIENCE
        while not (found := re.search(r"open (http://127\.0\.0\.1:\d+)/", process.output()[0])):
            assert process.poll() is None, process.output()
            assert time.monotonic() < until
            time.sleep(0.2)
        yield found[1]
        assert process.poll() is None
        assert "Traceback" not in process.output()[1]
    finally:
        process.kill()


def save_images(page, folder):
    """Return the two pictures of the slider and the downloaded result, (H,W,3)."""
    addresses = [image.get_attribute("src") for image in page.locator("#result img").all()]
    pictures = []
    for place, address in enumerate(addresses[:2]):
        path = folder / f"{place}.png"
        with urllib.request.urlopen(address, timeout=60) as answer:
            path.write_bytes(answer.read())
        pictures.append(path)
    with page.expect_download(timeout=1000 * PATIENCE) as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == "face-restored.png"
    waiting.value.save_as(folder / "result.png")
    return [np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (*pictures, folder / "result.png")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_painted_hole_comes_back_filled(browser, address, tmp_path):
    face = Image.fromarray(render_face(sample_face(7, 3))).crop((0, 20, 178, 198)).resize((16, 16))
    face.save(tmp_path / "face.png")
    photo = np.asarray(face).astype(int)
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Restore").click()
    page.get_by_role("alert").get_by_text("there is no photograph yet").wait_for()
    page.set_input_files("input[type=file]", tmp_path / "face.png")
    page.get_by_text("face.png is ready").wait_for()
    page.wait_for_timeout(1500)  # the editor draws the new picture
    page.get_by_role("button", name="Restore").click()
    page.get_by_role("alert").get_by_text("nothing is painted").wait_for()
    importlib.import_module("browser").paint(page)
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Restore").click()
    page.get_by_text("by 8 searches").wait_for()
    before, after, downloaded = save_images(page, tmp_path)
    hole = np.abs(before - photo).max(axis=2) > 1
    assert 8 <= hole.sum() <= 128
    assert np.abs(before[hole] - 127.5).max() < 1  # gray
    assert np.abs(after - photo)[~hole].max() <= 1
    assert np.abs(after - before).max(axis=2)[hole].min() > 2
    assert np.array_equal(after, downloaded)
    assert page.locator("#fillings img").count() >= 8
    elsewhere = {urlsplit(url.removeprefix("blob:")).netloc for url in asked if not url.startswith("data:")}
    assert elsewhere == {urlsplit(address).netloc}
    assert page.get_by_role("button", name="share", exact=False).count() == 0
