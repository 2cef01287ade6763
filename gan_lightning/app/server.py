"""The server of the page, from the first check to Ctrl+C."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from gan_lightning.commands.app import is_loopback
from gan_lightning.commands.parser import choose_device
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable


def serve(options: argparse.Namespace, port: int) -> int:
    """Serve the page until the process is asked to end, and return the exit status.

    Args:
        options: Options of the command.
        port: Port that is free.

    Raises:
        InputError: If the generator or the device cannot be used, or another program took the port.
    """
    from gan_lightning.app.limits import Limits
    from gan_lightning.app.restoration import PhotoRestoration

    device = choose_device(options.device)
    limits = Limits(options.max_megabytes, options.max_megapixels)
    restoration = PhotoRestoration(options.generator, limits, device)
    print(f"preparing the page with {printable(options.generator)} ...", flush=True)
    ended = Event()
    with TemporaryDirectory(prefix=f"gan-lightning-app-{os.getpid()}-") as folder:
        tempfile.tempdir = folder  # all that is uploaded or made lies in it
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "uploads")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        restoration.warm_up()
        blocks = launch(restoration, options.host, port, limits.bytes)
        print(f"open {blocks.local_url} in a browser; Ctrl+C ends it", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        blocks.close(verbose=False)
        tempfile.tempdir = None
    return 0


def launch(restoration: Any, host: str, port: int, max_bytes: int) -> Any:
    """Start the server in a thread, and return the page.

    Raises:
        InputError: If the port is in use.
    """
    from gan_lightning.app.layout import STYLE, theme
    from gan_lightning.app.page import Page

    here = "this computer" if is_loopback(host) else "the computer that serves this page"
    blocks = Page(restoration, f"Photographs stay on {here}.").build()
    try:
        blocks.queue().launch(
            server_name=host,
            server_port=port,
            max_file_size=max_bytes,
            theme=theme(),
            css=STYLE,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
    except OSError as error:
        raise InputError(f"--port {port} is in use: give another one") from error
    return blocks
