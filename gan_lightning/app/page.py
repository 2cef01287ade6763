"""The page: what its events do, and which function each of them calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from threading import Event, Lock
from typing import Any

import gradio as gr

from gan_lightning.app.holes import painted_pixels
from gan_lightning.app.layout import add_inputs, add_outputs, say
from gan_lightning.app.pictures import enlarge, shown_side
from gan_lightning.app.restoration import PhotoRestoration
from gan_lightning.app.stopping import Stopped
from gan_lightning.app.tasks import HINTS, MOST_SEARCHES, NAMES, Wish, default_searches, in_words_of_the_page
from gan_lightning.app.uploads import Sent, layer_files, photo_file
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable


class Page:
    """The page for one generator, and what its events do. One photograph is restored at a time.

    Args:
        restoration: Restoration with the generator.
        where: Sentence that says where photographs go.
    """

    def __init__(self, restoration: PhotoRestoration, where: str) -> None:
        self.restoration, self.where = restoration, where
        self._one_at_a_time = Lock()
        self._stops: dict[str | None, Event] = {}  # by the session whose photograph is being restored
        self._results: dict[str | None, Path] = {}  # folder of the last result of each session
        self.tasks = [task for task in NAMES if task != "colorize" or restoration.channels == 3]
        self.side = shown_side(restoration.image_size)

    def load(self, sent: Sent) -> tuple[Any, Any]:
        """Show the square of a new photograph that is restored; return the updates of editor and status."""
        photo = photo_file(sent)
        if photo is None:
            return gr.update(value=None), say("")
        try:
            picture = self.restoration.preview(photo)
        except InputError as error:
            return gr.update(value=None), say(in_words_of_the_page(str(error)), "error")
        return gr.update(value=enlarge(picture, self.side)), say(f"{printable(photo.name)} is ready.")

    def choose(self, task: str, estimate: bool) -> list[Any]:
        """Return the updates of hint, editor, estimate, noise, blur, factor and searches for a task."""
        return [
            HINTS[task],
            gr.update(visible=task == "inpaint"),
            gr.update(visible=task in ("denoise", "deblur")),
            gr.update(visible=task == "denoise" and not estimate),
            gr.update(visible=task == "deblur" and not estimate),
            gr.update(visible=task == "super_resolve"),
            default_searches(task),
        ]

    def restore(
        self,
        photo: Sent,
        task: str,
        drawing: Sent,
        estimate: bool,
        noise: float,
        blur: float,
        factor: int,
        searches: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  gradio finds it so
    ) -> list[Any]:
        """Restore a photograph; return the updates of what `add_outputs` returns."""
        known = {"noise": noise, "blur": blur} if not estimate else {"noise": None, "blur": None}
        wish = Wish(task, **known, factor=factor, searches=min(searches, MOST_SEARCHES))
        stop = self._stops[request.session_hash] = Event()
        try:
            if (file := photo_file(photo)) is None:
                raise InputError("there is no photograph yet: drop one, choose a file, or use the camera")
            painted = painted_pixels(layer_files(drawing), self.side) if task == "inpaint" else None
            with self._one_at_a_time:
                outcome = self.restoration.restore(file, wish, painted, progress, stop)
        except InputError as error:
            return [say(in_words_of_the_page(str(error)), "error"), *[gr.skip()] * 5]
        except Stopped:
            return [say("Stopped."), *[gr.skip()] * 5]
        finally:
            self._stops.pop(request.session_hash, None)
        self._forget(request.session_hash)
        result = Path(mkdtemp(prefix="result-"), outcome.name)
        self._results[request.session_hash] = result.parent
        outcome.after.save(result)
        spread = enlarge(outcome.spread, self.side) if outcome.spread is not None else None
        numbers = map(str, range(1, len(outcome.fillings) + 1))
        return [
            say(outcome.report),
            (outcome.before, outcome.after),
            gr.update(value=result, interactive=True),
            gr.update(visible=outcome.spread is not None),
            spread,
            list(zip(outcome.fillings, numbers, strict=True)),
        ]

    def stop(self, request: gr.Request) -> str:
        """Stop the restoration of a session; return what to say."""
        if (event := self._stops.get(request.session_hash)) is not None:
            event.set()
        return say("Stopped.")

    def leave(self, request: gr.Request) -> None:
        """Stop and remove what belongs to a page that was closed."""
        self.stop(request)
        self._forget(request.session_hash)

    def _forget(self, session: str | None) -> None:
        if (folder := self._results.pop(session, None)) is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def build(self) -> gr.Blocks:
        """Return the page."""
        size, kind = self.restoration.image_size, {1: "gray"}.get(self.restoration.channels, "color")
        blocks: gr.Blocks
        with gr.Blocks(title="Restore a photograph", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            gr.Markdown(
                f"# Restore a photograph\nwith {printable(Path(self.restoration.generator).name)}, a generator of "
                f"{size}x{size} images in {kind}. {self.where}"
            )
            with gr.Row(equal_height=False):
                with gr.Column():
                    inputs = add_inputs(self.tasks, self.restoration.image_size)
                with gr.Column():
                    outputs = add_outputs()
            self._connect(inputs, outputs)
            blocks.unload(self.leave)
        return blocks

    def _connect(self, inputs: dict[str, Any], outputs: list[Any]) -> None:
        """Connect the events with what they do."""
        status, result = outputs[:2]
        photo, task, estimate = (inputs[name] for name in ("photo", "task", "estimate"))
        photo.change(self.load, photo, [inputs["drawing"], status], preprocess=False, show_progress="hidden")
        shown = [inputs[name] for name in ("hint", "drawing", "estimate", "noise", "blur", "factor", "searches")]
        for control in (task, estimate):
            control.change(self.choose, [task, estimate], shown, show_progress="hidden")
        begun = json.dumps(say("Restoring ..."))
        inputs["restore"].click(None, None, status, js=f"() => {begun}", show_progress="hidden")
        names = ("photo", "task", "drawing", "estimate", "noise", "blur", "factor", "searches")
        run = inputs["restore"].click(
            self.restore,
            [inputs[name] for name in names],
            outputs,
            preprocess=False,
            concurrency_limit=1,
            trigger_mode="once",
            show_progress_on=result,
        )
        inputs["stop"].click(self.stop, outputs=status, queue=False, cancels=[run], show_progress="hidden")
