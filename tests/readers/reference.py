"""The definition of addon_aggregates in DuckDB's SQL: the expected result of a day, independent of the code under test.

    reference.py DAY DATE OUTPUT

DAY holds `addons/v2` and `main_summary/v3`; OUTPUT is one Parquet file. Not here: speed (`tests/bench/peers` has a
statement that is written for it).
"""

import pathlib
import sys

import duckdb

# The columns that the job reads, with DuckDB's types.
ADDONS = {
    "client_id": "varchar",
    "addon_id": "varchar",
    "foreign_install": "boolean",
    "is_system": "boolean",
    "user_disabled": "boolean",
    "app_disabled": "boolean",
}
MAIN_SUMMARY = {
    "client_id": "varchar",
    "profile_creation_date": "bigint",
    "active_theme": "struct(addon_id varchar)",
    "active_addons": "struct(install_day integer)[]",
}
DEFAULT_THEME = "{972ce4c6-7e08-4474-a285-3208198ce6fd}"

# One step per rule. Grouping treats nulls as one value; equality in a join never matches them.
RIGHT = f"""
with passing as (
    select distinct client_id, foreign_install, addon_id
    from addons
    where is_system = false and user_disabled = false and app_disabled = false
),
groups as (
    select client_id, foreign_install, count(*) as "count"
    from passing group by client_id, foreign_install
),
types as (
    select client_id, sum(case when foreign_install is not distinct from true then 1 else -1 end)::bigint as user_type
    from groups group by client_id
),
signs as (
    select distinct client_id,
           case when active_theme.addon_id is null or active_theme.addon_id = '{DEFAULT_THEME}' then -1 else 1 end as sign
    from main_summary
),
themes as (
    select client_id, sum(sign)::bigint as has_custom_theme from signs group by client_id
),
elements as (
    select client_id, profile_creation_date, unnest(active_addons) as element from main_summary
),
days as (
    select client_id, profile_creation_date, min(element.install_day) as min_install_day
    from elements group by client_id, profile_creation_date
)
select groups.client_id, foreign_install, "count", user_type, profile_creation_date, min_install_day, has_custom_theme,
       (select count(*) from themes where has_custom_theme >= 0)::integer as n_custom_theme_clients,
       (select count(*) from themes)::integer as n_clients
from groups
join types on groups.client_id = types.client_id
left join days on groups.client_id = days.client_id
left join themes on groups.client_id = themes.client_id
"""


def files(table, date):
    """The data files of a day: no path component begins with a dot or an underscore, except `_x=value`."""
    def hidden(name):
        return name.startswith(".") or (name.startswith("_") and "=" not in name)

    day = pathlib.Path(table) / f"submission_date_s3={date}"
    found = [path for path in day.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found
                  if not any(map(hidden, path.relative_to(day).parts)) and not path.name.startswith("_"))


def view(database, name, columns, paths):
    """A view of a table's needed columns; null if no file has one."""
    table = f"read_parquet({paths!r}, union_by_name = true, hive_partitioning = false)"
    there = {row[0] for row in database.execute(f"describe select * from {table}").fetchall()}
    wanted = ", ".join(f"{column if column in there else 'null'}::{type} as {column}" for column, type in columns.items())
    database.execute(f"create or replace view {name} as select {wanted} from {table}")


def write(addons, main_summary, output):
    """Writes the expected result of these files."""
    database = duckdb.connect()
    view(database, "addons", ADDONS, addons)
    view(database, "main_summary", MAIN_SUMMARY, main_summary)
    database.execute(f"copy ({RIGHT}) to '{output}' (format parquet)")


def main():
    day, date, output = sys.argv[1:]
    write(files(f"{day}/addons/v2", date), files(f"{day}/main_summary/v3", date), output)


if __name__ == "__main__":
    main()
