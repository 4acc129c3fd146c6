"""Downloads from a server that cuts, stalls, lies and serves other bytes: either the right file, or none."""

import logging
import resource
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from limber_interp import download as module
from limber_interp.download import ATTEMPTS, download
from limber_interp.errors import InputError
from limber_interp.published import git_blob_id
from limber_interp.urls import open_url
from tests.file_server import FileServer, serving

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "BACKOFF", 0.0)
    with serving({"/proj.ckpt": CONTENT}) as server:

        def hurried(url: str, timeout: float, headers: Mapping[str, str]) -> HTTPResponse:
            """Waits half a second where the server will say nothing, and else as long as a busy machine may take."""
            silent = server.moods[:1] in (["stalls"], ["is silent"])
            return open_url(url, 0.5 if silent else 300.0, headers)

        monkeypatch.setattr(module, "open_url", hurried)
        yield server


@pytest.fixture
def blob_id(tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(CONTENT)
    return git_blob_id(tmp_path / "original")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clip_linear" / "proj.ckpt"


def left(path: Path) -> dict[str, int]:
    """Files in the folder and their sizes."""
    return {file.name: file.stat().st_size for file in path.parent.iterdir()}


def part(path: Path, content: bytes) -> None:
    """What an earlier, interrupted download left."""
    path.parent.mkdir()
    path.with_name("proj.ckpt.part").write_bytes(content)


def test_a_file_is_fetched_once(server, path, blob_id):
    assert download(f"{server.url}/proj.ckpt", path, blob_id) is True
    assert path.read_bytes() == CONTENT
    assert left(path) == {"proj.ckpt": len(CONTENT)}
    assert download(f"{server.url}/proj.ckpt", path, blob_id) is False
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("moods", "ranges"),
    [
        (["cuts"], [None, "bytes=150000-"]),
        (["cuts", "cuts", "cuts"], [None, "bytes=150000-", "bytes=225000-", "bytes=262500-"]),
        (["cuts", "ignores ranges"], [None, "bytes=150000-"]),
        (["cuts", "sends another part"], [None, "bytes=150000-", None]),
        (["cuts", "sends other bytes"], [None, "bytes=150000-", None]),
        (["stalls"], [None, "bytes=150000-"]),
        (["is silent"], [None, None]),
        (["no http", "503"], [None, None, None]),
        (["cuts", "503"], [None, "bytes=150000-", "bytes=150000-"]),
        (["says too much"] * ATTEMPTS, [None]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value[0], str) else "",
)
def test_a_server_that_recovers(server, path, blob_id, moods, ranges):
    server.moods = list(moods)
    assert download(f"{server.url}/proj.ckpt", path, blob_id)
    assert path.read_bytes() == CONTENT
    assert left(path) == {"proj.ckpt": len(CONTENT)}
    assert server.ranges() == ranges


@pytest.mark.parametrize(
    ("moods", "requests", "kept", "message"),
    [
        (
            ["cuts"] * ATTEMPTS,
            5,
            290_625,
            "broke off after 290625 of 300000 bytes; run this again to go on after 290625",
        ),
        (["stalls"] * ATTEMPTS, 5, 290_625, "broke off: timed out; run this again to go on after 290625 bytes, or"),
        (["is silent"] * ATTEMPTS, 5, 0, "cannot be fetched: timed out; copy"),
        (["no http"] * ATTEMPTS, 5, 0, "cannot be fetched: .*; copy"),
        (["503"] * ATTEMPTS, 5, 0, "the server answered 503 Service Unavailable; copy"),
        (["404"], 1, 0, "the server answered 404 Not Found; copy"),
        (["says too little"], 1, 0, r"wrong bytes, which were removed: found git blob id \w{40} \(299990 bytes\), "),
        (["sends other bytes"], 1, 0, r"wrong bytes, which were removed: found git blob id \w{40} \(300000 bytes\), "),
        (["cuts", "sends other bytes", "sends other bytes"], 3, 0, "wrong bytes, which were removed"),
    ],
)
def test_a_server_that_does_not_recover(server, path, blob_id, moods, requests, kept, message):
    server.moods = list(moods)
    with pytest.raises(InputError, match=message) as caught:
        download(f"{server.url}/proj.ckpt", path, blob_id)
    assert str(caught.value).startswith(f"{server.url}/proj.ckpt: ")
    assert str(caught.value).endswith(f"copy that file to {path} by other means (git blob id {blob_id})")
    assert len(server.requests) == requests
    assert left(path) == ({"proj.ckpt.part": kept} if kept else {})
    assert download(f"{server.url}/proj.ckpt", path, blob_id), "what is left is in nobody's way"
    assert path.read_bytes() == CONTENT
    assert server.ranges()[-1] == (f"bytes={kept}-" if kept else None)


def test_expected_and_found_are_named(server, path, blob_id, tmp_path):
    server.files["/proj.ckpt"] = b"<html>please log in</html>"
    (tmp_path / "page").write_bytes(server.files["/proj.ckpt"])
    with pytest.raises(InputError, match=rf"found git blob id {git_blob_id(tmp_path / 'page')} .*, expected {blob_id}"):
        download(f"{server.url}/proj.ckpt", path, blob_id)


def test_why_it_is_tried_again_is_said(server, path, blob_id, caplog):
    server.moods = ["cuts"]
    with caplog.at_level(logging.INFO, logger="limber_interp"):
        download(f"{server.url}/proj.ckpt", path, blob_id)
    reason = "broke off after 150000 of 300000 bytes; trying again in 0 s"
    assert caplog.messages == [f"{server.url}/proj.ckpt: {reason}"]


@pytest.mark.parametrize(
    ("content", "ranges"),
    [
        (CONTENT, ["bytes=300000-"]),  # it ended between the last byte and the rename
        (CONTENT + b"more", ["bytes=300004-", None]),
        (b"of another file", ["bytes=15-", None]),
    ],
    ids=["whole", "too long", "of another file"],
)
def test_what_an_earlier_download_left(server, path, blob_id, content, ranges):
    part(path, content)
    assert download(f"{server.url}/proj.ckpt", path, blob_id)
    assert left(path) == {"proj.ckpt": len(CONTENT)}
    assert server.ranges() == ranges


def test_a_file_without_end(server, path, blob_id, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 2**17)
    with pytest.raises(InputError, match="larger than 0 MiB, which no published file is; removed; copy"):
        download(f"{server.url}/proj.ckpt", path, blob_id)
    assert left(path) == {}
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{closed}/proj.ckpt", "http://127.0.0.1:99999/", "http://no host/"])
def test_no_server(server, path, blob_id, url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with pytest.raises(InputError, match=f"cannot be (reached|fetched): .*; copy that file to {path}"):
        download(url.format(closed=closed), path, blob_id)
    assert left(path) == {}


def test_a_file_that_was_copied_by_other_means_is_verified(server, path, blob_id):
    part(path, CONTENT[:1000])
    path.write_bytes(CONTENT)
    assert download(f"{server.url}/proj.ckpt", path, blob_id) is False
    assert left(path) == {"proj.ckpt": len(CONTENT)}
    assert server.requests == []


def test_another_file_is_never_replaced(server, path, blob_id):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=f"{path}: found git blob id [0-9a-f]+, expected {blob_id}: .* move it away"):
        download(f"{server.url}/proj.ckpt", path, blob_id)
    assert path.read_bytes() == b"mine"
    assert server.requests == []


def test_a_folder_that_takes_no_files(server, tmp_path, blob_id):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match="cannot be made: Not a directory; .* with --out, and then the file with --proj"
    ):
        download(f"{server.url}/proj.ckpt", tmp_path / "file" / "clip_linear" / "proj.ckpt", blob_id)
    assert server.requests == []


