"""Small readers of text columns that several datasets share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def days(dates: pd.Series[Any]) -> pd.Series[float]:
    """Days since 1970-01-01 of dates that are written YYYYMMDD.

    Args:
        dates: Numbers or text, blank where unknown.

    Returns:
        float64, NaN where there is no such date.

    Example:
        >>> import pandas as pd
        >>> days(pd.Series([19700102, "20140415", None, 20130230])).tolist()
        [1.0, 16175.0, nan, nan]
    """
    import pandas as pd

    numeric = pd.to_numeric(dates, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    known = (numeric >= 1_01_01) & (numeric <= 9999_12_31)
    whole = np.where(known, numeric, 1970_01_01).astype(np.int64)
    years, months, day = whole // 10_000, whole // 100 % 100, whole % 100
    first = (years - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (months - 1)
    counted = first.astype("datetime64[D]") + (day - 1)
    # 30 February would be counted as 2 March.
    known &= (months >= 1) & (months <= 12) & (counted.astype("datetime64[M]") == first) & (day > 0)
    result = np.where(known, counted.astype(np.int64), np.nan)
    return pd.Series(result, index=dates.index)


def extract(column: pd.Series[Any], pattern: str) -> pd.Series[str]:
    r"""The part of a text that a pattern's group ``value`` matches.

    Args:
        column: Text.
        pattern: Regular expression (RE2) with one group ``(?P<value>...)``.

    Returns:
        Text, missing where the pattern does not match.

    Example:
        >>> import pandas as pd
        >>> extract(pd.Series(["a/patient07/b", "c"]), r"patient(?P<value>\d+)").tolist()
        ['07', nan]
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute

    # pandas' own extract runs Python's engine over every row: seconds for 223,414 CheXpert paths.
    matched = pa.compute.extract_regex(pa.array(column, type=pa.large_string()), pattern=pattern)
    found = pa.compute.struct_field(matched, "value")
    return pd.Series(found.to_pandas().to_numpy(), index=column.index, dtype="str")


def plausible_age(years: pd.Series[Any], oldest: float = 120.0) -> pd.Series[Any]:
    """Ages in years as float64; those above what people reach are slips of the header, and NaN."""
    import pandas as pd

    numeric = pd.to_numeric(years, errors="coerce").astype(np.float64)
    return numeric.where(numeric <= oldest)
