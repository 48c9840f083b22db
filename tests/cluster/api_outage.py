"""Two ways in which an API server is away: connections that break and are refused, and a process
that stands still."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml


class Wire:
    """Passes bytes on between a port of this machine and a server, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self._open: list[socket.socket] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Inside the block every connection is broken, and new ones are refused."""
        self.close()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self._behind)
                self._open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def wire_to_api(folder: Path) -> Iterator[tuple[Wire, Path]]:
    """The wire, and a kubeconfig that leads through it."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    current = next(
        each["context"] for each in config["contexts"] if each["name"] == config["current-context"]
    )
    cluster = next(
        each["cluster"] for each in config["clusters"] if each["name"] == current["cluster"]
    )
    server = urlsplit(cluster["server"])
    assert server.hostname is not None
    wire = Wire(server.hostname, server.port or 443)
    cluster["server"] = f"https://127.0.0.1:{wire.port}"
    kubeconfig = folder / "kubeconfig-by-wire"
    kubeconfig.write_text(yaml.safe_dump(config))
    try:
        yield wire, kubeconfig
    finally:
        wire.close()


@contextmanager
def api_server_standing_still() -> Iterator[None]:
    """SIGSTOP inside the block. Skips where the cluster's API server is no process of this
    machine."""
    found = [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "kube-apiserver"
    ]
    if not found:
        pytest.skip("needs a cluster whose kube-apiserver is a process of this machine, to stop it")
    for process in found:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found:
            process.send_signal(signal.SIGCONT)
