"""Files as blocks of text: plain text, Markdown, HTML, PDF and DOCX, also compressed with gzip.

A file that cannot be read raises :class:`Unreadable` with a reason for people: it is broken,
encrypted, empty, too large, or in no encoding that makes sense. Nothing of a file is executed or
fetched, and what it unpacks to is bounded.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import signal
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ironbeat.workloads.documents.chunking import Block
from ironbeat.workloads.documents.text import tidy

MAX_BYTES = 200 * 1024 * 1024
# Text of that many characters is some ten thousand pages.
MAX_CHARACTERS = 50_000_000
MAX_PAGES = 20_000
READ_SECONDS = 300
# How much is looked at to find an encoding, and how much disorder is let pass.
SAMPLE_BYTES = 256 * 1024
MAX_CHAOS = 0.2

_HEADING_OF_MARKDOWN = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_NUMBERED_HEADING = re.compile(r"^(\d{1,2}(?:\.\d{1,2}){1,3})\.?\s+[^\W\d].{0,100}$")
_CHAPTER = re.compile(
    r"^(?:Chapter|Part|Appendix)\s+\w+\.?\s|^第\s?[\d一二三四五六七八九十]+\s?[章部]"
)
_DOTS_OF_CONTENTS = re.compile(r"(?:\. ?){4,}|\.{4,}|…{2,}")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.I)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SKIPPED_TAGS = frozenset(
    {"script", "style", "noscript", "template", "nav", "head", "svg", "form", "iframe"}
)
_BLOCK_NAMES = """
address article aside blockquote body caption center dd details div dl dt fieldset
figcaption figure footer h1 h2 h3 h4 h5 h6 header hr html li main ol p pre section
summary table tbody td tfoot th thead tr ul
"""
_BLOCK_TAGS = frozenset(_BLOCK_NAMES.split())


class Unreadable(Exception):
    """A file that cannot be read; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was read of one file."""

    media_type: str
    encoding: str | None
    title: str
    blocks: tuple[Block, ...]


def media_type(path: Path) -> str | None:
    """The kind of file by its name, compressed or not; ``None``: not one that is read here."""
    name = path.name.lower().removesuffix(".gz")
    return _KINDS.get(Path(name).suffix)


def read(path: Path, *, max_bytes: int = MAX_BYTES, seconds: int = READ_SECONDS) -> Source:
    """Read one file. Raises :class:`Unreadable`."""
    kind = media_type(path)
    if kind is None:
        raise Unreadable(f"not a kind of file that is read here ({path.suffix or 'no suffix'})")
    try:
        size = path.stat().st_size
        if size == 0:
            raise Unreadable("empty: 0 bytes")
        if size > max_bytes:
            raise Unreadable(f"too large: {size:,} bytes, at most {max_bytes:,} are read")
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be opened: {error.strerror or error}") from error
    if path.name.lower().endswith(".gz"):
        data = _unpacked(data, max_bytes)
    with _bounded(seconds):
        source = _READERS[kind](data, path)
    if not any(not block.level and tidy(block.text) for block in source.blocks):
        raise Unreadable("no text in it")
    return source


# -- text


def decoded(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of ``data`` and its encoding. Raises :class:`Unreadable`."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            return _strictly(data, encoding)
    if b"\x00" in data[:SAMPLE_BYTES]:
        raise Unreadable("binary, not text: it has NUL bytes")
    for likely in ("utf-8", declared):
        if likely:
            try:
                return data.decode(likely), likely
            except (UnicodeDecodeError, LookupError):
                continue
    from charset_normalizer import from_bytes

    # Cut at a line's end, lest a character be cut.
    sample = data[:SAMPLE_BYTES]
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    best = from_bytes(sample, threshold=MAX_CHAOS).best()
    if best is None or best.percent_chaos > MAX_CHAOS * 100:
        raise Unreadable("mis-encoded: not UTF-8, and no other encoding makes sense of it")
    return _strictly(data, best.encoding)


def _strictly(data: bytes, encoding: str) -> tuple[str, str]:
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"mis-encoded: it begins as {encoding} and breaks off at byte {error.start:,}"
        ) from error


def _plain(data: bytes, path: Path) -> Source:
    text, encoding = decoded(data)
    blocks = tuple(_paragraphs(text))
    return Source("text/plain", encoding, path.stem, blocks)


def _paragraphs(text: str) -> Iterator[Block]:
    """Paragraphs are set apart by empty lines; a numbered line of its own is a heading."""
    for paragraph in re.split(r"\n\s*\n", _checked(text)):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip()]
        # A heading may be underlined.
        if len(lines) == 2 and re.fullmatch(r"[-=~*^]{3,}", lines[1]):
            yield Block(lines[0], 1 if lines[1][0] == "=" else 2)
            continue
        if len(lines) == 1 and (level := numbered_level(lines[0])):
            yield Block(lines[0], level)
            continue
        if lines and not all(_DOTS_OF_CONTENTS.search(line) for line in lines):
            yield Block(_unwrapped(lines))


def numbered_level(line: str) -> int:
    """The level of a heading with a number: ``2.1. Getting it`` is 2, a chapter 1; 0 of no heading.

    A line with a single number may be an item of a list, and is none.
    """
    if len(line) > 120 or _DOTS_OF_CONTENTS.search(line) or line.rstrip()[-1:] in ".。,，;；:：":
        return 0
    if _CHAPTER.match(line):
        return 1
    found = _NUMBERED_HEADING.match(line)
    return found[1].count(".") + 1 if found else 0


def _unwrapped(lines: list[str]) -> str:
    """Lines as one; between two Chinese characters without a space."""
    text = ""
    for line in lines:
        joint = text[-1:] + line[:1]
        chinese = len(joint) == 2 and all(ord(character) > 0x2E7F for character in joint)
        text += line if not text or chinese else " " + line
    return text


def _markdown(data: bytes, path: Path) -> Source:
    text, encoding = decoded(data)
    blocks: list[Block] = []
    lines: list[str] = []
    fence = ""

    def close() -> None:
        if lines:
            blocks.append(Block(_unwrapped(lines)))
            lines.clear()

    body = re.sub(r"\A---\n.*?\n---\n", "", _checked(text), flags=re.DOTALL)
    for line in body.splitlines():
        stripped = line.strip()
        if fence or stripped.startswith(("```", "~~~")):
            fence = "" if fence and stripped.startswith(fence) else fence or stripped[:3]
            continue
        if found := _HEADING_OF_MARKDOWN.match(stripped):
            close()
            blocks.append(Block(_unmarked(found[2]), len(found[1])))
        elif re.fullmatch(r"=+|-{3,}", stripped) and len(lines) == 1:
            blocks.append(Block(lines.pop(), 1 if stripped[0] == "=" else 2))
        elif not stripped or re.match(r"([-*+]|\d+[.)])\s", stripped):
            close()
            if stripped:
                lines.append(_unmarked(re.sub(r"^([-*+]|\d+[.)])\s+", "", stripped)))
        elif not re.fullmatch(r"[-*_ |:]{3,}", stripped):
            lines.append(_unmarked(stripped.strip("|>").strip()))
    close()
    title = next((block.text for block in blocks if block.level), path.stem)
    return Source("text/markdown", encoding, title, tuple(blocks))


def _unmarked(text: str) -> str:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"(\*\*|__|\*|`)(\S.*?\S|\S)\1", r"\2", text)


def _html(data: bytes, path: Path) -> Source:
    from selectolax.lexbor import LexborHTMLParser

    declared = _META_CHARSET.search(data[:4096])
    text, encoding = decoded(data, declared[1].decode() if declared else None)
    tree = LexborHTMLParser(_checked(text))
    root = tree.body
    blocks = tuple(_blocks_of(root)) if root is not None else ()
    named = tree.css_first("title")
    title = tidy(named.text()) if named is not None else ""
    return Source("text/html", encoding, title or path.stem, blocks)


def _blocks_of(root: Any) -> Iterator[Block]:
    """Blocks in the order in which they are read; what stands in a block's own line is one text."""
    waiting: list[str] = []
    # Without recursion: a page may be nested ten thousand deep.
    stack: list[tuple[Any, str]] = [(root, "open")]
    while stack:
        node, way = stack.pop()
        tag = node.tag
        if way == "open":
            if tag == "-text":
                waiting.append(node.text(deep=True))
                continue
            if tag == "br":
                waiting.append("\n")
                continue
            if tag in _SKIPPED_TAGS or tag.startswith("-"):
                continue
        if tag in _BLOCK_TAGS:
            text = tidy("".join(waiting))
            waiting.clear()
            if text:
                heading = way == "close" and len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()
                yield Block(text, int(tag[1]) if heading else 0)
        if way == "open":
            stack.append((node, "close"))
            stack.extend((child, "open") for child in reversed(list(node.iter(include_text=True))))


