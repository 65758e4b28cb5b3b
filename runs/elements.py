"""Pieces of a page, as HTML."""

import base64
import html
import os

from system.files import write_atomically


def write_html(path, title, body):
    """Write a page with the common style around its body."""
    with open(os.path.join(os.path.dirname(__file__), "style.css"), encoding="utf-8") as file:
        style = file.read()
    write_atomically(path, f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
""".encode())


def header(name, subtitle, tiles):
    """The page's title and its headline figures, a list of (label, value, note)."""
    drawn = "".join(f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(note)}</small></dd>"
                    "</div>" for label, value, note in tiles)
    return (f'<header><h1>{text(name)}</h1><p class="quiet">{text(subtitle)}</p>'
            + (f'<dl class="tiles">{drawn}</dl>' if tiles else "") + "</header>\n")


def section(title, lead, *blocks, layout="columns"):
    """A part of the page: what it says in a sentence, and the blocks that show it."""
    return (f'<section><h2>{text(title)}</h2><p class="lead">{text(lead)}</p>'
            f'<div class="{layout}">{"".join(blocks)}</div></section>\n')


def absent(title, why):
    """A part that is left out, and why."""
    return f'<section><h2>{text(title)}</h2><p class="quiet">{text(why)}</p></section>\n'


def figure(title, content, caption="", kind=""):
    """A drawing or a table with its title and what there is to know for reading it."""
    return (f'<figure class="{kind}"><h3>{text(title)}</h3>{content}'
            + (f"<figcaption>{text(caption)}</figcaption>" if caption else "") + "</figure>")


def table(names, rows, texts=()):
    """Rows of cells.

    Args:
        names: of the columns; none for a table without a head.
        rows: list of lists of HTML; a row's first cell is a text, the others are numbers …
        texts: … but for those in these columns.
    """
    def row(cells, tag):
        kinds = (' class="text"' if column in texts else "" for column in range(len(cells)))
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>"
                                for cell, kind in zip(cells, kinds)) + "</tr>"

    head = f"<thead>{row(list(map(text, names)), 'th')}</thead>" if names else ""
    return (f'<div class="scroll"><table>{head}<tbody>'
            + "".join(row(cells, "td") for cells in rows) + "</tbody></table></div>")


def image_tag(jpeg, alt, side=None):
    """An image from its JPEG bytes, of a side in pixels or as the style has it."""
    size = f' width="{side}" height="{side}"' if side else ""
    return (f'<img alt="{text(alt)}"{size} '
            f'src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">')


def text(value):
    """A value as text in HTML."""
    return html.escape(str(value))
