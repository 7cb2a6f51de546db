"""A parser of HTML pages."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page(HTMLParser):
    """The elements of a page (name, attributes), and its text outside of style and script."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    styling: bool = False

    def __post_init__(self):
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.styling = tag in ("style", "script")

    def handle_endtag(self, tag):
        self.styling = False

    def handle_data(self, data):
        if not self.styling and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self):
        return "\n".join(self.texts)

    def names(self):
        return {name for name, _ in self.elements}
