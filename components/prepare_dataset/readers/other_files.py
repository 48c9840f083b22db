"""The first bytes of a file -> what it is, where it is no file of records: an archive, a document,
a page, a pointer."""

_ARCHIVE = "unpack it, and name the files in it"
_TABLE = "save its table as CSV, with UTF-8"
_FIRST_BYTES = (
    (
        b"PK\x03\x04",
        f"a ZIP archive, as .xlsx and .docx are too. Fix: {_ARCHIVE}; of a workbook, {_TABLE}",
    ),
    (b"\xd0\xcf\x11\xe0", f"a file of Excel or Word as of before 2007. Fix: {_TABLE}"),
    (b"%PDF-", "a PDF. Fix: write its text as .txt or JSONL"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive. Fix: {_ARCHIVE}"),
    (b"Rar!", f"a RAR archive. Fix: {_ARCHIVE}"),
    (b"BZh", "packed by bzip2. Fix: unpack it, or pack it by gzip or zstd"),
    (b"\xfd7zXZ\x00", "packed by xz. Fix: unpack it, or pack it by gzip or zstd"),
    (b"SQLite format 3\x00", "a database of SQLite. Fix: export its table as CSV or Parquet"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS, which stands for the file. Fix: fetch the file, by `git lfs pull`",
    ),
)
"""PKWARE APPNOTE 4.3.7; [MS-CFB] 2.2; ISO 32000 7.5.2; 7zFormat.txt; the xz file format 2.1.1.1;
SQLite's "Database File Format" 1.3; git-lfs, docs/spec.md."""
_TAR, _TAR_AT = b"ustar", 257
"""POSIX.1, pax: `magic` of a header."""
_PAGES = (b"<!doctype html", b"<html")


def other_file(start: bytes, kind: str) -> str | None:
    """What a file with these first bytes is and how to make records of it; None where it may be one
    of records. `kind` is the suffix of its name."""
    for first, what in _FIRST_BYTES:
        if start.startswith(first):
            return f"is {what}"
    if start[_TAR_AT:].startswith(_TAR):
        return f"is a tar archive. Fix: {_ARCHIVE}"
    if kind != ".txt" and start.lstrip().lower().startswith(_PAGES):
        return (
            "is an HTML page, which a site answers in place of a file. Fix: sign in, accept its "
            "terms, or correct the address, and fetch the file again"
        )
    return None
