"""Figures as small SVG text that is the same every time and may stand beside others in one page."""

from __future__ import annotations

import io
import re

from scaling_sim.report.figures.canvas import ReportFigure, style

_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_COORDINATES = re.compile(r'(?<![\w-])(d|x|y|points)="([^"]*)"')


def to_svg(figure: ReportFigure) -> str:
    """SVG of ``figure``: letters as paths (no font needed), ids prefixed by its name, no date, two decimals."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return _responsive(_unique_ids(_rounded(text), figure.name), figure.heading)


def to_png(figure: ReportFigure, dpi: float = 100.0) -> bytes:
    """PNG of ``figure``."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _rounded(text: str) -> str:
    def shorten(match: re.Match[str]) -> str:
        return f'{match[1]}="{_NUMBER.sub(lambda n: _short(n[0]), match[2])}"'

    return re.sub(r"\s*\n\s*", "\n", _COORDINATES.sub(shorten, text))


def _short(number: str) -> str:
    text = f"{float(number):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _unique_ids(text: str, name: str) -> str:
    """Rename every id to ``name-k`` in order of appearance; ids that nothing refers to are dropped."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    names: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        old = match[1]
        if old not in used:
            return ""
        return f' id="{names.setdefault(old, f"{name}-{len(names)}")}"'

    text = re.sub(r'\sid="([^"]+)"', rename, text)
    return re.sub(r'(href="#|url\(#)([^")]+)', lambda m: m[1] + names.get(m[2], m[2]), text)


def _responsive(text: str, heading: str) -> str:
    from html import escape

    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(heading, quote=True)}">{rest}'
