"""Which files of which Debian packages make the English corpus, and what kind each is."""

# ruff: noqa: E501 - one pattern a line is easier to read than a broken one

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Files of one package.

    ``include`` and ``exclude`` are regular expressions searched in the path inside the package.
    """

    package: str
    kind: str
    include: str
    exclude: str = "(?!)"
    license: str = ""
    also: tuple[tuple[str, str], ...] = ()
    """Further (kind, include) pairs."""


INDEXES = (
    r"(genindex|modindex|bookindex|search|_modules/|_sources/|_static|[Ii]ndex\.html|_index|-Index|sitemap|keyword)"
)

TRAINING = (
    Source("linux-doc-6.1", "rst", r"Documentation/.*\.(rst|txt)\.gz$",
           r"/(translations|devicetree/bindings|ABI|media/.*cardlist|index\.rst|features|maintainer-tables)|/(CREDITS|devices)", "GPL-2"),
    Source("anarchism", "html", r"/html/.*\.html$", r"(index|sitemap|changelog)", "GFDL-1.3 or GPL-2"),
    Source("python3.11-doc", "html", r"/html/.*\.html$", INDEXES + r"|whatsnew/changelog|/(contents|license|copyright)\.html|c-api/stable|distutils/", "PSF-2"),
    Source("postgresql-doc-15", "html", r"/html/.*\.html$", r"bookindex|legalnotice|features-sql|unsupported-features|sql-keywords|errcodes|biblio", "PostgreSQL"),
    Source("perl-doc", "pod", r"\.pod$", r"perltoc|perlapi|perlintern|perluniprops|perl(cn|jp|ko|tw)\.pod|perlmodlib", "GPL-1+ or Artistic",
           (("man", r"/man3/.*\.gz$"),)),
    Source("debian-policy", "html", r"policy\.html/.*\.html$|fhs.*\.html$", INDEXES, "GPL-2+"),
    Source("developers-reference", "html", r"\.html$", INDEXES, "GPL-2+"),
    Source("debian-reference-en", "html", r"\.en\.html$", r"index", "GPL-2+"),
    Source("debian-handbook", "html", r"/en-US/.*\.html$", r"(index|ix01)\.html", "CC-BY-SA-3 and GPL-2+"),
    Source("installation-guide-amd64", "html", r"/en/.*\.html$", r"index\.html", "GPL-2"),
    Source("debian-faq", "html", r"\.html$", r"index\.|\.[a-z]{2}(_[A-Z]{2})?\.html$(?<!en\.html)", "GPL-2+"),
    Source("debmake-doc", "html", r"\.en\.html$|/en/.*\.html$", r"index", "MIT"),
    Source("git-doc", "html", r"\.html$", r"RelNotes|index|everyday\.html", "GPL-2"),
    Source("sqlite3-doc", "html", r"\.html$", r"(keyword_index|sitemap|doclist|/search|releaselog/|capi3ref|toc_|changes|requirements|matrix|hlr|copyright|c3ref/(funclist|constlist|objlist))", "public domain"),
    Source("r-doc-html", "html", r"R-[a-z]+\.html$", "", "GPL-2+"),
    Source("python-django-doc", "html", r"/html/.*\.html$", INDEXES, "BSD-3"),
    Source("python-sqlalchemy-doc", "html", r"/html/.*\.html$", INDEXES + "|changelog/", "MIT"),
    Source("llvm-14-doc", "html", r"/html/.*\.html$", INDEXES + "|AMDGPU/", "Apache-2 with LLVM exception"),
    Source("ghc-doc", "html", r"users_guide.*\.html$|/Cabal/.*\.html$", INDEXES, "BSD-3"),
    Source("rust-doc", "html", r"/html/(book|reference|nomicon|cargo|edition-guide|rust-by-example|embedded-book|rustc|rustdoc|unstable-book)/.*\.html$",
           r"print\.html|/(first|second|2018)-edition/|all\.html|toc\.html", "MIT or Apache-2"),
    Source("libboost1.81-doc", "html", r"\.html?$", INDEXES + r"|/doxygen/|header/|BOOST_|_hpp\.html|_Ref|reference/|/html/boost/|/doc/html/[a-z_]+/reference|functions|classes|[Cc]lass_|struct_|_8", "BSL-1"),
    Source("octave-doc", "html", r"octave\.html/.*\.html$", INDEXES, "GPL-3+"),
    Source("maxima-doc", "html", r"/html/maxima_[^/]*\.html$", r"maxima_(toc|singlepage|index)|_\d+\.html\.\w+", "GPL-2+"),
    Source("gap-doc", "html", r"/doc/(ref|tut|hpc|dev)/chap\d+\.html$", r"_mj|chapInd|chapBib", "GPL-2+"),
    Source("zsh-doc", "html", r"/html/.*\.html$", INDEXES + r"|_toc|_abt", "MIT-like"),
    Source("vim-doc", "html", r"/vim/html/.*\.html$", r"tags\.html|index|version\d|todo\.html", "Vim"),
    Source("apache2-doc", "html", r"/manual/en/.*\.html$", r"(sitemap|quickreference|directives|indexes|new_api)", "Apache-2"),
    Source("exim4-doc-html", "html", r"\.html$", r"index_|index\.|ix0", "GPL-2+"),
    Source("erlang-doc", "html", r"/doc/html/.*\.html$|/html/doc/.*\.html$", r"lib/wx-|jinterface|/java/|/(index|notes|users_guide|release_notes|man_index)\.html", "Apache-2"),
    Source("libreoffice-help-en-us", "html", r"/en-US/text/.*\.html$", r"(main\d|bookmarks)", "MPL-2 or LGPL-3+"),
    Source("gnome-user-docs", "html", r"/help/C/.*\.page$", r"legal", "CC-BY-SA-3"),
    Source("slurm-wlm-doc", "html", r"\.html$", r"index|team|publications|meetings", "GPL-2+"),
    Source("gettext-doc", "html", r"gettext_[^/]*\.html$", r"toc|abt|javadoc|csharpdoc", "GPL-3+"),
    Source("bash-doc", "html", r"\.html$", r"index", "GFDL-1.3"),
    Source("libstdc++-12-doc", "html", r"/manual/.*\.html$|libstdc\+\+/[^/]*\.html$", r"index", "GFDL-1.2+ or GPL-3+"),
    Source("jargon-text", "text", r"jargon\.txt\.gz$", "", "public domain"),
    Source("manpages", "man", r"/man[1-8]/.*\.gz$", "", "free, per page"),
    Source("manpages-dev", "man", r"/man[2-4]/.*\.gz$", "", "free, per page"),
)  # fmt: skip

HEADERS = "linux-headers-6.1.0-50-common"
"""Package of the C headers; any of its versions would do."""
