"""The layout of the page: its look, what is set on it, and what it shows of a result."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

import gradio as gr

from gan_lightning.app.pictures import shown_side
from gan_lightning.app.tasks import HINTS, MOST_SEARCHES, NAMES, default_searches, factors

FONT: Final = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO: Final = ("ui-monospace", "Menlo", "Consolas", "monospace")
BRUSH: Final = ("#e11d48", 0.85)
STYLE: Final = """
.gradio-container { max-width: 1180px !important; margin: 0 auto; }
.gradio-container .main { max-width: 100vw; box-sizing: border-box; }
.gradio-container .column { max-width: 100%; }
#fillings .grid-container { grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)) !important; }
#status p { margin: 0; }
#status .error { color: var(--error-text-color); font-weight: 600; }
"""


def theme() -> gr.themes.Base:
    """Return the look of the page, with fonts of the system: none is fetched from elsewhere."""
    return gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=FONT, font_mono=MONO)


def add_inputs(tasks: Sequence[str], image_size: int) -> dict[str, Any]:
    """Add what the user of the page sets; return it by name.

    Args:
        tasks: Tasks that are offered.
        image_size: Side of the images of the generator, in pixels.
    """
    first, side = tasks[0], shown_side(image_size)
    found: dict[str, Any] = {
        "photo": gr.Image(
            label="Photograph",
            sources=["upload", "webcam", "clipboard"],
            height=220,
            buttons=[],
            placeholder="Drop a photograph here\n- or -\nClick to choose a file",
        ),
        "task": gr.Radio([(NAMES[task], task) for task in tasks], value=first, label="Task"),
        "hint": gr.Markdown(HINTS[first], elem_id="hint"),
        "drawing": gr.ImageEditor(
            label="Paint over what is missing",
            show_label=False,  # its tools would cover it on a narrow screen
            sources=(),
            transforms=(),
            layers=False,
            buttons=[],
            height=430,
            brush=gr.Brush(default_size=side // 10, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
            canvas_size=(side, side),
            fixed_canvas=True,
            format="png",
            elem_id="editor",
        ),
        "estimate": gr.Checkbox(True, label="Estimate how strong it is", visible=False),
        "noise": gr.Slider(0.02, 0.5, 0.1, step=0.01, label="Noise level (1: from black to white)", visible=False),
        "blur": gr.Slider(0.3, 4.0, 2.0, step=0.1, label="Blur, in pixels of the result", visible=False),
    }
    by = factors(image_size)
    found["factor"] = gr.Radio(by, value=4 if 4 in by else None, label="Enlarge by", visible=False)
    found["searches"] = gr.Slider(
        1,
        MOST_SEARCHES,
        default_searches(first),
        step=1,
        label="Searches",
        info="The result is their mean. More take longer, and show better where it is a guess.",
    )
    with gr.Row():
        found["restore"] = gr.Button("Restore", variant="primary", elem_id="restore")
        found["stop"] = gr.Button("Stop", variant="stop", elem_id="stop")
    return found


def add_outputs() -> list[Any]:
    """Add what the page shows of a result; return status, slider, download, the rest, spread and fillings."""
    status = gr.HTML(say(""), elem_id="status")
    slider = gr.ImageSlider(
        label="Before and after", format="png", interactive=False, buttons=["fullscreen"], elem_id="result"
    )
    download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
    with gr.Column(visible=False, elem_id="searches") as rest:
        gr.Markdown("### Spread\nBright where the searches differ, and the result is a guess.")
        spread = gr.Image(
            label="Spread", show_label=False, format="png", height=260, interactive=False, buttons=["fullscreen"]
        )
        gr.Markdown("### What each search found\nThe likeliest first; the result is their mean.")
        fillings = gr.Gallery(
            label="What each search found",
            show_label=False,
            format="png",
            columns=4,
            height="auto",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="fillings",
        )
    return [status, slider, download, rest, spread, fillings]


def say(text: str, kind: str = "note") -> str:
    """Return a message of the page as HTML, which screen readers read out."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'
