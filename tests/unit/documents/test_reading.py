"""Files of every kind, and every way in which one can be no good."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from docx import Document
from pypdf import PdfWriter

from ironbeat.workloads.documents import reading
from ironbeat.workloads.documents.chunking import Block
from ironbeat.workloads.documents.reading import Unreadable, media_type, read


def pdf(text: str, password: str | None = None) -> bytes:
    """A PDF of one page, made by hand: a content stream in a standard font."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, 2)
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    out.write(
        b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table)
    )
    if password is None:
        return out.getvalue()
    writer = PdfWriter(clone_from=io.BytesIO(out.getvalue()))
    writer.encrypt(password, algorithm="RC4-128")
    sealed = io.BytesIO()
    writer.write(sealed)
    return sealed.getvalue()


def docx() -> bytes:
    document = Document()
    document.add_heading("Install", 1)
    document.add_paragraph("Run the installer. 然后重启。")
    document.add_table(rows=1, cols=2).rows[0].cells[0].text = "cell"
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def blocks(path: Path) -> list[Block]:
    return list(read(path).blocks)


def test_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        "1.2 A heading\n\nA paragraph\nof two lines.\n\nTitle\n=====\n\n第一行\n第二行。\n"
    )
    assert blocks(path) == [
        Block("1.2 A heading", 2),
        Block("A paragraph of two lines."),
        Block("Title", 1),
        Block("第一行第二行。"),
    ]


def test_markdown(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\ntags: x\n---\n# One **bold**\n\nText with a [link](http://x) and `code`.\n\n"
        "```\n# no heading\n```\n\nTwo\n---\n\n- item 1\n- item 2\n\n| a | b |\n|---|---|\n"
    )
    assert blocks(path) == [
        Block("One bold", 1),
        Block("Text with a link and code."),
        Block("Two", 2),
        Block("item 1"),
        Block("item 2"),
        Block("a | b"),
    ]


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(
        "<title>T</title><nav>menu</nav><script>no()</script><h2>Head <b>bold</b></h2><div>in "
        "<p>a<br>b</p> after</div><ul><li>one<ul><li>two</li></ul></li></ul>"
    )
    source = read(path)
    assert source.title == "T"
    assert [(b.text, b.level) for b in source.blocks] == [
        ("Head bold", 2), ("in", 0), ("a b", 0), ("after", 0), ("one", 0), ("two", 0),
    ]  # fmt: skip


def test_deeply_nested_html_is_read_without_recursion(tmp_path: Path) -> None:
    path = tmp_path / "deep.html"
    path.write_text("<div>" * 5000 + "deep" + "</div>" * 5000)
    assert [b.text for b in read(path).blocks] == ["deep"]


def test_pdf_docx_and_what_is_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("Hello from a page."))
    (tmp_path / "b.docx").write_bytes(docx())
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("压缩的文本。".encode()))
    assert blocks(tmp_path / "a.pdf") == [Block("Hello from a page.")]
    assert blocks(tmp_path / "b.docx")[:2] == [
        Block("Install", 1),
        Block("Run the installer. 然后重启。"),
    ]
    assert blocks(tmp_path / "c.txt.gz") == [Block("压缩的文本。")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "big5"])
def test_encodings_of_chinese(tmp_path: Path, encoding: str) -> None:
    text = (
        "自由軟體是使用者的自由。請先安裝系統，再設定網路。" * 20
        if encoding == "big5"
        else ("自由软件是用户的自由。请先安装系统，再设置网络。" * 20)
    )
    path = tmp_path / "zh.txt"
    path.write_bytes(text.encode(encoding))
    source = read(path)
    assert source.blocks[0].text == text
    assert source.encoding is not None


def test_a_page_in_its_declared_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes('<meta charset="gb2312"><p>中文</p>'.encode("gb2312"))
    assert [b.text for b in read(path).blocks] == ["中文"]


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * (reading.MAX_BYTES + 1))
    return out.getvalue()


BAD = {
    "empty.txt": (b"", "empty: 0 bytes"),
    "blank.txt": (b" \n\t\n", "no text in it"),
    "binary.txt": (bytes(range(256)) * 20, "binary, not text"),
    "mixed.txt": ("自由软件" * 50).encode() + bytes(range(128, 256)) * 40,
    "broken.pdf": (b"%PDF-1.7\nnot really", "broken: "),
    "cut.pdf": (pdf("x")[:200], "broken: "),
    "secret.pdf": (pdf("x", "password"), "encrypted: it needs a password"),
    "broken.docx": (b"PK\x03\x04 not a zip", "broken: BadZipFile"),
    "old.docx": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600,
        "encrypted, or of the old kind",
    ),
    "bomb.docx": (bomb(), "too large: it unpacks to more than"),
    "cut.txt.gz": (gzip.compress(b"x" * 10_000)[:-9], "broken: EOFError"),
    "picture.html": (b"<html><body><img src=x></body></html>", "no text in it"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_a_reason(tmp_path: Path, name: str) -> None:
    found = BAD[name]
    content, reason = found if isinstance(found, tuple) else (found, "mis-encoded")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        read(path)


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(1024**3)
    with pytest.raises(Unreadable, match="too large: 1,073,741,824 bytes"):
        read(path)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(Unreadable, match="unpacks to more than"):
        read(path, max_bytes=50_000)


def test_kinds_by_name() -> None:
    assert media_type(Path("A.PDF")) == "pdf"
    assert media_type(Path("a.html.gz")) == "html"
    assert media_type(Path("a.exe")) is None
    with pytest.raises(Unreadable, match="not a kind of file"):
        read(Path("a.exe"))
