"""Record batches: the form in which records travel, are replicated and are stored (Kafka's RecordBatch, magic 2).

This is the front door. The rooms behind it: `header` (the fixed 61 bytes), `checks` (is it valid?), `records`
(what is inside: walking, runs), `builder` (making them).
"""

from __future__ import annotations

from plait.wire.builder import BatchBuilder, encode_batch
from plait.wire.checks import (
    BATCH_RECORDS_MAX,
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    BatchLimits,
    Limits,
    check_records,
    check_sizes,
    validate,
)
from plait.wire.header import (
    CODECS,
    HEADER_BYTES,
    BatchHeader,
    assign,
    assigned,
    checksum,
    read_header,
    split,
)
from plait.wire.records import (
    OPEN_BYTES_MAX,
    Record,
    RecordRun,
    iterate,
    iterate_run,
    open_body,
    positions,
    records_of,
    run_of,
)

__all__ = [
    "BATCH_RECORDS_MAX",
    "CODECS",
    "HEADER_BYTES",
    "MAX_BATCH_BYTES",
    "MAX_RECORD_BYTES",
    "OPEN_BYTES_MAX",
    "BatchBuilder",
    "BatchHeader",
    "BatchLimits",
    "Limits",
    "Record",
    "RecordRun",
    "assign",
    "assigned",
    "check_records",
    "check_sizes",
    "checksum",
    "encode_batch",
    "iterate",
    "iterate_run",
    "open_body",
    "positions",
    "read_header",
    "records_of",
    "run_of",
    "split",
    "validate",
]