def test_a_disk_that_fills_up(server, path, blob_id):
    """A limit on the size of files stands in for the end of the disk: the same call fails, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(InputError, match="cannot be written: File too large .*; run this again to go on after"):
            download(f"{server.url}/proj.ckpt", path, blob_id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(path) == {"proj.ckpt.part": 200_000}
    assert len(server.requests) == 1, "trying again would not help"
    assert download(f"{server.url}/proj.ckpt", path, blob_id) is True
    assert path.read_bytes() == CONTENT


def test_two_at_once(server, path, blob_id):
    """Both would append to the same part; the second could go on writing after the first has renamed it."""
    path.parent.mkdir()
    with (
        FileLock(path.with_name("proj.ckpt.lock")),
        pytest.raises(InputError, match="another process is fetching it; wait for that"),
    ):
        download(f"{server.url}/proj.ckpt", path, blob_id)
    assert server.requests == []


def test_an_interrupted_download_goes_on(server, path, blob_id):
    def interrupted(chunks: Iterator[bytes], done: int, total: int | None) -> Iterator[bytes]:
        yield next(chunks)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/proj.ckpt", path, blob_id, interrupted)
    ((name, size),) = left(path).items()
    assert name == "proj.ckpt.part"
    assert 0 < size < len(CONTENT)
    seen = []

    def watched(chunks: Iterator[bytes], done: int, total: int | None) -> Iterator[bytes]:
        seen.append((done, total))
        return chunks

    assert download(f"{server.url}/proj.ckpt", path, blob_id, watched)
    assert seen == [(size, len(CONTENT))]
    assert path.read_bytes() == CONTENT
