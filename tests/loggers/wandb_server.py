"""Stand-in for W&B's server, which answers what a run asks: run by test_wandb.py.

Usage: wandb_server.py {answering|silent}    (prints its port)
"""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN = {
    "id": "run",
    "name": "run",
    "displayName": "run",
    "description": "",
    "config": "{}",
    "sweepName": None,
    "historyLineCount": 0,
    "project": {"id": "project", "name": "project", "entity": {"id": "entity", "name": "entity"}},
}
ANSWERS = {
    "viewer": {"id": "viewer", "entity": "entity", "username": "user", "flags": "{}", "teams": {"edges": []}},
    "serverInfo": {"features": []},
    "upsertBucket": {"bucket": RUN, "inserted": True},
    "model": None,
    "project": None,  # no artifact is found
}


class Handler(BaseHTTPRequestHandler):
    """Accepts all uploads."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = {"exitcode": None, "limits": {}}
        if self.path == "/graphql":
            files = (json.loads(body).get("variables") or {}).get("files", [])
            address = "http://{}:{}/upload".format(*self.server.server_address)
            places = [{"name": name, "uploadUrl": address} for name in files]
            data = {"data": ANSWERS | {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": places}}}
        content = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_GET = do_POST  # noqa: N815

    def log_message(self, *arguments):
        pass


def main(behaviour):
    if behaviour == "answering":
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        print(server.server_address[1], flush=True)
        server.serve_forever()
    listening = socket.create_server(("127.0.0.1", 0))  # the system accepts connections, and nothing answers
    print(listening.getsockname()[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
