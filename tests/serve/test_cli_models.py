"""``nanoswap models`` against a small server of files: what it says, its exit codes, and what is left in the folder."""

import functools
import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import LicenceNotAccepted, ModelStore
from nanoswap.serve import model_pull
from nanoswap.serve.cli import main
from nanoswap.serve.model_pull import PullError, Unreachable, pull

DETECTOR, ENCODER, SWAPPER, OCCLUDER = (name * 500_000 for name in (b"det", b"enc", b"swap", b"occ"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, data)
    return out.getvalue()


class Files:
    """What the server answers by path: status, headers and body. ``asked``: paths in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        for path, data in (
            ("/det", DETECTOR), ("/pack.zip", zipped("deep/enc.onnx", ENCODER)), ("/swap", SWAPPER), ("/occ", OCCLUDER)
        ):  # fmt: skip
            self.give(path, data)

    def give(self, path: str, data: bytes, status: int = 200, **headers: str) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = (status, {"Content-Length": str(len(data))} | given, data)

    def send_to(self, path: str, location: str) -> None:
        self.give(path, b"", 302, Location=location)


@pytest.fixture
def served() -> Iterator[tuple[Files, str]]:
    files = Files()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.path)
            status, headers, body = files.answers.get(self.path, (404, {"Content-Length": "0"}, b""))
            self.send_response(status)
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Of a client that has heard enough: that is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield files, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path, served: tuple[Files, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store, empty; the manifest and the folder are named in the environment."""
    for name in [name for name in os.environ if name.startswith("NANOSWAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NANOSWAP_MANIFEST", str(manifest(tmp_path / "ours.toml", served[1])))
    monkeypatch.setenv("NANOSWAP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("NANOSWAP_ACCEPT_LICENCES", "closed")
    return tmp_path / "models"


def manifest(path: Path, url: str, **urls: str) -> Path:
    """Detector pinned, encoder pinned in an archive, swapper unpublished, occluder free and unpublished."""
    text = [
        "[licences.closed]", 'title = "For research"', 'source = "x"', "commercial = false",
        "[licences.free]", 'title = "For all"', 'source = "x"', "commercial = true",
    ]  # fmt: skip
    for name, role, there, licence, more in (
        ("det", "detector", "/det", "closed", f'sha256 = "{sha256(DETECTOR)}"\nbytes = {len(DETECTOR)}'),
        ("enc", "encoder", "/pack.zip", "closed", f'sha256 = "{sha256(ENCODER)}"\nmember = "enc.onnx"'),
        ("swap", "swapper", "/swap", "closed", 'parameters = { latent = "unit", mean = 0, std = 1 }'),
        ("occ", "occluder", "/occ", "free", ""),
    ):
        text += [
            f"[models.{name}]", f'role = "{role}"', f'url = "{urls.get(name, url + there)}"', f'file = "{name}.onnx"',
            f'licence = "{licence}"', 'repository = "r"', 'revision = "1"', f'use = "Use of {name}."', more,
        ]  # fmt: skip
    text += [
        "[engines.plain]", 'label = "Plain"', 'kind = "mesh"', 'licence = "l"',
        "[engines.one]", 'label = "One"', 'kind = "neural"', 'licence = "l"',
        'needs = ["det", "enc", "swap"]', 'uses = ["occ"]',
    ]  # fmt: skip
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_from_nothing_to_an_engine_that_is_in_order(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "one"]) == 0
    out, err = capsys.readouterr()
    assert names(folder) == ["det.onnx", "enc.onnx", "swap.onnx"]
    assert served[0].asked == ["/det", "/pack.zip", "/swap"]
    assert out.splitlines()[:3] == [
        f"det: pulled, SHA-256 {sha256(DETECTOR)}",
        f"enc: pulled, SHA-256 {sha256(ENCODER)}",
        f"swap: pulled, SHA-256 {sha256(SWAPPER)}",
    ]
    assert out.count("nanoswap models lock") == 1
    assert "nanoswap models lock swap" in out
    assert err.index("det: For research. Use of det.") < err.index("det: 100 %") < err.index("enc: For research.")

    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "engine one: lacks swap (unlocked)" in out
    assert "engine plain: needs no weights" in out
    assert main(["models", "lock", "one"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"det: {sha256(DETECTOR)} as the manifest says",
        f"enc: {sha256(ENCODER)} as the manifest says",
        f"swap: {sha256(SWAPPER)} recorded",
    ]
    assert main(["models", "list"]) == 0
    assert "engine one: all that it needs is in order" in capsys.readouterr().out
    assert main(["models", "verify", "one"]) == 0
    assert capsys.readouterr().out == "det: ok\nenc: ok\nswap: ok\n"


def test_what_is_there_is_not_fetched_again(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", "one", "--all"]) == 0
    assert served[0].asked == ["/det", "/pack.zip", "/swap", "/occ"]
    (folder / "det.onnx").write_bytes(b"spoilt")
    capsys.readouterr()
    assert main(["models", "pull", "occ", "one", "det"]) == 0
    assert served[0].asked[4:] == ["/det"]
    said = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert said == [
        f"occ: was there, SHA-256 {sha256(OCCLUDER)}",
        f"det: pulled, SHA-256 {sha256(DETECTOR)}",
        f"enc: was there, SHA-256 {sha256(ENCODER)}",
        f"swap: was there, SHA-256 {sha256(SWAPPER)}",
    ]
    assert (folder / "det.onnx").read_bytes() == DETECTOR


def test_licence_stops_all_before_anything_is_asked_for(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANOSWAP_ACCEPT_LICENCES")
    assert main(["models", "pull", "occ", "one"]) == 2
    out, err = capsys.readouterr()
    assert err == "nanoswap: det: For research. If that is you, accept it: --accept closed\n"
    assert (out, names(folder), served[0].asked) == ("", [], [])
    assert main(["models", "pull", "det", "--accept", "other, closed"]) == 0
    assert names(folder) == ["det.onnx"]
    assert main(["models", "lock", "det"]) == 2
    assert main(["models", "verify"]) == 0
    said = capsys.readouterr().out
    assert "det: licence: For research." in said
    assert "occ: missing\n" in said


def test_pull_itself_asks_for_the_licence(folder: Path, served: tuple[Files, str], tmp_path: Path) -> None:
    store = ModelStore(folder, Manifest.read(tmp_path / "ours.toml"))
    with pytest.raises(LicenceNotAccepted):
        pull(store, "det", lambda *_: None)
    assert served[0].asked == []


def test_progress_is_told_in_bytes_up_to_the_last(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    store = ModelStore(folder, Manifest.read(tmp_path / "ours.toml"), frozenset({"closed"}))
    pull(store, "det", lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == (len(DETECTOR), len(DETECTOR))


def cut(files: Files) -> None:
    files.give("/det", DETECTOR[:500_000], Content_Length=str(len(DETECTOR)))


def cut_in_a_chunk(files: Files) -> None:
    files.give("/det", b"100000\r\n" + DETECTOR[:500], Content_Length="", Transfer_Encoding="chunked")


def gone_round(files: Files) -> None:
    files.send_to("/det", "/there")
    files.send_to("/there", "/det")


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda files: files.give("/det", b"W" + DETECTOR[1:]), 2, "what came is not det.onnx"),
        (lambda files: files.give("/det", DETECTOR[:-1]), 2, "what came is not det.onnx"),
        (lambda files: files.give("/det", DETECTOR + b"x"), 2, "is larger than"),
        (lambda files: files.give("/det", b"", 404), 2, "127.0.0.1 answered with status 404"),
        (lambda files: files.give("/det", DETECTOR, 206), 2, "status 206"),
        (lambda files: files.give("/det", b"", 429), 4, "try again later"),
        (lambda files: files.give("/det", b"", 503), 4, "try again later"),
        (lambda files: files.give("/det", DETECTOR, Content_Type="text/html; charset=utf-8"), 2, "sent a page"),
        (lambda files: files.give("/det", DETECTOR, Content_Length=""), 2, "doesn't say how long"),
        (cut, 4, "127.0.0.1 can't be reached, or broke off"),
        (cut_in_a_chunk, 4, "127.0.0.1 can't be reached, or broke off"),
        (gone_round, 2, "without end"),
        (lambda files: files.send_to("/det", "http://example.invalid/det?key=SECRET"), 2, "only by https"),
        (lambda files: files.send_to("/det", "ftp://127.0.0.1/det?key=SECRET"), 2, "only by https"),
        (lambda files: files.send_to("/det", "file:///etc/hostname"), 2, "only by https"),
        (lambda files: files.send_to("/det", "https://127.0.0.1:9/det?key=SECRET"), 4, "can't be reached"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str], change: Any, code: int, says: str
) -> None:
    change(served[0])
    assert main(["models", "pull", "det", "swap"]) == code
    out, err = capsys.readouterr()
    (last,) = [line for line in err.splitlines() if line.startswith("nanoswap: ")]
    assert says in last
    assert "SECRET" not in err
    assert err.splitlines()[-1] == last
    assert (out, names(folder)) == ("", [])


def test_redirects_come_to_an_end(folder: Path, served: tuple[Files, str]) -> None:
    gone_round(served[0])
    assert main(["models", "pull", "det"]) == 2
    assert len(served[0].asked) == 6


def test_redirect_on_loopback_is_followed(folder: Path, served: tuple[Files, str]) -> None:
    files, url = served
    files.send_to("/det", f"{url}/moved")
    files.give("/moved", DETECTOR)
    assert main(["models", "pull", "det"]) == 0
    assert names(folder) == ["det.onnx"]


def test_file_of_unknown_length_comes_in_chunks(folder: Path, served: tuple[Files, str]) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SWAPPER), SWAPPER)
    served[0].give("/swap", body, Content_Length="", Transfer_Encoding="chunked")
    assert main(["models", "pull", "swap"]) == 0
    assert (folder / "swap.onnx").read_bytes() == SWAPPER


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("http://example.invalid/det", PullError, "example.invalid is not fetched by http"),
        ("http://127.0.0.1.example.invalid/det", PullError, "only by https"),
        ("http://localhost@example.invalid/det", PullError, "example.invalid is not fetched by http"),
        ("file:///etc/hostname", PullError, "only by https"),
        ("det", PullError, "only by https"),
        ("https://", PullError, "only by https"),
        ("https://a\x07/", PullError, "is not an address"),
        ("https://outside.invalid/to-loopback", PullError, "outside.invalid sends elsewhere: 127.0.0.1"),
        ("https://outside.invalid/to-http", PullError, "outside.invalid sends elsewhere: inside.invalid"),
        ("https://outside.invalid/away", Unreachable, "outside.invalid can't be reached"),
    ],
)
def test_only_https_and_never_from_outside_to_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, error: type[Exception], says: str
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        match request.url.path:
            case "/to-loopback":
                return httpx.Response(302, headers={"Location": "http://127.0.0.1:6379/"})
            case "/to-http":
                return httpx.Response(307, headers={"Location": "http://inside.invalid/"})
            case "/away":
                raise httpx.ConnectError("no such host")
        return httpx.Response(200, content=DETECTOR)

    client = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(model_pull.httpx, "Client", client)
    path = manifest(tmp_path / "m.toml", "https://outside.invalid", det=url.replace("\x07", "\\u0007"))
    store = ModelStore(tmp_path / "models", Manifest.read(path), frozenset({"closed"}))
    with pytest.raises(error, match=says) as found:
        pull(store, "det", lambda *_: None)
    assert type(found.value) is error
    assert names(store.folder) == []
    assert [one for one in asked if not one.startswith("https://outside.invalid/")] == []


def test_changed_file_is_wrong_until_locked_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "swap"]) == 0
    assert main(["models", "verify", "swap"]) == 0
    assert "swap: unlocked: " in capsys.readouterr().out
    assert main(["models", "lock", "swap"]) == 0
    (folder / "swap.onnx").write_bytes(b"other")
    capsys.readouterr()
    assert main(["models", "verify"]) == 2
    out, err = capsys.readouterr()
    assert f"swap: wrong: swap.onnx is not the agreed file: its SHA-256 begins {sha256(b'other')[:12]}" in out
    assert err == "nanoswap: not what was agreed on: swap\n"
    assert main(["models", "verify", "det", "occ"]) == 0, "what isn't asked for, or isn't there, is not wrong"
    assert main(["models", "lock", "swap"]) == 2
    assert main(["models", "lock", "swap", "--again"]) == 0
    assert main(["models", "verify", "swap"]) == 0


