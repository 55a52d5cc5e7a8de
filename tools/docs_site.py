"""The Sphinx extension behind docs/conf.py: it makes pages, turns links, and finds names.

The pages of docs/ are written so that they read well in the repository: they link to each other and
to files beside docs/. For the site those links are turned, the long pages of datasets and weights
become lists with a page for each entry, and the reference is made of what the packages export.
What is made lies in docs/api, docs/cards and docs/project, which git ignores.
"""

from __future__ import annotations

import html
import re
import typing
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

import docs_api
import docs_cards
import docs_gallery
from build_docs import findings
from docs_markdown import anchor

logger = logging.getLogger(__name__)
DOCS = Path(__file__).parents[1] / "docs"
ROOT = DOCS.parent
# Pages of the repository that are pages of the site too.
PROJECT = {
    "CHANGELOG.md": "project/changes",
    "CODE_OF_CONDUCT.md": "project/conduct",
    "CONTRIBUTING.md": "project/contributing",
    "GOVERNANCE.md": "project/governance",
    "SECURITY.md": "project/security",
    "SUPPORT.md": "project/support",
    "THIRD_PARTY.md": "project/third-party",
    "benchmarks/RESULTS.md": "project/measured",
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```\n(?=(?:xrv|pip|make|python|\.venv|torchrun) )", re.MULTILINE)


# ---------------------------------------------------------------------------------- made pages


def write(folder, pages):
    """Write what changed, remove what is made no more: builds stay incremental."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in folder.iterdir():
        if path.is_file() and path.name not in pages:
            path.unlink()


def make_pages(app, config):
    """Before anything is read: the reference, the cards, the pages of the repository."""
    if config.xrv_parts != "no-api":
        write(DOCS / "api", {**docs_api.pages(), "index.md": api_index()})
    for kind in ("datasets", "weights"):
        text = (DOCS / f"{kind}.md").read_text("utf-8")
        write(DOCS / "cards" / kind, docs_cards.cards(text, kind))
    project = {}
    for name, docname in PROJECT.items():
        source = ROOT / name
        if source.is_file():
            text = from_root(source.read_text("utf-8"), source.parent)
            if name == "benchmarks/RESULTS.md":  # its scripts write headings of levels 1 and 3
                text = re.sub(r"^###", "##", text, flags=re.MULTILINE)
            project[f"{docname.partition('/')[2]}.md"] = text
    project["examples.md"] = examples_page()
    write(DOCS / "project", project)


def api_index():
    rows = "\n".join(
        f"| [`{name.removeprefix('torchxrayvision.')}`]({name}.rst) | {' '.join(text.split())} |"
        for name, text in docs_api.modules_with_summaries()
    )
    entries = "\n".join(name for name, _ in docs_api.modules_with_summaries())
    return (
        "# API reference\n\nAfter this page you can look up every public name: what it takes, with "
        "shapes and units, what it gives, what it raises, and an example that runs.\n\n"
        "`import torchxrayvision as xrv` takes milliseconds; each of these loads when it is first "
        "used.\n\n| module | |\n| --- | --- |\n"
        f"{rows}\n\n:::{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{entries}\n:::\n"
    )


def examples_page():
    parts = [
        "# Examples\n\nAfter this page you can copy a complete short program for each of the usual "
        "jobs. They lie in `examples/` of the repository, use only the public interface, and the "
        "tests run them.\n"
    ]
    parts += [
        f"## {path.stem}\n\n```python\n{path.read_text('utf-8').strip()}\n```\n"
        for path in sorted((ROOT / "examples").glob("*.py"))
    ]
    return "\n".join(parts)


def from_root(text, folder):
    """A page of the repository as one of docs/project: its links start one folder deeper."""

    def turned(match):
        before, target, after = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, mark, fragment = target.partition("#")
        whole = (folder / path).resolve().relative_to(ROOT.resolve()).as_posix()
        return f"{before}{link_to(whole, fragment, mark)}{after}"

    return outside_fences(text, lambda part: LINK.sub(turned, part))


# ----------------------------------------------------------------------------------- turning


def link_to(whole, fragment, mark):
    """A path from the root of the repository as a link of the site, absolute in docs/."""
    if whole in PROJECT:
        return f"/{PROJECT[whole]}.md{mark}{fragment}"
    if whole == "examples" or whole.startswith("examples/"):
        name = Path(whole).stem
        return "/project/examples.md" + (f"#{name}" if name != "examples" else "")
    if whole == "README.md":
        return "/index.md"
    if whole.startswith("docs/"):
        return docs_link(whole.removeprefix("docs/"), fragment, mark)
    return f"/../{whole}"


def docs_link(page, fragment, mark):
    kind = page.removesuffix(".md")
    if kind in ("datasets", "weights") and fragment:
        return f"/cards/{kind}/{fragment}.md"
    return f"/{page}{mark}{fragment}"


def outside_fences(text, turn):
    """Change what stands outside blocks of code."""
    kept = FENCED.findall(text)
    parts = FENCED.split(text)
    turned = [turn(part) for part in parts]
    return "".join(a + b for a, b in zip(turned, [*kept, ""], strict=True))


def turn_page(app, docname, source):
    """As a page is read: its links, its shell blocks, and the lists that can be filtered."""
    text = source[0]
    if docname.startswith(("api/", "project/")):
        source[0] = SHELL.sub("```sh\n", text)
        return
    folder = (DOCS / docname).parent
    if docname.startswith("cards/"):
        folder = DOCS  # its text stood in docs/ before

    def turned(match):
        before, target, after = match.groups()
        if re.match(r"[a-z]+:", target) or target.startswith("/"):
            return match[0]
        path, mark, fragment = target.partition("#")
        if not path:
            listed = docname in ("datasets", "weights")
            kind = docname if listed else docname.split("/")[1:2]
            kind = kind if listed else "".join(kind) if docname.startswith("cards/") else ""
            return f"{before}/cards/{kind}/{fragment}.md{after}" if kind else match[0]
        whole = (folder / path).resolve().relative_to(ROOT.resolve()).as_posix()
        return f"{before}{link_to(whole, fragment, mark)}{after}"

    if docname == "user-guide":
        text = text.replace(
            "\ncovariate-shift\n", "\n".join(["\ncovariate-shift", *unlisted(), ""])
        )
    if docname == docs_gallery.INDEX:
        text = docs_gallery.cards(text)
    if docname in ("datasets", "weights"):
        text = list_page(docname, docs_cards.sections(text))
    source[0] = SHELL.sub("```sh\n", outside_fences(text, lambda part: LINK.sub(turned, part)))


def unlisted():
    """Pages that no list of the sections names: they come last in the user guide."""
    sections = [DOCS / "index.md", DOCS / "user-guide.md", *sorted(DOCS.glob("section-*.md"))]
    named = {line for path in sections for line in path.read_text("utf-8").splitlines()}
    return sorted({path.stem for path in DOCS.glob("*.md")} - named - {"index"})


def list_page(kind, parts):
    """The long page of the repository as an introduction, a list with filters, and its cards."""
    intro = re.sub(r"^\|.*\n?", "", parts[""], flags=re.MULTILINE).strip()
    if kind == "datasets":
        header = ["class", "release", "findings", "masks", "licence", "access"]
        rows = docs_cards.dataset_rows(findings)
    else:
        header = [
            "name",
            "for",
            "network",
            "pixels",
            "outputs",
            "trained on",
            "mean AUROC",
            "licence",
        ]
        rows = docs_cards.weights_rows()
    entries = "\n".join(f"cards/{kind}/{anchor(name)}" for name in parts if name)
    table = docs_cards.filterable(rows, header, kind)
    return (
        f"{intro}\n\n```{{raw}} html\n{table}\n```\n\n:::{{toctree}}\n:hidden:\n\n{entries}\n:::\n"
    )


# ------------------------------------------------------------------------------------- names


class Finder:
    """Where the page of a name is, however the name is written in a docstring or annotation."""

    def __init__(self):
        self.by_short = {}
        self.whole = set(docs_api.public_modules())
        for item in docs_api.public_names():
            self.whole.add(item.full)
            self.by_short.setdefault(item.name, []).append(item.full)

    def find(self, target, module=""):
        """The full public name, or None; a name of the page's own module is preferred."""
        target = target.strip("~.").removesuffix("()")
        target = re.sub(r"^xrv\.", "torchxrayvision.", target)
        for candidate in (target, f"torchxrayvision.{target}", f"{module}.{target}"):
            if candidate in self.whole:
                return candidate
        found = self.by_short.get(target.rpartition(".")[2], [])
        if "." in target and not target.startswith("torchxrayvision."):
            return None
        own = [name for name in found if name.rpartition(".")[0] == module]
        inside = [name for name in found if target.startswith(name.rpartition(".")[0])]
        chosen = own or inside or found
        return chosen[0] if len(chosen) == 1 or own or inside else None


def finder(app):
    if not hasattr(app, "xrv_finder"):
        app.xrv_finder = Finder()
    return app.xrv_finder


def link_names(app, doctree):
    """Say in full which name is meant, and link names in the prose such as `xrv.utils.infer`."""
    find = finder(app).find
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("refdomain") != "py":
            continue
        found = find(node["reftarget"], node.get("py:module") or "")
        if found:
            node["reftarget"] = found
            node.attributes.pop("refspecific", None)
        elif len(finder(app).by_short.get(node["reftarget"], [])) > 1:
            # Which of them is meant cannot be told: the text stays. Annotations offer two texts.
            plain = [c for c in node.children if not isinstance(c, addnodes.pending_xref_condition)]
            node.replace_self(plain or [nodes.Text(node["reftarget"])])
    if app.env.docname.startswith("api/"):
        return
    for node in list(doctree.findall(nodes.literal)):
        written = re.fullmatch(r"(?:xrv|torchxrayvision)\.([\w.]+)(?:\(.*\))?", node.astext())
        found = written and find(f"torchxrayvision.{written[1]}")
        linked = isinstance(node.parent, (nodes.reference, addnodes.pending_xref, nodes.title))
        if found and not linked:
            wrapped = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=found, refdoc=app.env.docname
            )
            node.replace_self(wrapped)
            wrapped += node


