"""The page of a run: `RUN/report.html`, one file that holds all it shows and asks no network.

It reads the run's results and its studies, and knows no model. What it shows was measured on
validation words, and it says so: `milpa compare` alone reads test words.

Every text is data. jinja escapes it in the page, `plots.label` in figures; figures stand as JSON
in which no `<` is left; answers are never made HTML in the browser. Behind that stands a policy in
the page's head: scripts run by their digests only, and nothing is fetched. The page names users
and may quote them, so it is as private as the run (mode 0600).

Figures are drawn when they come into sight, and the numbers of users in tables and of users drawn
in full are bounded, so that a run of a hundred thousand still opens.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import plotly.offline
from markupsafe import Markup

from cluster import facts, overview, plots, wording
from cluster.courses import Course, courses
from cluster.folder import RunFolder
from cluster.overview import Row
from cluster.private import write_private
from cluster.results import Gain, Results, UserResult, load

FILE_NAME = "report.html"
DRAWN_USERS = 200  # with plots and answers of their own
TABLED_USERS = 2000  # rows of the tables
HEATED_USERS = 1000  # rows of the heat map
GAIN_USERS = 60  # rows and columns of the matrix that is drawn
LISTED_USERS = 1000  # of those left out

_TEMPLATES = Path(__file__).parent / "templates"
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)


def write(run: Path, examples: bool = True) -> Path:
    """Writes RUN/report.html and returns its path.

    Args:
        run: the folder of a finished search.
        examples: whether users' texts stand in the page.

    Raises:
        FileNotFoundError: no results here.
        ValueError: damaged results or studies.
    """
    results = load(run)
    searched = courses(RunFolder(run).storage(), results.users[:DRAWN_USERS])
    path = run / FILE_NAME
    write_private(path, page(results, searched, examples))
    return path


def page(results: Results, searched: Mapping[str, Course], examples: bool = True) -> str:
    """The whole page.

    Args:
        results: the run.
        searched: courses by digest; a user without one is told to have no study.
        examples: whether users' texts stand in the page.
    """
    kept = [user if examples else user.without_quotes() for user in results.users]
    rows = [
        Row(user, place < DRAWN_USERS, searched.get(user.digest)) for place, user in enumerate(kept)
    ]
    context = {
        "results": results,
        "rows": rows,
        "mean": overview.means(rows),
        "facts": facts.shares([(user.anchor, user.winner) for user in results.users]),
        "cards": overview.cards(results, rows),
        "settings": overview.settings(results),
        "gain": overview.personal_gain(results, GAIN_USERS),
        "figures": _figures(results, rows),
        "examples": examples,
        "limits": {
            "drawn": DRAWN_USERS,
            "tabled": TABLED_USERS,
            "heated": HEATED_USERS,
            "listed": LISTED_USERS,
        },
    }
    return rendered("report.html.j2", context)


def rendered(template: str, context: Mapping[str, object]) -> str:
    """A page that holds all it shows: texts escaped, its own scripts alone run.

    Args:
        template: its name; `figures` of the context are drawn by id.
        context: what the template shows.
    """
    scripts = {"plotly": plotly.offline.get_plotlyjs(), "js": _file("report.js")}
    own = {
        "policy": _POLICY.format(scripts=" ".join(map(_digest, scripts.values()))),
        "css": Markup(_file("report.css")),
        **{name: Markup(text) for name, text in scripts.items()},
    }
    page = _template(template).render({**context, **own})
    # A lone surrogate in somebody's text has no bytes in UTF-8.
    return page.encode("utf-8", "replace").decode("utf-8")


def _figures(results: Results, rows: Sequence[Row]) -> dict[str, plots.Figure]:
    """Every figure of the page by the id it is drawn from."""
    winners = [row.user.configuration for row in rows]
    names = [row.user.user_id for row in rows]
    layer_count = results.base.layer_count
    figures: dict[str, plots.Figure] = {}
    if rows:
        heated = slice(HEATED_USERS)
        figures["figure-layers"] = plots.layers(names[heated], winners[heated], layer_count)
        figures["figure-layer-counts"] = plots.layer_counts(winners, layer_count)
        figures["figure-layer-ranks"] = plots.layer_ranks(winners, layer_count)
    if results.gain is not None:
        figures["figure-gain"] = _gain_figure(results.gain, results)
    for row in rows:
        if row.course is not None:
            figures.update(_course_figures(row.user.digest, row.course))
    return figures


def _course_figures(digest: str, course: Course) -> dict[str, plots.Figure]:
    figures = {f"front-{digest}": plots.front(course)}
    if course.hypervolume is not None:
        figures[f"hypervolume-{digest}"] = plots.hypervolume(course.hypervolume)
    return figures


def _gain_figure(gain: Gain, results: Results) -> plots.Figure:
    users = {user.digest: user for user in results.users}
    shown = [users[digest] for digest in gain.users[:GAIN_USERS]]
    change = [
        [_against_base(gain.loss[user.digest].get(owner.digest), user) for user in shown]
        for owner in shown
    ]
    return plots.personal_gain([user.user_id for user in shown], change)


def _against_base(loss: float | None, user: UserResult) -> float | None:
    return None if loss is None else loss - user.anchor.loss_nats


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = ("loss", "percent", "change", "verdict", "count", "short", "describe", "token")
    environment.filters.update({each: getattr(wording, each) for each in filters})
    return environment.get_template(name)


def _file(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The source by which a Content-Security-Policy lets one inline script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
