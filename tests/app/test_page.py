"""What the events of the page do, called without a browser; and what its server is told."""

import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lightning.app.layout import say
from gan_lightning.app.page import Page
from gan_lightning.app.server import launch
from gan_lightning.app.tasks import HINTS, NAMES
from tests.app.photos import draw
from tests.app.test_holes import layer

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of gradio's dependencies
]

SESSION = types.SimpleNamespace(session_hash="one")


@pytest.fixture
def page(restoration, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return Page(restoration, "Photographs stay on this computer.")


def restore(page, photo, task="denoise", layers=(), searches=1, progress=lambda *step: None):
    sent = None if photo is None else {"path": str(photo)}
    drawing = {"background": None, "layers": [{"path": str(layer)} for layer in layers], "composite": None, "id": None}
    return page.restore(sent, task, drawing, True, 0.1, 1.0, 2, searches, SESSION, progress)


def test_a_photograph_is_restored_and_can_be_downloaded(page):
    status, slider, download, rest, spread, fillings = restore(page, draw(Path("photo.png")))
    assert "Restored in " in status
    with Image.open(download["value"]) as written:
        assert np.array_equal(np.asarray(written), np.asarray(slider[1]))
        assert download["value"].name == "photo-restored.png"
    assert (rest["visible"], spread, fillings) == (False, None, [])


def test_several_fillings_of_a_hole(page):
    hole = layer((slice(96, 192), slice(96, 192)), page.side)
    photo = draw(Path("photo.png"), (16, 16))
    status, (before, after), _, rest, spread, fillings = restore(page, photo, "inpaint", [hole], 3)
    assert "by 3 searches" in status
    inside = np.zeros((16, 16), dtype=bool)
    inside[4:8, 4:8] = True
    changed = np.abs(np.asarray(before).astype(int) - np.asarray(after)).max(axis=2)
    assert changed[~inside].max() <= 1
    assert changed[inside].min() > 1
    assert rest["visible"]
    assert spread.size == (page.side, page.side)
    assert [caption for _, caption in fillings] == ["1", "2", "3"]
    assert {filling.size for filling, _ in fillings} == {(16, 16)}


def test_mistakes_are_said_on_the_page_and_leave_the_last_result(page):
    photo = draw(Path("<b>.png"), (8, 8))
    for found, message in (
        (restore(page, None), "there is no photograph yet"),
        (restore(page, photo), "&lt;b&gt;.png is 8x8 pixels, too small for 16x16: try Enlarge, 2 times"),
        (restore(page, draw(Path("photo.png")), "inpaint"), "nothing is painted"),
    ):
        assert message in found[0]
        assert 'role="alert"' in found[0]
        assert all(update == {"__type__": "update"} for update in found[1:])


def test_a_new_photograph_is_shown_to_paint_on(page):
    editor, status = page.load({"path": str(draw(Path("photo.png")))})
    assert editor["value"].size == (page.side, page.side)
    assert "photo.png is ready" in status
    editor, status = page.load({"path": str(draw(Path("small.png"), (8, 8)))})
    assert editor["value"] is None
    assert "8x8 pixels" in status
    assert page.load(None)[1] == say("")


def test_each_task_shows_its_own_options(page):
    names = ("hint", "drawing", "estimate", "noise", "blur", "factor", "searches")

    def shown(task, estimate):
        found = dict(zip(names, page.choose(task, estimate), strict=True))
        assert found.pop("hint") == HINTS[task]
        return found.pop("searches"), {name for name, update in found.items() if update["visible"]}

    assert shown("inpaint", True) == (8, {"drawing"})
    assert shown("denoise", True) == (1, {"estimate"})
    assert shown("denoise", False) == (1, {"estimate", "noise"})
    assert shown("deblur", False) == (8, {"estimate", "blur"})
    assert shown("super_resolve", True) == (8, {"factor"})
    assert shown("colorize", False) == (8, set())


def test_only_the_own_restoration_is_stopped_and_one_runs_at_a_time(page):
    photo, found, begun = draw(Path("photo.png")), [], threading.Event()
    other = types.SimpleNamespace(session_hash="other")

    def tell(*step):
        begun.set()
        page.stop(other)

    def wait(*step):
        page.stop(SESSION)

    assert "Restored in" in restore(page, photo, progress=tell)[0]
    thread = threading.Thread(target=lambda: found.append(restore(page, photo, progress=wait)))
    with page._one_at_a_time:
        thread.start()
        thread.join(0.3)
        assert found == []  # it waits
    thread.join()
    assert found[0][0] == say("Stopped.")
    assert begun.is_set()
    assert "Restored in" in restore(page, photo)[0]  # nothing of it is left


def test_leaving_the_page_removes_the_result(page):
    first = restore(page, draw(Path("photo.png")))[2]["value"]
    second = restore(page, Path("photo.png"))[2]["value"]
    assert second.is_file()
    assert not first.exists()
    page.leave(SESSION)
    assert not second.exists()


def test_the_server_shares_nothing_and_limits_what_is_sent(restoration, monkeypatch):
    seen = {}
    blocks = types.SimpleNamespace(launch=lambda **options: seen.update(options))
    monkeypatch.setattr(Page, "build", lambda page: types.SimpleNamespace(queue=lambda: blocks))
    launch(restoration, "127.0.0.1", 7860, 123)
    assert (seen["share"], seen["max_file_size"], seen["server_name"]) == (False, 123, "127.0.0.1")
    assert (seen["ssr_mode"], seen["mcp_server"], seen["pwa"], seen["footer_links"]) == (False, False, False, [])
    assert seen["theme"]._stylesheets == []  # no fonts of other servers


def test_gray_generators_add_no_color(restoration, monkeypatch):
    monkeypatch.setattr(restoration, "channels", 1)
    assert set(NAMES) - set(Page(restoration, "").tasks) == {"colorize"}
