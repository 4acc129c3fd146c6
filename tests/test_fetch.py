import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from limber_interp import fetch as command
from limber_interp.fetch import main
from limber_interp.published import BLOB_IDS, git_blob_id
from tests.file_server import FileServer, serving


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A mirror of files that stand in for the published ones: each says its name."""
    monkeypatch.setenv("no_proxy", "*")
    for name in tuple(BLOB_IDS):
        (tmp_path / "original").write_bytes(name.encode())
        monkeypatch.setitem(BLOB_IDS, name, git_blob_id(tmp_path / "original"))
    with serving({f"/mirror/{name}/proj.ckpt": name.encode() for name in BLOB_IDS}) as server:
        server.url += "/mirror"
        yield server


def test_one_and_then_all(mirror, tmp_path, capsys):
    out = tmp_path / "weights"
    assert main(["clip_linear", "--base-url", mirror.url + "/", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert re.search(rf"clip_linear +│ fetched +│ 0.0 │ {out}/clip_linear/proj.ckpt", printed.out)
    assert printed.err == ""
    assert [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()] == ["clip_linear/proj.ckpt"]

    assert main(["--all", "--base-url", mirror.url, "--out", str(out), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "fetch"
    assert {file["config"]: file["state"] for file in found["files"]} == {
        **dict.fromkeys(BLOB_IDS, "fetched"),
        "clip_linear": "here",
    }
    for file in found["files"]:
        assert Path(file["path"]) == out / file["config"] / "proj.ckpt"
        assert Path(file["path"]).read_text() == file["config"]
        assert file["size"] == len(file["config"])
        assert file["git_blob_id"] == BLOB_IDS[file["config"]]
        assert file["url"] == f"{mirror.url}/{file['config']}/proj.ckpt"
    assert len(mirror.requests) == 5, "what was there is not asked for again"


def test_it_is_put_where_the_configs_look_for_it(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "weights_dir", lambda: tmp_path / "limber_weights")
    assert main(["beit_linear", "beit_linear", "--base-url", mirror.url]) == 0
    assert (tmp_path / "limber_weights" / "beit_linear" / "proj.ckpt").read_text() == "beit_linear"
    assert len(mirror.requests) == 1


def test_without_a_network_one_line_says_what_to_copy_where(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert main(["clip_linear", "--base-url", url, "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"fetch: {url}/clip_linear/proj.ckpt: cannot be reached: ")
    assert line.endswith(
        f"copy that file to {tmp_path}/clip_linear/proj.ckpt by other means (git blob id {BLOB_IDS['clip_linear']})"
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_that_fails_stops_the_rest(mirror, tmp_path, capsys):
    del mirror.files["/mirror/beit_linear/proj.ckpt"]
    assert main(["clip_linear", "beit_linear", "--base-url", mirror.url, "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "beit_linear/proj.ckpt: the server answered 404 Not Found" in err
    assert (tmp_path / "clip_linear" / "proj.ckpt").is_file()


def test_the_bar_is_drawn_on_a_terminal_alone(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert main(["clip_linear", "--base-url", mirror.url, "--out", str(tmp_path), "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["files"][0]["state"] == "fetched"
    assert re.search(r"clip_linear.*11/11 bytes", err)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name what to fetch (beit_ft_linear, beit_linear, clip_linear, "),
        (["clip_linear", "--all"], "name what to fetch ("),
        (["clip_liner"], "clip_liner: no published projection; nearest: clip_linear"),
        (["beit_random_linear"], "beit_random_linear: its projection was never published; train one with"),
        (["clip_linear", "--base-url", "file:///mnt"], "--base-url file:///mnt: expected http:// or https://"),
    ],
)
def test_what_cannot_be_fetched(tmp_path, capsys, args: list[str], message: str):
    assert main([*args, "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fetch: {message}")
    assert list(tmp_path.iterdir()) == []
