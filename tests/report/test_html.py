from __future__ import annotations

import base64
import csv
import io
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_sim.errors import ConfigError
from scaling_sim.report import ReportData, render_report, write_report
from scaling_sim.report.html import header_facts, maths

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def page(study: ReportData) -> str:
    return render_report(study)


@pytest.fixture(scope="module")
def fit_page(fit_only: ReportData) -> str:
    return render_report(fit_only)


class Reader(HTMLParser):
    """Collects tags, and checks that they close in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_but_itself(page: str) -> None:
    reader = Reader(page)
    assert not reader.open
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe", "object", "img"}
        for name in ("src", "href", "xlink:href", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:text/csv")), (tag, target[:60])
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://|@import|url\((?!#)", outside)
    assert len(page.encode()) < 6_000_000


def test_ids_are_unique_and_every_link_leads_somewhere(page: str) -> None:
    ids = [attributes["id"] for _, attributes in Reader(page).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"] for _, a in Reader(page).tags if (a.get("href") or "").startswith("#")}
    assert {str(link)[1:] for link in links} <= set(ids)


def test_header_says_what_it_is(page: str, study: ReportData) -> None:
    assert study.table is not None
    for text in (study.table.data_hash, study.command, study.title, "numpy", "ESS 1420", study.flags[0]):
        assert text in page


def test_every_figure_brings_its_data(page: str) -> None:
    assert page.count("<figure ") >= 12
    assert page.count("<figure ") == page.count("Data of this figure")
    for encoded in re.findall(r"base64,([A-Za-z0-9+/=]+)", page):
        rows = list(csv.reader(io.StringIO(base64.b64decode(encoded).decode())))
        assert len({len(row) for row in rows}) == 1


def test_a_fit_without_records_shows_what_there_is(fit_page: str) -> None:
    assert "Parameters of chinchilla" in fit_page
    assert "Not shown, and why" in fit_page
    assert "the report has no learning curves" in fit_page
    assert "Simulated runs" not in fit_page


def test_folders_of_the_owner_are_not_told(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    data = changed(
        fit_only, fits={"chinchilla": changed(fit, runs=changed(fit.runs, source="/home/ann/secret/runs.csv"))}
    )
    values = dict(header_facts(data))
    assert values["data"] == "120 rows of 120 runs from runs.csv"


def test_an_empty_report_is_still_a_page() -> None:
    text = render_report(ReportData(title="nothing yet"))
    assert not Reader(text).open
    assert "none fitted" in text


def test_same_data_same_page(fit_only: ReportData, fit_page: str) -> None:
    assert render_report(fit_only) == fit_page


def test_simulated_runs_are_announced(page: str, fit_only: ReportData, changed: Any) -> None:
    assert "Simulated runs." in page
    fit = changed(fit_only.fits["chinchilla"], runs=changed(fit_only.fits["chinchilla"].runs, simulated=True))
    assert "Simulated runs." in render_report(changed(fit_only, fits={"chinchilla": fit}))


def test_a_fit_that_did_not_converge_is_announced(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    verdict = "not converged: R-hat 1.23 in log_A_E"
    broken = changed(fit, diagnostics=changed(fit.diagnostics, converged=False, verdict=verdict))
    text = render_report(changed(fit_only, fits={"chinchilla": broken}))
    assert "Not converged." in text
    assert "R-hat 1.23 in log_A_E" in text
    assert "<strong>Converged.</strong>" not in text


def test_a_converged_fit_that_misses_the_data_gets_a_second_verdict(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    for sigma, kind, words in ((0.05, "doubtful", "Only roughly"), (0.001, "fine", "Fits the data.")):
        noise = {**fit.noise, "sigma": np.full_like(fit.noise["sigma"], sigma)}
        text = render_report(changed(fit_only, fits={"chinchilla": changed(fit, noise=noise)}, backtest=None))
        assert re.search(rf'<p class="banner {kind}"><strong>[^<]*{words}', text)
        assert "<strong>Converged.</strong>" in text


def test_a_parameter_that_was_not_identified_is_named(fit_only: ReportData, changed: Any) -> None:
    fit = fit_only.fits["chinchilla"]
    weak = changed(fit, identifiability={"alpha": 0.05, "beta": 0.9})
    text = render_report(changed(fit_only, fits={"chinchilla": weak}))
    assert "chinchilla: beta not identified" in text
    assert ">not identified<" in text
    told = render_report(changed(fit_only, not_identified={"chinchilla": ("A",)}))
    assert "chinchilla: A not identified" in told


def test_a_refused_crossover_says_why(study: ReportData, changed: Any) -> None:
    data = changed(
        study, crossover=None, crossover_refusal="recipes differ: L(D) lies above L(C_min)", fits={}, records=()
    )
    assert "No crossover: recipes differ" in render_report(data)


def test_hostile_names_are_shown_and_never_run(fit_only: ReportData, changed: Any) -> None:
    runs = fit_only.fits["chinchilla"].runs
    names = runs.run.astype("<U80")
    names[0], names[1] = HOSTILE, "=cmd|' /C calc'!A0"
    runs = changed(
        runs, run=names, source=HOSTILE, notes=(HOSTILE,), dropped={HOSTILE: (HOSTILE, "=1+1")}, data_hash=""
    )
    fit = changed(fit_only.fits["chinchilla"], runs=runs)
    data = changed(
        fit_only, title=HOSTILE, fits={"chinchilla": fit}, command=HOSTILE, flags=(HOSTILE,), corpus={HOSTILE: HOSTILE}
    )
    text = render_report(data)
    assert {tag for tag, _ in Reader(text).tags}.isdisjoint({"script", "img"})
    assert "&lt;script&gt;" in text
    tables = [base64.b64decode(code).decode() for code in re.findall(r"base64,([A-Za-z0-9+/=]+)", text)]
    cells = [cell for table in tables for row in csv.reader(io.StringIO(table)) for cell in row]
    assert "'=cmd|' /C calc'!A0" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_formulas_are_set_after_escaping() -> None:
    assert maths("α_N and C_min, N^0.74") == "α<sub>N</sub> and C<sub>min</sub>, N<sup>0.74</sup>"
    assert maths("<b>α_N</b>") == "&lt;b&gt;α<sub>N</sub>&lt;/b&gt;"
    assert maths("file_name, alpha_N, my.N_c") == "file_name, alpha_N, my.N_c"


def test_writing_is_all_or_nothing(fit_only: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "deep" / "report.html"
    empty = ReportData(title="first")
    assert write_report(empty, target) == target
    before = target.read_text()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(ReportData(title="second"), target)
    assert target.read_text() == before
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot create the folder"):
        write_report(ReportData(title="x"), tmp_path / "file" / "report.html")
