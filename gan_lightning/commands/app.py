"""The command `app`: a page in the browser on which photographs are restored."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from gan_lightning.commands.parser import CommandParser, check_at_least
from gan_lightning.errors import InputError

HELP: Final = """\
usage: gan-lightning app --generator FILE [options]

Restore photographs on a page in the browser, with the generator of a GAN: drop one, paint over what is missing, choose
a task, and see before, after, and where the result is a guess. Ctrl+C ends it.

    gan-lightning app --generator faces64
    gan-lightning app --generator runs/NAME/checkpoints/best.ckpt --port 8000

  --generator FILE    checkpoint of a DCGAN or of the PyTorch tutorial, or faces64; it sets the size of the results
  --host ADDRESS      address to listen on (default: 127.0.0.1, which only this machine reaches); 0.0.0.0 for all
  --port N            port to listen on, 0 for any that is free (default: 7860)
  --max_megabytes N   largest file that is accepted (default: 20)
  --max_megapixels N  most pixels that are decoded, in millions (default: 50)
  --device NAME       cpu, cuda, ... (default: a GPU if there is one)
  -h, --help          this help

Photographs are restored as by `gan-lightning restore`, one at a time. They are kept in a temporary folder, which is
removed at the end, and are sent nowhere. The page comes with the extra gan-lightning[app].
"""


def main(words: Sequence[str]) -> int:
    """Serve the page until it is ended.

    Args:
        words: Words of the command line after `app`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line, the generator, the address or the port cannot be used, or the extra is not
            installed.
    """
    options = parse(words)
    if find_spec("gradio") is None:
        raise InputError("gradio, which makes the page, is not installed: pip install 'gan-lightning[app]'")
    port = free_port(options.host, options.port)
    if not is_loopback(options.host):
        print(f"note: --host {options.host} lets everyone who can reach this machine use the page", file=sys.stderr)
    from gan_lightning.app.server import serve  # slow to import

    return serve(options, port)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command.

    Raises:
        InputError: If an option is unknown or missing, or a number is out of range.
    """
    parser = CommandParser("app", HELP)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--max_megabytes", type=float, default=20)
    parser.add_argument("--max_megapixels", type=float, default=50)
    parser.add_argument("--device")
    options = parser.parse_args(list(words))
    check_at_least(options, {"port": 0, "max_megabytes": 0.1, "max_megapixels": 0.01})
    if options.port > 65535:
        raise InputError(f"--port is {options.port}: give 65535 or less")
    return options


def free_port(host: str, port: int) -> int:
    """Return a port that can be listened on: the one that was given, or any that is free for 0.

    Raises:
        InputError: If it is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            if os.name == "posix":  # where this allows no second listener, only ports that were in use just now
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except socket.gaierror as error:
        raise InputError(f"--host {host} is no address: give 127.0.0.1, or an address of this machine") from error
    except PermissionError as error:
        raise InputError(f"--port {port} may not be used by you: give one above 1023, such as 7860") from error
    except OSError as error:
        if error.errno == 98 or "in use" in str(error):
            other = port + 1 if port < 65535 else 7860
            raise InputError(f"--port {port} is in use: give another one, such as --port {other}") from error
        raise InputError(f"--host {host} is not an address of this machine ({error.strerror})") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
