"""Random rows of both tables, as Arrow tables: nulls at every level, odd ids, extreme numbers, few and many distinct values,
long values, columns and fields that the job does not read.

Not here: files (`writers.py`)."""

import uuid

import pyarrow as pa

DEFAULT_THEME = "{972ce4c6-7e08-4474-a285-3208198ce6fd}"
ODD_IDS = ["", " ", "null", "not a uuid", "sixteen bytes ok", "клиент-Ωμέγα-客戶", "é" * 18, "x" * 300,
           "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "client-000123"]
DATES = [0, -1, 17_224, 16_000, 2**63 - 1, -2**63, 2**33, -2**33 - 1]
DAYS = [0, -1, 2**31 - 1, -2**31]
SIZES = [0, 1, 2, 9, 64, 300, 1500, 6000]


class Rows:
    """The distribution of a seed's rows."""

    def __init__(self, rng):
        self.rng = rng
        self.nulls = rng.choice([0, 0, 0.03, 0.3, 0.9])
        self.ids = [self.id() for _ in range(rng.choice([7, 60, 700, 3000]))]
        addons = rng.choice([1, 5, 60, 3000])
        prefix = rng.choice(["", "addon-", "jid1-" + "long" * rng.choice([5, 200])])
        self.addons = [f"{prefix}{at}@example.org" for at in range(addons)] + ["", DEFAULT_THEME]
        self.themes = [DEFAULT_THEME, DEFAULT_THEME, "theme@personas", "", DEFAULT_THEME.upper()]
        # Days and dates that are close together, or arbitrary.
        self.wild = rng.random() < 0.3

    def id(self):
        rng = self.rng
        if rng.random() < 0.2:
            return rng.choice(ODD_IDS)
        text = str(uuid.UUID(int=rng.getrandbits(128)))
        return text.upper() if rng.random() < 0.1 else text

    def some(self, value):
        return None if self.rng.random() < self.nulls else value

    def date(self):
        return self.rng.choice(DATES) if self.wild else self.rng.choice([17_224, 17_224, 16_999])

    def day(self):
        if self.wild and self.rng.random() < 0.2:
            return self.rng.choice(DAYS)
        return self.rng.randrange(15_000, 17_300)

    def client(self):
        return None if self.rng.random() < self.nulls / 10 else self.rng.choice(self.ids)

    def off(self):
        """A flag that excludes few rows."""
        value = self.rng.random() < 0.1
        return None if self.rng.random() < min(self.nulls, 0.1) else value

    def addon(self):
        return {
            "client_id": self.client(),
            "addon_id": self.some(self.rng.choice(self.addons)),
            "foreign_install": self.some(self.rng.random() < 0.4),
            "is_system": self.off(),
            "user_disabled": self.off(),
            "app_disabled": self.off(),
        }

    def ping(self):
        rng = self.rng
        elements = [self.some({"install_day": self.some(self.day()), "addon_id": self.some(rng.choice(self.addons))})
                    for _ in range(rng.choice([0, 1, 3, 30] if rng.random() < 0.1 else [0, 1, 2, 3]))]
        return {
            "client_id": self.client(),
            "profile_creation_date": self.some(self.date()),
            "active_theme": self.some({"addon_id": self.some(rng.choice(self.themes)), "name": self.some("a theme")}),
            "active_addons": self.some(elements),
        }

    def size(self):
        return self.rng.choice(SIZES)


ADDONS = {
    "client_id": pa.string(),
    "addon_id": pa.string(),
    "foreign_install": pa.bool_(),
    "is_system": pa.bool_(),
    "user_disabled": pa.bool_(),
    "app_disabled": pa.bool_(),
}
# The fields that the job reads; only some files have the others.
THEME = pa.struct([("addon_id", pa.string())])
ELEMENT = pa.struct([("install_day", pa.int32())])
MAIN_SUMMARY = {
    "client_id": pa.string(),
    "profile_creation_date": pa.int64(),
    "active_theme": THEME,
    "active_addons": pa.list_(ELEMENT),
}


def needed(name):
    """The columns of a table that the job reads, with their types."""
    return ADDONS if name == "addons" else MAIN_SUMMARY


def table(name, rows, rng=None):
    """An Arrow table of rows: with the needed columns only, or in a random order and with columns that the job does not read."""
    types = dict(needed(name))
    rows = [dict(row) for row in rows]
    if rng and rng.random() < 0.5:
        if name != "addons":
            theme = [("addon_id", pa.string()), ("name", pa.string())]
            element = [("install_day", pa.int32()), ("addon_id", pa.string())]
            rng.shuffle(theme)
            rng.shuffle(element)
            types["active_theme"], types["active_addons"] = pa.struct(theme), pa.list_(pa.struct(element))
        types["document_id"] = pa.string()
        types["extra"] = rng.choice([pa.int64(), pa.string(), pa.float64()])
        value = {pa.int64(): 7, pa.string(): "seven"}.get(types["extra"], 7.5)
        for at, row in enumerate(rows):
            row["document_id"], row["extra"] = f"document {at}", value if at % 3 else None
    names = list(types)
    if rng:
        rng.shuffle(names)
    made = pa.table({name: pa.array([row.get(name) for row in rows], types[name]) for name in names})
    if rng and rng.random() < 0.1:
        made = made.rename_columns([name.title() for name in names])
    return made
