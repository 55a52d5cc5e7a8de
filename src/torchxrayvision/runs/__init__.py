"""Runs that survive a stop: journal, list, folder and tables, for every command that has them."""

from torchxrayvision.runs.folder import (
    Record,
    RunFolder,
    Shard,
    Summary,
    carry_out,
    describe_inputs,
    fingerprint,
    in_batches,
    parse_shard,
    read_lines,
    read_manifest,
    run_to_table,
    unpack,
    write_manifest,
)
from torchxrayvision.runs.journal import Batch, Journal, replay, write_or_reason, writing
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
    "in_batches",
    "open_table",
    "parse_shard",
    "read_lines",
    "read_manifest",
    "replay",
    "run_to_table",
    "unpack",
    "write_manifest",
    "write_or_reason",
    "writing",
]
