"""The formats that users' data comes in, read line by line.

A source is a file, a folder of files, or the name of a data set that the `datasets` library loads.
Formats go by their file names: `.jsonl` and `.jsonl.gz` (one interaction a line), `.parquet` (one a
row), and `.json` and `.json.gz` (nested dialogues, see `dialogues`).

A folder's files are read in the order of their names; others than these are left alone, and so are
`.json` files beside lines (they describe them). A folder of none of these goes to `datasets`. A
file `profiles.jsonl` beside the data holds profiles.

All but the nested format are streamed: memory doesn't grow with the data. What a field must hold is
not known here: see `lines`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models import dialogues
from models.lines import DataError, Records, as_object, shown, text

LINES = (".jsonl", ".jsonl.gz", ".parquet")
DIALOGUES = (".json", ".json.gz")
PROFILES = ("profiles.jsonl", "profiles.jsonl.gz")
_FIELDS = ("user_id", "time", "query", "response", "session", "fact", "choices", "held_out")
_REQUIRED = ("user_id", "time", "response")
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/data set
_ROWS = 1024  # read at once from a columnar format
LONGEST_LINE = 1 << 26  # bytes; a longer one is no interaction, but something that has no end
LARGEST_DOCUMENT = 1 << 31  # likewise, of a file that is one piece of JSON; unpacked


@dataclass(frozen=True)
class Source:
    """Where a data set lies: either files or something that `datasets` loads."""

    files: tuple[Path, ...] = ()
    data_set: str | None = None
    profiles: Path | None = None


def find(source: str | Path) -> Source:
    """The source's files.

    Raises:
        FileNotFoundError: nothing there, or nothing that can be read.
        DataError: a file of another format.
        OSError: a folder that can't be read.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        if not _readable([path]):
            raise DataError(
                f"{path}: expected a name that ends in {', '.join(LINES + DIALOGUES)}; convert "
                "the file to one of these"
            )
        return Source((path,), profiles=_profiles_in(path.parent))
    # A slip in a path should be told at once, and should not be asked of a server.
    if _NAME.fullmatch(str(source)) and not path.parent.exists() and not _readable([path]):
        return Source(data_set=str(source))
    raise FileNotFoundError(
        f"{source}: expected a file or folder of interactions, or a data set's OWNER/NAME, found "
        "nothing; check the path"
    )


def records(source: Source, counts: Counter[str], scratch: Path) -> Records:
    """What the source's lines hold, with their places, in file order.

    Args:
        source: as found.
        counts: gains `junk_turns`, turns of dialogues that lack a side and are left out.
        scratch: where `datasets` may put its copy of a local folder.

    Raises:
        DataError: content of another format than the name says, or damaged.
        OSError: unreadable.
    """
    if source.data_set is not None:
        yield from _data_set(source.data_set, scratch)
    number = 0
    for file in source.files:
        if file.name.lower().endswith(DIALOGUES):
            found = _dialogues(file)
            yield from dialogues.records(found, str(file), number, counts)
            number += len(found)
        else:
            yield from (_parquet if file.suffix.lower() == ".parquet" else json_lines)(file)


def profiles(source: Source) -> dict[str, str]:
    """Users' profiles; empty where there are none.

    Raises:
        DataError: a line lacks a field, or two speak of one user.
        OSError: unreadable.
    """
    found: dict[str, str] = {}
    for place, record in json_lines(source.profiles) if source.profiles else ():
        try:
            user_id, profile = (text(as_object(record), name) for name in ("user_id", "profile"))
            if user_id in found:
                raise DataError(f"expected one profile a user, got two of {shown(user_id)}")
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        found[user_id] = profile
    return found


def _folder(folder: Path) -> Source:
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
    files = _readable([entry for entry in entries if entry.is_file()])
    if not entries:
        raise FileNotFoundError(
            f"{folder}: expected files that end in {', '.join(LINES + DIALOGUES)}, found none"
        )
    data_set = None if files else str(folder)
    return Source(tuple(files), data_set, _profiles_in(folder))