def test_published_hash_is_not_locked_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "det.onnx").write_bytes(b"other")
    assert main(["models", "lock", "det", "--again"]) == 2
    assert "not what the manifest says" in capsys.readouterr().err
    assert names(folder) == ["det.onnx"]


def test_broken_record_is_said_and_nothing_is_asked_for(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "models.lock").write_text("{")
    assert main(["models", "pull", "swap"]) == 2
    assert "models.lock can't be read" in capsys.readouterr().err
    assert served[0].asked == []
    assert names(folder) == ["models.lock"]


def test_json_is_all_that_goes_to_standard_output(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*words: str, code: int = 0) -> Any:
        assert main(["models", *words, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    assert answer("pull", "det", "swap") == {
        "models": [
            {"name": "det", "pulled": True, "sha256": sha256(DETECTOR), "next": None},
            {"name": "swap", "pulled": True, "sha256": sha256(SWAPPER), "next": "nanoswap models lock swap"},
        ]
    }
    found = answer("list")
    assert found["folder"] == str(folder)
    assert {one["name"]: one["state"] for one in found["models"]} == {
        "det": "ok", "enc": "missing", "swap": "unlocked", "occ": "missing"
    }  # fmt: skip
    assert {one["name"]: one["lacks"] for one in found["engines"]} == {"plain": [], "one": ["enc", "swap"]}
    assert answer("lock", "det", "swap") == {
        "models": [
            {"name": "det", "sha256": sha256(DETECTOR), "recorded": False},
            {"name": "swap", "sha256": sha256(SWAPPER), "recorded": True},
        ]
    }
    (folder / "det.onnx").write_bytes(b"x")
    states = answer("verify", "one", code=2)["models"]
    assert [one["state"] for one in states] == ["wrong", "missing", "ok"]
    assert answer("pull", "plain") == {"models": []}


def test_words_of_the_command_line_come_before_the_environment(
    folder: Path, served: tuple[Files, str], tmp_path: Path
) -> None:
    other = manifest(tmp_path / "other.toml", served[1], occ=f"{served[1]}/elsewhere")
    served[0].give("/elsewhere", b"elsewhere")
    assert main(["models", "pull", "occ", "--manifest", str(other), "--models", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "occ.onnx").read_bytes() == b"elsewhere"
    assert names(folder) == []
    assert main(["models", "pull", "det", "--accept", "free"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "nothing"], "no model and no engine 'nothing'"),
        (["verify", "nothing"], "no model and no engine 'nothing'"),
        (["lock", "occ"], "occ.onnx is not in"),
        (["list", "--manifest", "nowhere.toml"], "the manifest nowhere.toml can't be read"),
        (["pull", "det", "--models", "{file}"], "ours.toml: File exists"),
        (["lock", "occ", "--models", "{file}"], "occ.onnx is not in"),
    ],
)
def test_what_does_not_fit_is_exit_code_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["models", *(word.format(file=tmp_path / "ours.toml") for word in words)]) == 2
    (last,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nanoswap: ")]
    assert says in last


def test_engine_without_weights_needs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["pull", "plain"], ["verify", "plain"], ["lock", "plain", "--all"]):
        assert main(["models", *words]) == 0
        assert capsys.readouterr().out.startswith("nothing to ")
    assert names(folder) == []


