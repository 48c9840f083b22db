"""A small HTML page for one artifact of a step: title, one line about it, a body; needs nothing beside it and no template engine."""

from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5d6778; --paper: #ffffff; --card: #f4f6f9; --line: #dfe4ea;
  --steel: #3d6a94; --ember: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a3b3; --paper: #14181e; --card: #1d232b; --line: #2e3742;
  --steel: #7fb0dc; --ember: #f0935a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 52rem; padding: 1.5rem 1.25rem 2rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, "Hiragino Sans", "Noto Sans JP", "Noto Sans CJK JP", sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 1.4rem; letter-spacing: -0.01em; }
h2 { margin: 1.5rem 0 0.5rem; font-size: 1rem; }
p { margin: 0.3rem 0 1rem; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.key .training { color: var(--steel); }
.key .held-out { color: var(--ember); }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0.35rem 0; border-bottom: 1px solid var(--line); text-align: right; font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--soft); }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem; }
.answers div { background: var(--card); border-radius: 8px; padding: 0.7rem 0.95rem 0.85rem; border-left: 3px solid var(--line);
  overflow-wrap: anywhere; white-space: pre-wrap; }
.answers .tuned { border-left-color: var(--ember); }
.answers .base { color: var(--soft); }
.answers small { display: block; color: var(--soft); font-size: 0.8rem; }
svg { display: block; width: 100%; height: auto; }
svg .grid { stroke: var(--line); }
svg .epoch { stroke: var(--soft); stroke-dasharray: 1 4; }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .value { fill: var(--ember); font-size: 13px; font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg polyline.training { stroke: var(--steel); }
svg polyline.held-out { stroke: var(--ember); stroke-width: 1.5; stroke-dasharray: 4 4; }
svg circle.held-out { fill: var(--ember); stroke: var(--paper); stroke-width: 2; }
@media (max-width: 36rem) { .answers { grid-template-columns: 1fr; } }
"""


def plain_page(title: str, about: str, body: str) -> str:
    """The page's HTML. Title and `about` are escaped here; `body` is HTML already."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n'
        f'</head>\n<body>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(about)}</p>\n{body}\n</body>\n</html>\n'
    )
