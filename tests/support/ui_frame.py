"""A page as the KFP UI shows an HTML artifact: in an iframe without an origin of its own, rendered by a real Chromium.

KFP's frontend (2.17, frontend/src/components/viewers/HTMLViewer.tsx) gives the artifact's text to an iframe with
sandbox="allow-scripts": the page can run scripts, and can read, store and reach nothing of the UI's.
"""

import html
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

ROOM = 200
"""What a window takes of its height for itself; below what is left nothing is drawn."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--run-all-compositor-stages-before-draw",
        # The frame in the page's own process, or the picture may be taken before the other one has drawn; its origin stays none.
        "--disable-features=IsolateSandboxedIframes",
        "--virtual-time-budget=3000",
    ),
)
FRAME = """<!doctype html><meta charset="utf-8">
<style>html, body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: {height}px }}</style>
<iframe sandbox="allow-scripts" srcdoc="{page}"></iframe>"""


def find_browser() -> str | None:
    """The program; None where no Chromium is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def screenshot(browser: str, page: str, target: Path, *, width: int, height: int) -> list[str]:
    """The page in the UI's frame is a PNG at `target`. Returns what the browser's console said, one line a message."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(page=html.escape(page), width=width, height=height), encoding="utf-8")
        command = [
            browser,
            *FLAGS,
            f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height + ROOM}",
            "--enable-logging=stderr",
        ]
        done = subprocess.run(
            [*command, "--enable-logging=stderr", f"--screenshot={target}", frame.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    if not target.is_file():
        raise RuntimeError(f"{browser} made no picture: {done.stderr[-2000:]}")
    target.write_bytes(cropped(target.read_bytes(), height))
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def cropped(png: bytes, height: int) -> bytes:
    """The picture's upper part. Each row of a PNG hangs on those above it alone (PNG specification, section 9), so the rest can go."""
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += size + 12
    width, had, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[0][1])
    row_bytes = 1 + width * {2: 3, 6: 4}[colour] * depth // 8
    rows = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))[: row_bytes * min(height, had)]
    head = struct.pack(">II", width, min(height, had)) + chunks[0][1][8:]
    made = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return png[:8] + b"".join(_chunk(kind, content) for kind, content in made)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
