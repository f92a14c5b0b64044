"""A page of sections that needs no other file."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from search.pictures.blocks import Section
from search.run_folder.files import replace
from search.text import readable


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs no other file."""
    template = Path(__file__).with_name("page.html.j2").read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = readable
    environment.tests["number"] = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    page = environment.from_string(template).render(title=title, sections=sections)
    replace(path, lambda file: file.write_text(page))
