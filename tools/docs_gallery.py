"""The gallery of the site: a card per notebook, with a picture that the notebook drew.

In the repository docs/gallery/index.md is a table. For the site it becomes cards, whose pictures
are taken from the executed notebooks: the first one, or that of the cell with the tag `thumbnail`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.util import logging

logger = logging.getLogger(__name__)
INDEX = "gallery/index"
ROW = re.compile(r"^\| (?:\*\*(.+?)\*\* )?\| \[(.+?)\]\((.+?)\.md\) \| (.+?) \|$", re.MULTILINE)
TABLE = re.compile(r"^\| .*\n(?:\|.*\n)+", re.MULTILINE)
PLACE = re.compile(r'src="thumbnail:([\w-]+)"')
SIZE = (480, 300)  # pixels; a card is about 300 wide
_SHEET = 2.4  # what is wider is a row of images, of which the first ones are enough


def cards(text):
    """The page with its table as one grid of cards per group."""
    parts = []
    for group, title, name, learned in ROW.findall(text):
        if group:
            parts += ["::::", ""] if parts else []
            parts += [f"## {group}", "", "::::{grid} 1 2 2 3", ":gutter: 3", ""]
        parts += [
            f":::{{grid-item-card}} {title}", f":link: {name}", ":link-type: doc", "",
            "```{raw} html",
            f'<img class="xrv-thumbnail" src="thumbnail:{name}" alt="" loading="lazy">',
            "```", "", f"{learned[0].upper()}{learned[1:]}.", ":::", "",
        ]  # fmt: skip
    made = "\n".join([*parts, "::::", ""])
    return TABLE.sub(lambda _: made, text, count=1)


def picture_of(app, docname):
    """The file of the picture that stands for a notebook, or None if it drew none."""
    doctree = app.env.get_doctree(docname)
    images = list(doctree.findall(nodes.image))
    tagged = [
        image
        for cell in doctree.findall(nodes.container)
        if "tag_thumbnail" in cell["classes"]
        for image in cell.findall(nodes.image)
    ]
    for image in [*tagged, *images]:
        path = Path(app.srcdir, image["candidates"].get("*", image["uri"]).lstrip("/"))
        if path.is_file():
            return path
    return None


def save(path, target):
    """A small copy; of a wide sheet its beginning, of a drawing the drawing."""
    if path.suffix == ".svg":
        shutil.copyfile(path, target)
        return
    image = Image.open(path).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image)
    width = page.width
    if width > _SHEET * page.height:
        width = round(page.height * SIZE[0] / SIZE[1])
    small = page.crop((0, 0, width, page.height)).convert("RGB")
    small.thumbnail(SIZE, Image.Resampling.LANCZOS)
    small.save(target, quality=85)


def make_thumbnails(app, env):
    """After all pages are read: the pictures. The page of cards is written again to show them."""
    if app.builder.format != "html" or INDEX not in env.found_docs:
        return []
    folder = Path(app.outdir, "_images")
    folder.mkdir(parents=True, exist_ok=True)
    app.xrv_thumbnails = {}
    for docname in sorted(env.found_docs):
        if not docname.startswith("gallery/") or docname == INDEX:
            continue
        path = picture_of(app, docname)
        if path is None:
            logger.warning("%s draws no picture for its card in the gallery", docname)
            continue
        name = docname.removeprefix("gallery/")
        target = folder / f"gallery-{name}{'.svg' if path.suffix == '.svg' else '.jpg'}"
        save(path, target)
        app.xrv_thumbnails[name] = target.name
    return [INDEX]


def put_thumbnails(app, doctree, docname):
    """Name the files in the page of cards."""
    if docname != INDEX or not getattr(app, "xrv_thumbnails", None):
        return
    for node in list(doctree.findall(nodes.raw)):
        text = PLACE.sub(
            lambda found: f'src="../_images/{app.xrv_thumbnails.get(found[1], "")}"', node.astext()
        )
        node.replace_self(nodes.raw("", text, format="html"))


def setup(app):
    app.connect("env-updated", make_thumbnails)
    app.connect("doctree-resolved", put_thumbnails)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