# -- packed kinds


def _pdf(data: bytes, path: Path) -> Source:
    from pypdf import PdfReader

    # What it remarks about a file is not for our logs: the text is there, or it is not.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: it needs a password")
        pages = len(reader.pages)
        if pages > MAX_PAGES:
            raise Unreadable(f"too large: {pages:,} pages, at most {MAX_PAGES:,} are read")
        text = "\n".join(page.extract_text() for page in reader.pages)
        title = tidy(str((reader.metadata.title if reader.metadata else None) or ""))
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        # A broken file makes pypdf raise whatever the broken part leads it to.
        raise Unreadable(f"broken: {_said(error)}") from error
    return Source("application/pdf", None, title or path.stem, tuple(_lines_of_pdf(text)))


def _lines_of_pdf(text: str) -> Iterator[Block]:
    """A page has lines and no paragraphs: a numbered line is a heading, the others are joined."""
    lines: list[str] = []
    for line in map(str.strip, _checked(text).splitlines()):
        level = numbered_level(line)
        if level or not line:
            if lines:
                yield Block(_unwrapped(lines))
            lines = []
            if level:
                yield Block(line, level)
        elif not _DOTS_OF_CONTENTS.search(line) and not line.isdigit():
            lines.append(line)
    if lines:
        yield Block(_unwrapped(lines))


