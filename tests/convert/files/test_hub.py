"""Downloads from a local server with the hub's routes."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.torch import save

from dalle_cli.convert.files import hub
from dalle_cli.convert.files.opening import open_weights
from dalle_cli.exits import USAGE, Failure
from tests.convert.test_importing import CLIP, equal, published

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STATE = published("hf-clip", CLIP)


class Handler(BaseHTTPRequestHandler):
    """The routes of one repository, me/net; the server holds its `files`, and what goes wrong."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        status, data, headers = self.look_up()
        if status == 200:
            self.answer(data, headers)
        else:
            self.refuse(status, data)

    def look_up(self):
        server, path = self.server, self.path.partition("?")[0]
        server.asked.append((self.command, path, self.headers.get("Range")))
        if server.gated:
            return 403, "GatedRepo", {}
        if not path.startswith(("/api/models/me/net", "/me/net/")):
            return 404, "RepoNotFound", {}
        if path.startswith("/api/"):
            if not path.endswith(("/revision/main", f"/revision/{COMMIT}")):
                return 404, "RevisionNotFound", {}
            siblings = [{"rfilename": name, "size": len(data), **digest(data)} for name, data in server.files.items()]
            return 200, json.dumps({"id": "me/net", "sha": COMMIT, "siblings": siblings}).encode(), {}
        name = path.split("/", 5)[-1]
        if name not in server.files:
            return 404, "EntryNotFound", {}
        data = server.sent.get(name, server.files[name])
        checksums = digest(server.files[name])
        etag = checksums["lfs"]["sha256"] if "lfs" in checksums else checksums["blobId"]
        return 200, data, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, data, headers):
        size, start = len(data), 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(size - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cuts.pop(0) if self.server.cuts and self.path.endswith("safetensors") else None
        self.wfile.write(data[start : start + cut if cut is not None else None])
        if cut is not None:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True


def digest(data):
    """The checksums of a file as the hub lists them: git's for small files, sha256 for large ones."""
    if len(data) < 100:
        return {"blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    return {
        "blobId": "0" * 40,
        "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
    }


@pytest.fixture
def server(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.sent, server.cuts, server.asked, server.gated = {}, {}, [], [], False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.files["model.safetensors"] = save(STATE)
    server.files["config.json"] = b'{"model_type": "clip"}'
    server.files["README.md"] = b"of no use"
    yield server
    server.shutdown()
    server.server_close()


def fetch(source="hf:me/net", system=False):
    lines = []
    return hub.fetch_source(source, lines.append, system), lines


def ranges(server):
    return [asked for kind, path, asked in server.asked if kind == "GET" and path.endswith("safetensors")]


def test_a_repository_is_cached(server, tmp_path):
    path, lines = fetch()
    assert path == str(tmp_path / "cache" / "models--me--net" / "snapshots" / COMMIT)
    assert equal(open_weights(path).load(), STATE)
    assert sorted(name.name for name in (tmp_path / "cache" / "models--me--net" / "snapshots" / COMMIT).iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert [line.split(":")[0] for line in lines] == ["me/net"]
    assert "to download to" in lines[0]
    assert ranges(server) == [None]
    assert fetch() == (path, [])  # nothing is fetched again
    assert ranges(server) == [None]
    assert fetch(f"hf:me/net@{COMMIT}:model.safetensors")[0] == f"{path}/model.safetensors"
    assert fetch("/a/path:x") == ("/a/path:x", [])


def test_a_broken_connection_resumes(server):
    server.cuts = [4000, 3000]
    assert equal(open_weights(fetch()[0]).load(), STATE)
    assert ranges(server) == [None, "bytes=4000-", "bytes=7000-"]


def test_complete_files_are_kept_when_a_download_breaks_off(server):
    server.cuts = [5000] + [0] * 20
    with pytest.raises(Failure, match=r"the download of model.safetensors broke off .*; run the command again"):
        fetch()
    server.cuts, server.asked = [], []
    assert equal(open_weights(fetch()[0]).load(), STATE)
    assert [path.rpartition("/")[2] for kind, path, _ in server.asked if kind == "GET" and "/api/" not in path] == [
        "model.safetensors"
    ]


def test_damaged_downloads_are_refused_and_removed(server, tmp_path):
    data = server.files["model.safetensors"]
    server.sent["model.safetensors"] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(Failure, match=r"model.safetensors arrived damaged \(its checksum differs\)"):
        fetch()
    blob = tmp_path / "cache" / "models--me--net" / "blobs" / hashlib.sha256(data).hexdigest()
    assert not blob.exists()
    server.sent.clear()
    assert equal(open_weights(fetch()[0]).load(), STATE)


def test_damaged_files_of_the_cache_are_downloaded_again(server, tmp_path):
    fetch()
    data = server.files["model.safetensors"]
    blob = tmp_path / "cache" / "models--me--net" / "blobs" / hashlib.sha256(data).hexdigest()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    path, lines = fetch()
    assert lines == ["model.safetensors: its checksum differs from the hub's; downloading it again"]
    assert equal(open_weights(path).load(), STATE)


def test_shards_are_downloaded_by_their_index(server):
    del server.files["model.safetensors"]
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {key: names[i % 2] for i, key in enumerate(STATE)}
    server.files |= {name: save({key: STATE[key] for key in STATE if weight_map[key] == name}) for name in names}
    server.files["model-00001-of-00001.safetensors"] = b"of another"
    server.files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    server.files["pytorch_model.bin"] = b"the same once more"
    assert equal(open_weights(fetch()[0]).load(), STATE)
    assert {path.rpartition("/")[2] for kind, path, _ in server.asked if kind == "GET"} >= set(names)
    assert not any(path.endswith((".bin", "of-00001.safetensors")) for _, path, _ in server.asked)
    del server.files[names[0]]
    with pytest.raises(
        Failure, match=r"model.safetensors.index.json: 1 of its shards are missing: model-00001-of-00002"
    ):
        fetch()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:me/other", "no repository me/other at http"),
        ("hf:me/net@v9", "me/net has no revision 'v9'"),
        ("hf:me/net:model.safetensor", "has no 'model.safetensor'; did you mean|has no 'model.safetensor'"),
        ("hf:me", "write hf:owner/name"),
        ("hf:me/net:../../etc/passwd", "the repository has no"),
    ],
)
def test_missing_sources_are_named(server, source, message):
    with pytest.raises(Failure, match=message) as caught:
        fetch(source)
    assert "\n" not in str(caught.value)
    assert caught.value.code == (USAGE if source == "hf:me" else 3)


def test_gated_repositories_name_their_page(server):
    server.gated = True
    with pytest.raises(Failure, match="me/net is gated: accept its terms at http"):
        fetch()


def test_cache_is_used_without_a_network(server, monkeypatch):
    path, _ = fetch()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again, lines = fetch()
    assert again == path
    assert "cannot be reached; using what was downloaded before" in lines[0]
    with pytest.raises(Failure, match=r"http://127.0.0.1:9 cannot be reached, and me/gone was not downloaded before"):
        fetch("hf:me/gone")
