"""mkdocs calls these: the README is the first page, and links that leave the site become plain paths.

The documents are read in the repository as well, where such links lead to files; on the site there is nothing to lead to.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """The README joins the documents."""
    text = (ROOT / "README.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository that are no pages are shown as their paths."""
    here = Path(page.file.src_uri).parent
    inside = page.file.src_uri != "index.md"

    def shown(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        if "://" in target or target.startswith("#"):
            return match[0]
        docs = ROOT / "docs"
        if ((docs / here / target).resolve()).is_relative_to(docs) and (docs / here / target).exists():
            return match[0]
        path = (docs / here / target).resolve() if inside else ROOT / target
        return f"{text} (`{path.relative_to(ROOT)}`)" if path.exists() else match[0]

    return _LINK.sub(shown, markdown)