def _docx(data: bytes, path: Path) -> Source:
    from docx import Document
    from docx.table import Table

    if data.startswith(_OLE):
        raise Unreadable("encrypted, or of the old kind .doc")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                raise Unreadable(f"too large: it unpacks to more than {MAX_BYTES:,} bytes")
        document = Document(io.BytesIO(data))
        blocks: list[Block] = []
        for part in document.iter_inner_content():
            if isinstance(part, Table):
                rows = (" ".join(cell.text for cell in row.cells) for row in part.rows)
                blocks.extend(Block(row) for row in rows)
                continue
            style = (part.style.name or "") if part.style is not None else ""
            number = re.fullmatch(r"(?:Heading|标题|標題) ?(\d)", style)
            level = int(number[1]) if number else 1 if style == "Title" else 0
            blocks.append(Block(part.text, min(level, 6)))
        title = tidy(document.core_properties.title or "")
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(f"broken: {_said(error)}") from error
    _checked("".join(block.text for block in blocks))
    return Source(
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        None,
        title or path.stem,
        tuple(blocks),
    )


def _unpacked(data: bytes, max_bytes: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            found = packed.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Unreadable(f"broken: {_said(error)}") from error
    if len(found) > max_bytes:
        raise Unreadable(f"too large: it unpacks to more than {max_bytes:,} bytes")
    if not found:
        raise Unreadable("empty: it unpacks to 0 bytes")
    return found


def _checked(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise Unreadable(f"too large: {len(text):,} characters, at most {MAX_CHARACTERS:,}")
    return text.replace("\x00", "")


def _said(error: BaseException) -> str:
    text = tidy(str(error))[:160]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    """End reading after ``seconds``, where a signal can: on a main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(0)[0]:
        yield
        return

    def stop(_signum: int, _frame: Any) -> None:
        raise Unreadable(f"reading it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
_READERS: dict[str, Callable[[bytes, Path], Source]] = {
    "text": _plain,
    "markdown": _markdown,
    "html": _html,
    "pdf": _pdf,
    "docx": _docx,
}
