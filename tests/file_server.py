"""A file server on this machine that behaves in every way a server should not: one mood per request, then well."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Answers whole, says nothing, and takes no offence at a client that hangs up."""

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client hung up, which is what the tests are about
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    """Serves `files` (path -> content). `moods` are used up in turn; `requests` lists what came: path and Range."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = files
        self.moods: list[str] = []
        self.requests: list[tuple[str, str | None]] = []
        self.over = threading.Event()

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class Handler(QuietHandler):
    server: FileServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        mood = self.server.moods.pop(0) if self.server.moods else "good"
        content = self.server.files.get(self.path)
        if content is None or mood in ("404", "503"):
            return self.answer(b"sorry", int(mood) if mood.isdecimal() else 404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and mood != "ignores ranges" else 0
        if start >= len(content):
            return self.answer(b"", 416)
        body, length, named = content[start:], len(content) - start, start
        match mood:
            case "cuts":
                body = body[: len(body) // 2]
            case "says too much":
                length += 10
            case "says too little":
                length -= 10
            case "sends other bytes":
                body = bytes(byte ^ 1 for byte in body)
            case "sends another part":
                named, start = 0, max(start, 1)
            case "is silent":
                self.server.over.wait(300)
                return None
            case "no http":
                self.wfile.write(b"not http at all\r\n\r\n")
                return None
        headers = {"Content-Length": str(length)}
        if start:
            headers["Content-Range"] = f"bytes {named}-{len(content) - 1}/{len(content)}"
        if mood == "stalls":
            self.answer(body[: len(body) // 2], 206 if start else 200, **headers)
            self.server.over.wait(300)
            return None
        return self.answer(body, 206 if start else 200, **headers)


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield
    server.shutdown()
    thread.join()


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    with FileServer(files) as server, running(server):
        yield server
        server.over.set()
