"""The measured datasets: where their tables are, who else computes them, and which figures of an output must be right.

Not here: days and programs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A dataset, as `tally run --dataset` names it."""

    name: str
    suffix: str
    """Ends the names of its days and peers; empty for the default dataset."""
    tables: dict
    """The folder of each table below a day's root."""
    contestants: tuple
    """The contestants that compute it."""
    figures: tuple
    """The figures that all outputs must agree on."""


ALL = {
    "addon_aggregates": Dataset(
        "addon_aggregates",
        "",
        {"addons": "addons/v2", "main_summary": "main_summary/v3"},
        ("tally", "tally-512MiB", "duckdb", "polars", "decode"),
        ("rows", "n_clients", "n_custom_theme_clients", "sum_of_count"),
    ),
    "addon_aggregates_v2": Dataset(
        "addon_aggregates_v2",
        "-v2",
        {"main_summary": "main_summary/v4"},
        ("tally", "tally-512MiB", "duckdb", "decode"),
        (
            "rows",
            "n_clients",
            "n_self_installed_addons",
            "n_shield_addons",
            "n_foreign_installed_addons",
            "n_system_addons",
            "n_web_extensions",
        ),
    ),
}
DEFAULT = ALL["addon_aggregates"]
