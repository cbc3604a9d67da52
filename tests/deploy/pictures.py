"""Makes the pictures of the documentation again, from a running job of a cluster with three workers, one of which is silent:

    TALLY_BIN_DIR=target/release target/test-venv/bin/python tests/deploy/pictures.py

`tests/run` creates the environment. CHROMIUM_BIN names the browser, if it is not `chromium`.

It writes deploy/docs/pictures: the web page of the job (light, dark and narrow) as PNG, and `tally top` as SVG. Look at them
before you commit them.

Not here: checks of the page and of `tally top` (`test_web_page`, `test_top`)."""

import html
import re
import signal

from browser import Browser
from chart import BIN, TOP
from processes import wait_for
from small_cluster import SmallCluster
from terminal import Terminal
from test_http_api import Api

FOLDER = TOP / "deploy/docs/pictures"
MAX_BYTES = 120_000
WORKERS, SLOTS, CLIENTS, FILES = 3, 2, 1_000_000, 800
# Finished map tasks when the last worker stops to answer.
DONE = 120
# Pictures of the page: the file, the scheme, the size, and the heading at the top.
PAGES = [("job-light.png", "light", 1000, 800, "stages-title"), ("job-dark.png", "dark", 1000, 800, "home"),
         ("job-narrow.png", "light", 400, 800, "stages-title")]
# Columns and rows of the terminal, and the size of a cell in the picture.
COLUMNS, ROWS = 118, 36
WIDTH, HEIGHT, MARGIN = 8, 17, 10
WORDS = re.compile(r"\S+(?: \S+)*")
FRONT, BACK = "#d4d4d4", "#1e1e1e"
COLOURS = {"default": FRONT, "black": "#000000", "red": "#f47067", "green": "#57ab5a", "brown": "#c69026", "blue": "#539bf5",
           "magenta": "#b083f0", "cyan": "#39c5cf", "white": "#d4d4d4"}


def colour(name, default):
    """A colour of the terminal for the picture."""
    if name == "default":
        return default
    return COLOURS.get(name.removeprefix("bright"), f"#{name}")


def style(cell):
    """The colours of a cell, and whether it is bold."""
    front, back = colour(cell.fg, FRONT), colour(cell.bg, BACK)
    return (back, front, cell.bold) if cell.reverse else (front, back, cell.bold)


def runs(cells):
    """Neighbours of one style: the first column, the style and the text."""
    found = []
    for at, cell in enumerate(cells):
        if found and found[-1][1] == style(cell):
            found[-1][2].append(cell.data)
        else:
            found.append((at, style(cell), [cell.data]))
    return [(at, how, "".join(text)) for at, how, text in found]


def drawing(terminal):
    """The screen of a terminal as SVG."""
    with terminal.lock:
        rows = [[terminal.screen.buffer[row][column] for column in range(COLUMNS)] for row in range(ROWS)]
    wide, high = COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
           f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13">',
           "<title>tally top</title>", f'<rect width="{wide}" height="{high}" rx="6" fill="{BACK}"/>']
    for row, cells in enumerate(rows):
        top = MARGIN + row * HEIGHT
        for at, (front, back, bold), text in runs(cells):
            left, size = MARGIN + at * WIDTH, len(text) * WIDTH
            if back != BACK:
                out.append(f'<rect x="{left}" y="{top}" width="{size}" height="{HEIGHT}" fill="{back}"/>')
            weight = ' font-weight="bold"' if bold else ""
            # Viewers treat several spaces in different ways.
            for part in WORDS.finditer(text):
                out.append(f'<text x="{left + part.start() * WIDTH}" y="{top + 13}" fill="{front}"{weight} '
                           f'textLength="{len(part[0]) * WIDTH}" lengthAdjust="spacingAndGlyphs">{html.escape(part[0])}</text>')
    return "\n".join([*out, "</svg>", ""])


def save(name, write):
    """Writes a picture, and checks its size."""
    file = FOLDER / name
    write(file)
    size = file.stat().st_size
    print(f"{file.relative_to(TOP)}: {size} bytes")
    assert size < MAX_BYTES, f"{name} has {size} bytes"


def running(cluster, api):
    """A job whose last worker does not answer, in the middle of its map stage."""
    job = cluster.submit("aggregates", "--shard-bytes=100B", day=cluster.many_files(FILES))

    def done(count):
        state = api.get(f"/jobs/{job}")
        assert state["state"] == "running", state["state"]
        return True if state["stages"] and state["stages"][0]["done"] >= count else None
    wait_for("finished tasks", lambda: done(DONE))
    cluster.processes[-1].send_signal(signal.SIGSTOP)
    wait_for("a silent worker", lambda: api.get(f"/jobs/{job}")["waiting_tasks"]["silent_workers"] or None)
    return job


def main():
    FOLDER.mkdir(exist_ok=True)
    with SmallCluster(workers=WORKERS, clients=CLIENTS, slots=SLOTS) as cluster, Browser() as browser:
        page = browser.page()
        with Terminal(BIN / "tally", "top", f"--coordinator={cluster.grpc}", columns=COLUMNS, rows=ROWS) as top:
            job = running(cluster, Api(cluster.http))
            top.wait(job)
            top.key("Enter")
            top.wait(f"Job {job}", "Running tasks", "worker silent for")
            save("top.svg", lambda file: file.write_text(drawing(top)))
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        page.open(f"http://{cluster.http}/#/jobs/{job}")
        for name, scheme, width, height, top in PAGES:
            page.size(width, height)
            page.scheme(scheme)
            page.wait_text("#running", "worker silent for")
            page.wait_text("#timeline", "running")
            page.js(f"document.getElementById('{top}').scrollIntoView()")
            save(name, page.screenshot)


if __name__ == "__main__":
    main()
