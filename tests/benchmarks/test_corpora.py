"""The English corpus' cleaning, deduplication and unpacking, on small inputs."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import pytest

from benchmarks.corpora import build_english
from benchmarks.corpora.cleaning import (
    Deduplicator,
    cleaned,
    decoded,
    html_paragraphs,
    pod_paragraphs,
    roff_paragraphs,
    rst_paragraphs,
)
from benchmarks.corpora.packing import pack, unpack

PAGE = """<html><head><title>T</title><style>p {}</style></head><body>
<div class="related"><div><a href="n">next</a></div> stray</div>
<h1>Locks <a class="headerlink" href="#l">¶</a></h1>
<p>A lock   is <b>held</b> &amp; then
released.</p>
<ul><li><a href="a.html">All the pages</a></li><li>One <a href="b">item</a> among words</li></ul>
<pre>if x:
    y()</pre>
<script>alert("no")</script><div class="footer">Copyright somebody</div></body></html>"""


def test_html_keeps_text_and_code_and_drops_navigation() -> None:
    assert html_paragraphs(PAGE) == [
        "Locks",
        "A lock is held & then released.",
        "- One item among words",
        "if x:\n    y()",
    ]


def test_hidden_element_ends_with_its_own_tag() -> None:
    page = "<div class='sphinxsidebar'><p>a<div>b</div><br>c</div><p>Kept words.</p>"
    assert html_paragraphs(page) == ["Kept words."]


def test_rst_loses_roles_underlines_and_directives() -> None:
    source = (
        ".. SPDX-License-Identifier: GPL-2.0\n\nTitle\n=====\n\n.. toctree::\n   :maxdepth: 1\n\n   one\n   two\n\n"
        "See :c:func:`kmalloc` and `the page <x.html>`_, or ``ls``::\n\n    code here\n"
    )
    assert rst_paragraphs(source) == ["Title", "See kmalloc and the page, or ls:", "    code here"]


def test_pod_loses_its_codes() -> None:
    source = "=head1 NAME\n\n=over 4\n\n=item C<< $x->y >>\n\nUse B<this I<one>>, E<lt>not L<that|perlop/x>.\n\n=cut\n"
    assert pod_paragraphs(source) == ["NAME", "$x->y", "Use this one, <not that."]


def test_man_page_is_filled_without_macros() -> None:
    source = (
        '.\\" licence\n.TH X 2\n.SH NAME\nx \\- do it\n.SH DESCRIPTION\n.BR x ()\n.\\" note\nwrites\n.I buf\nout.\n'
        ".PP\nNext.\n.TS\na\tb\n.TE\n"
    )
    text = [paragraph.strip() for paragraph in roff_paragraphs(source)]
    assert text == ["NAME", "x - do it", "DESCRIPTION", "x() writes buf out.", "Next."]


def test_gzipped_and_latin_1_files_are_read() -> None:
    assert decoded(gzip.compress("naïve".encode()), "a.txt.gz") == "naïve"
    assert decoded("naïve".encode("latin-1"), "a.txt") == "naïve"


def test_tables_constants_and_other_scripts_are_not_text() -> None:
    paragraphs = [
        "0x00 | 1 | 23.5\n0x01 | 2 | 99.1",
        "- DTV_TUNE",
        "это не английский текст",
        "+----+----+",
        "Plain\twords. \x07",
    ]
    assert list(cleaned(paragraphs)) == ["Plain   words."]


def test_a_paragraph_comes_once_and_short_ones_again() -> None:
    unique, long = Deduplicator(), "A paragraph that is long enough to be compared with others."
    assert [unique.add(text) for text in (long, long.replace(" ", "\n"), "For example:", "For example:")] == [
        True, False, True, True,
    ]  # fmt: skip
    assert unique.dropped_bytes == len(long)


def test_pack_is_reproducible_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "in" / "train").mkdir(parents=True)
    (tmp_path / "in" / "train" / "a.txt").write_text("words\n")
    sizes = [pack(tmp_path / "in", tmp_path / f"{name}.tar.xz") for name in "xy"]
    assert sizes[0] == (tmp_path / "x.tar.xz").stat().st_size
    assert (tmp_path / "x.tar.xz").read_bytes() == (tmp_path / "y.tar.xz").read_bytes()
    unpack(tmp_path / "x.tar.xz", tmp_path / "out")
    assert (tmp_path / "out" / "train" / "a.txt").read_text() == "words\n"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out.txt", tarfile.REGTYPE),
        ("/abs.txt", tarfile.REGTYPE),
        ("a/../../b", tarfile.REGTYPE),
        ("l", tarfile.SYMTYPE),
    ],
)
def test_unpack_refuses_what_leads_outside(tmp_path: Path, name: str, kind: bytes) -> None:
    with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, 0 if kind == tarfile.SYMTYPE else 2, "/"
        tar.addfile(member, io.BytesIO(b"hi"))
    with pytest.raises(ValueError, match="plain files inside"):
        unpack(tmp_path / "bad.tar.xz", tmp_path / "target" / "deep")
    assert not list(tmp_path.rglob("*.txt"))


def test_r_strings_are_read() -> None:
    words = [b"Emma", b"by"]
    body = b"".join(struct.pack(">ii", 9, len(word)) + word for word in words)
    header = b"X\n" + struct.pack(">iii", 3, 0x40201, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
    assert list(build_english.r_strings(header + struct.pack(">ii", 16, 2) + body)) == ["Emma", "by"]


def test_spread_takes_parts_from_all_over() -> None:
    text = "\n\n".join(f"{index:05} " + "word " * 100 for index in range(2000))
    taken = build_english.spread(text, len(text) // 10)
    assert len(taken) == pytest.approx(len(text) / 10, rel=0.15)
    assert taken.startswith("00000")
    assert int(taken.split("\n\n")[-1][:5]) > 1500