def _readable(files: Sequence[Path]) -> list[Path]:
    """Those to read: lines, or else dialogues."""
    for endings in (LINES, DIALOGUES):
        found = [f for f in files if f.name.lower().endswith(endings) and f.name not in PROFILES]
        if found:
            return found
    return []


def _profiles_in(folder: Path) -> Path | None:
    return next((folder / name for name in PROFILES if (folder / name).is_file()), None)


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Names the file where its compression or encoding turns out to be damaged."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected gzipped text, got damaged data ({error}); copy the file again"
        ) from error
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: expected Parquet, got {shown(str(error))}; write the file again"
        ) from error


def json_lines(path: Path) -> Records:
    """Every line's JSON; empty lines are passed over."""
    with _opened(path) as stream, _undamaged(path):
        lines = iter(partial(stream.readline, LONGEST_LINE + 1), b"")
        for number, raw in enumerate(lines, 1):
            if len(raw) > LONGEST_LINE:
                raise DataError(
                    f"{path}:{number}: expected lines of at most {LONGEST_LINE} bytes, got a "
                    "longer one; write one object per line"
                )
            if raw.strip():
                yield f"{path}:{number}", _json(raw, f"{path}:{number}")


def _json(raw: bytes, place: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{place}: expected JSON in UTF-8, got {shown(raw)} ({shown(str(error))}); correct it"
        ) from None


def _parquet(path: Path) -> Records:
    with _undamaged(path), pq.ParquetFile(path) as file:
        columns = _columns(file.schema_arrow.names, str(path))
        batches = file.iter_batches(_ROWS, columns=columns)
        yield from _rows((pa.Table.from_batches([batch]) for batch in batches), str(path))


def _columns(found: Sequence[str], place: str) -> list[str]:
    """Those of a table that are fields of an interaction."""
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise DataError(
            f"{place}: expected columns {', '.join(_REQUIRED)}, got {shown(sorted(found))}; "
            f"add {', '.join(missing)}"
        )
    return [name for name in _FIELDS if name in found]


def _rows(tables: Iterator[Any], name: str) -> Records:
    row = 0
    for table in tables:
        for record in _without_nanoseconds(table).to_pylist():
            row += 1
            yield f"{name}: row {row}", record


def _without_nanoseconds(table: Any) -> Any:
    """Timestamps that Python's `datetime` can hold (pandas writes nanoseconds)."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            microseconds = pa.timestamp("us", field.type.tz)
            values = table.column(place).cast(microseconds, safe=False)
            table = table.set_column(place, field.name, values)
    return table


def _data_set(name: str, scratch: Path) -> Records:
    """Every split of a data set, one after another: Milpa splits in time by itself."""
    import datasets  # takes half a second to import, and most processes never need it

    # A local folder's text must leave no copy in the user's cache.
    cache = str(scratch) if Path(name).is_dir() else None
    try:
        splits = datasets.load_dataset(name, cache_dir=cache)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{name}: expected a file, a folder, or a data set that `datasets` loads, got "
            f"{shown(str(error))}; check the path or name"
        ) from error
    for split, data in splits.items():
        place = f"{name}[{split}]"
        data = data.select_columns(_columns(data.column_names, place)).with_format("arrow")
        yield from _rows(data.iter(_ROWS), place)


def document(path: Path) -> object:
    """What a file holds that is one piece of JSON, gzipped or not.

    Raises:
        DataError: damaged, too large, or no JSON.
        OSError: missing or unreadable.
    """
    with _opened(path) as stream, _undamaged(path):
        raw = stream.read(LARGEST_DOCUMENT + 1)
    if len(raw) > LARGEST_DOCUMENT:
        raise DataError(
            f"{path}: expected at most {LARGEST_DOCUMENT} bytes of JSON, got more; split the file"
        )
    return _json(raw, str(path))


def _dialogues(path: Path) -> list[object]:
    found = document(path)
    if not isinstance(found, list):
        raise DataError(
            f"{path}: expected a list of dialogues, got {shown(found)}; name JSON Lines .jsonl"
        )
    return found