def test_gate_is_a_name_for_its_classifiers(
    folder: Path, served: tuple[Files, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "gate: the manifest has none"
    assert main(["models", "pull", "gate"]) == 2
    assert "no model and no engine 'gate'" in capsys.readouterr().err
    path, url = Path(os.environ["NANOSWAP_MANIFEST"]), served[1]
    text = [path.read_text("utf-8")]
    for name, role in (("intimate", "content"), ("old", "age")):
        served[0].give(f"/{name}", name.encode())
        text += [
            f"[models.{name}]", f'role = "{role}"', f'url = "{url}/{name}"', f'file = "{name}.onnx"',
            f'sha256 = "{sha256(name.encode())}"', 'licence = "free"', 'repository = "r"', 'revision = "1"',
            'use = "u"', f"[models.{name}.card]", "side = 32",
            'classes = ["a", "b"]', 'refused = ["b"]', "threshold = 0.5",
            'source = "s"',
        ]  # fmt: skip
    path.write_text("\n".join([*text, "[gate]", 'needs = ["intimate", "old"]']), "utf-8")
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "gate: lacks intimate (missing), old (missing)"
    assert main(["models", "pull", "gate"]) == 0
    assert served[0].asked == ["/intimate", "/old"]
    assert main(["models", "verify", "gate"]) == 0
    capsys.readouterr()
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"] == {"there": True, "lacks": []}
