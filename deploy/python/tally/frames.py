"""Reports as data frames of pandas, which this package does not require otherwise.

Not here: the request for a report (`client`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import TallyError

if TYPE_CHECKING:
    import pandas


def check_pandas() -> None:
    """Raises a `TallyError` if pandas is not installed."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        hint = "install it (pip install pandas), or use report_json()"
        raise TallyError("a report as a data frame needs the package pandas, which is not installed", hint) from None


def report_frame(report: Mapping[str, Any]) -> pandas.DataFrame:
    """A report of the API as a data frame: one row per day, indexed by date.

    The column `state` says whether the day is published. Each figure is a column. Figures with a goal have two more columns:
    `FIGURE_change_percent`, and `FIGURE_goal_reached`, which is null if it is not known. What a day does not have is null. The
    frame's `attrs` have `dataset`, `output`, `baseline` (the date), and `figures`: what each figure is."""
    import pandas

    figures = report["figures"]
    columns: dict[str, list[Any]] = {"state": []}
    kinds = {}
    for figure in figures:
        name = figure["name"]
        columns[name] = []
        kinds[name] = "Int64" if figure["kind"] == "count" else "Float64"
        if figure["goal_percent"] is not None:
            columns |= {f"{name}_change_percent": [], f"{name}_goal_reached": []}
            kinds |= {f"{name}_change_percent": "Float64", f"{name}_goal_reached": "boolean"}
    for day in report["days"]:
        columns["state"].append(day["state"])
        for figure in figures:
            name = figure["name"]
            value = (day["figures"] or {}).get(name, {})
            columns[name].append(value.get("value"))
            if figure["goal_percent"] is not None:
                columns[f"{name}_change_percent"].append(value.get("change_percent"))
                columns[f"{name}_goal_reached"].append(value.get("goal_reached"))
    dates = pandas.to_datetime([day["date"] for day in report["days"]], format="%Y%m%d")
    frame = pandas.DataFrame(columns, index=pandas.Index(dates, name="date")).astype(kinds)
    frame.attrs = {
        "dataset": report["dataset"],
        "output": report["output"],
        "baseline": report["baseline"]["date"],
        "figures": {figure["name"]: dict(figure) for figure in figures},
    }
    return frame
