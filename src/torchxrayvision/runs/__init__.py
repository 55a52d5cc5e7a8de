"""Runs that survive a stop: journal, list, folder and tables, for every command that has them."""

from torchxrayvision.runs.folder import (
    Record,
    RunFolder,
    Shard,
    Summary,
    carry_out,
    describe_inputs,
    fingerprint,
    parse_shard,
    read_lines,
    read_manifest,
    run_to_table,
    unpack,
    write_manifest,
)
from torchxrayvision.runs.journal import Batch, Journal, replay, writing
from torchxrayvision.runs.tables import CsvTable, Table, check_format, open_table

__all__ = [
    "Batch",
    "CsvTable",
    "Journal",
    "Record",
    "RunFolder",
    "Shard",
    "Summary",
    "Table",
    "carry_out",
    "check_format",
    "describe_inputs",
    "fingerprint",
    "open_table",
    "parse_shard",
    "read_lines",
    "read_manifest",
    "replay",
    "run_to_table",
    "unpack",
    "write_manifest",
    "writing",
]
