"""An HTML page read strictly: every element closed in its place, every attribute kept."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "input", "img", "br", "link", "hr"}
SELF_CLOSED = {"line", "rect", "path", "circle"}


@dataclass
class Element:
    name: str
    attributes: dict
    text: str = ""
    children: list = field(default_factory=list)

    def all(self, name=None, **wanted):
        """Elements below with this name and these attributes, in order; ``class_`` means one of the classes."""
        for child in self.children:
            classes = child.attributes.get("class", "").split()
            fits = all(
                value in classes if key == "class_" else child.attributes.get(key.replace("_", "-")) == value
                for key, value in wanted.items()
            )
            if fits and name in (None, child.name):
                yield child
            yield from child.all(name, **wanted)

    def one(self, name=None, **wanted):
        (found,) = self.all(name, **wanted)
        return found

    def words(self):
        return self.text + "".join(child.words() for child in self.children)


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"<{tag}> repeats an attribute"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        assert tag in SELF_CLOSED, f"<{tag}/>"
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].text += data


def read_page(text):
    """The tree of a page; fails on anything left open or closed out of turn."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, [e.name for e in reader.open]
    return reader.open[0]