def resolve(app, env, node, contnode):
    """Link names that Sphinx alone does not find; leave those of other packages as code."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    found = finder(app).find(target, node.get("py:module") or "")
    if found:
        uri = app.builder.get_relative_uri(node["refdoc"], f"api/{found}")
        made = nodes.reference("", "", internal=True, refuri=uri, reftitle=found)
        made += contnode
        return made
    private = target.rpartition(".")[2].startswith("_")
    if target.startswith("torchxrayvision.") and node.get("reftype") == "obj" and not private:
        return None
    return contnode


def plain_bases(app, name, obj, options, bases):
    """Generic bases without their arguments, which may be names in quotation marks."""
    bases[:] = [typing.get_origin(base) or base for base in bases]


# --------------------------------------------------------------------------------- after it


def redirect(app, exception):
    """A small page for each old address, also those of the site of 1.5.7."""
    if exception or app.builder.name != "html":
        return
    for old, new in app.config.xrv_redirects.items():
        path = Path(app.outdir) / f"{old}.html"
        if path.exists() and 'http-equiv="refresh"' not in path.read_text("utf-8"):
            logger.warning("redirect %s: the page exists", old)
            continue
        depth = "../" * old.count("/")
        address = html.escape(f"{depth}{new}", quote=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Moved</title>'
            f'<link rel="canonical" href="{address}">'
            f'<meta http-equiv="refresh" content="0; url={address}">'
            f'<p>This page is now <a href="{address}">here</a>.</p></html>\n',
            "utf-8",
        )


def siblings(app, pagename, templatename, context, doctree):
    """For the sidebar of the reference: the names beside this one, without a tree of all."""
    if not pagename.startswith("api/") or pagename == "api/index":
        return
    full = pagename.removeprefix("api/")
    modules = set(docs_api.public_modules())
    module = full if full in modules else full.rpartition(".")[0]
    context["xrv_module"] = module.removeprefix("torchxrayvision.")
    context["xrv_module_page"] = f"api/{module}"
    context["xrv_siblings"] = [
        (name.rpartition(".")[2], f"api/{name}", name == full)
        for name in sorted(finder(app).whole)
        if name.rpartition(".")[0] == module
    ]


def setup(app):
    app.add_config_value("xrv_redirects", {}, "html", dict)
    app.add_config_value("xrv_parts", "", "env", str)
    app.connect("config-inited", make_pages)
    app.connect("source-read", turn_page, priority=400)
    app.connect("autodoc-process-bases", plain_bases)
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", siblings)
    app.connect("build-finished", redirect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
