-- The one definition of the store, for chDB (embedded) and for a ClickHouse server alike. Statements end with a semicolon.
--
-- Money is micro-USD in Int64 (`*_usd6`): scaled integers read as numpy arrays, decimals do not. Each table is written
-- from one topic; (log_partition, record_seq, log_offset) say from which record of it a row comes. The sink asks each
-- table for its greatest log_offset when it starts, so the tables are their own checkpoint: no table may lose rows by
-- a TTL that is not older than the newest record of every partition.
-- Nothing is ever deleted: rows of blocks that the chain has left stay, with the `epoch` (rollbacks before) of their time.
-- A row of blocks_done with rollback_from >= 0 is the mark of a rollback; one of an event table whose `retracts` names
-- an id takes that event back.
-- fsync: an acknowledged block of rows survives a power cut (6 ms a block), so no later block can outlive an earlier one.

CREATE DATABASE IF NOT EXISTS dpme;

-- Which log this store is a copy of: a store is never continued from another log.
CREATE TABLE IF NOT EXISTS dpme.identity
(
    epoch String,
    schema_version UInt32
)
ENGINE = MergeTree ORDER BY schema_version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Who may write, newest claim wins: a sink on a server claims the store before it asks where the tables stand
-- (streams/sink/clickhouse_store.py). chDB has a lock on its folder instead and leaves this empty.
CREATE TABLE IF NOT EXISTS dpme.writers
(
    number Int64,
    token String,
    claimed DateTime DEFAULT now()
)
ENGINE = MergeTree ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- margin.batches: every account's margin at every evaluated block. Account-major: 7.8 bytes a row, one account's life in ms.
CREATE TABLE IF NOT EXISTS dpme.margins
(
    account String CODEC(ZSTD(1)),
    block Int64 CODEC(Delta, ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16 CODEC(ZSTD(1)),
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    nlv_usd6 Int64 CODEC(Delta, ZSTD(1)),
    equity_usd6 Int64 CODEC(Delta, ZSTD(1)),
    initial_margin_usd6 Int64 CODEC(Delta, ZSTD(1)),
    maintenance_margin_usd6 Int64 CODEC(Delta, ZSTD(1)),
    expected_shortfall_usd6 Int64 CODEC(Delta, ZSTD(1)),
    stress_loss_usd6 Int64 CODEC(Delta, ZSTD(1)),
    short_option_minimum_usd6 Int64 CODEC(Delta, ZSTD(1)),
    add_ons_usd6 Int64 CODEC(Delta, ZSTD(1)),
    binding Enum8('expected_shortfall' = 0, 'stress' = 1, 'short_option_minimum' = 2) CODEC(ZSTD(1)),
    stress_row Int16 CODEC(ZSTD(1)),
    state Enum8('healthy' = 0, 'margin_call' = 1, 'liquidatable' = 2, 'insolvent' = 3) CODEC(ZSTD(1)),
    wide Bool CODEC(ZSTD(1)),
    keyframe_block Int64 CODEC(Delta, ZSTD(1)),
    epoch Int64 CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree ORDER BY (account, block)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- blocks.done: a partition has computed a block.
CREATE TABLE IF NOT EXISTS dpme.blocks_done
(
    block Int64 CODEC(Delta, ZSTD(1)),
    block_hash String CODEC(ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16,
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    accounts Int64,
    events Int64,
    evaluated Bool,
    first Int64,
    wide Int64,
    warnings Int64,
    calls Int64,
    states String,
    state_digest String,
    table_digest String,
    scenario_digest LowCardinality(String),
    parameter_version Int64,
    halted String,
    stages String,
    bound Int64,
    epoch Int64,
    rollback_from Int64
)
ENGINE = MergeTree ORDER BY (block, log_partition, record_seq)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- margin.calls: an account changed its state at a block. `positions` is a JSON array; a missing cure is 0 and 0.
CREATE TABLE IF NOT EXISTS dpme.margin_calls
(
    account String,
    block Int64 CODEC(Delta, ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16,
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    seq Int64 CODEC(Delta, ZSTD(1)),
    id String,
    from_state LowCardinality(String),
    to_state LowCardinality(String),
    nlv_usd6 Int64,
    equity_usd6 Int64,
    initial_margin_usd6 Int64,
    maintenance_margin_usd6 Int64,
    expected_shortfall_usd6 Int64,
    stress_loss_usd6 Int64,
    short_option_minimum_usd6 Int64,
    add_ons_usd6 Int64,
    binding LowCardinality(String),
    stress LowCardinality(String),
    cure_deposit_usd6 Int64,
    cure_close_fraction_e6 Int64,
    cash_usd6 Int64,
    positions String CODEC(ZSTD(1)),
    epoch Int64,
    confirmations Int64,
    retracts String
)
ENGINE = MergeTree ORDER BY (account, block, log_partition, seq)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- margin.warnings: between barriers an account crossed its line. `greeks` is a JSON array, one object an underlying.
CREATE TABLE IF NOT EXISTS dpme.margin_warnings
(
    account String,
    block Int64 CODEC(Delta, ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16,
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    seq Int64 CODEC(Delta, ZSTD(1)),
    id String,
    line LowCardinality(String),
    trigger String,
    estimate_usd6 Int64,
    nlv_usd6 Int64,
    equity_usd6 Int64,
    initial_margin_usd6 Int64,
    maintenance_margin_usd6 Int64,
    expected_shortfall_usd6 Int64,
    stress_loss_usd6 Int64,
    short_option_minimum_usd6 Int64,
    add_ons_usd6 Int64,
    binding LowCardinality(String),
    stress LowCardinality(String),
    greeks String CODEC(ZSTD(1)),
    epoch Int64,
    confirmations Int64,
    retracts String
)
ENGINE = MergeTree ORDER BY (account, block, log_partition, seq)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- liquidations: what enforcement does with a flagged account.
CREATE TABLE IF NOT EXISTS dpme.liquidations
(
    account String,
    block Int64 CODEC(Delta, ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16,
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    seq Int64 CODEC(Delta, ZSTD(1)),
    id String,
    state LowCardinality(String),
    shortfall_usd6 Int64,
    nlv_usd6 Int64,
    equity_usd6 Int64,
    initial_margin_usd6 Int64,
    maintenance_margin_usd6 Int64,
    expected_shortfall_usd6 Int64,
    stress_loss_usd6 Int64,
    short_option_minimum_usd6 Int64,
    add_ons_usd6 Int64,
    binding LowCardinality(String),
    stress LowCardinality(String),
    cash_usd6 Int64,
    positions String CODEC(ZSTD(1)),
    epoch Int64,
    confirmations Int64,
    retracts String
)
ENGINE = MergeTree ORDER BY (account, block, log_partition, seq)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- venue.stress: the venue as a whole where a scenario set or parameters took effect; a row a view of the resources
-- (equity, margin). `rows` is a JSON array, one object a stress row; the accounts are JSON arrays of names.
CREATE TABLE IF NOT EXISTS dpme.venue_stress
(
    block Int64 CODEC(Delta, ZSTD(1)),
    time_ms Int64 CODEC(Delta, ZSTD(1)),
    log_partition UInt16,
    record_seq Int64 CODEC(Delta, ZSTD(1)),
    log_offset Int64 CODEC(Delta, ZSTD(1)),
    partitions Int64,
    accounts Int64,
    scenarios Int64,
    scenario_digest LowCardinality(String),
    parameter_version Int64,
    confidence_e6 Int64,
    fund_usd6 Int64,
    fund_given Bool,
    unpriced_accounts String,
    resources LowCardinality(String),
    resources_usd6 Int64,
    uncovered_now_usd6 Int64,
    uncovered_mean_usd6 Int64,
    fund_quantile_usd6 Int64,
    fund_shortfall_usd6 Int64,
    exhausted_probability_e6 Int64,
    cover_1_usd6 Int64,
    cover_1_scenario String,
    cover_1_accounts String,
    cover_2_usd6 Int64,
    cover_2_scenario String,
    cover_2_accounts String,
    rows String CODEC(ZSTD(1)),
    epoch Int64
)
ENGINE = MergeTree ORDER BY (block, log_partition, record_seq, resources)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- quarantine: inputs that were not taken. Its records have no sequence: the origin of the input is the key.
CREATE TABLE IF NOT EXISTS dpme.quarantine
(
    source_topic LowCardinality(String),
    source_partition UInt16,
    source_offset Int64,
    source_index Int64,
    reason LowCardinality(String),
    field String,
    detail String,
    bytes_base64 String CODEC(ZSTD(1)),
    log_partition UInt16,
    log_offset Int64 CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree ORDER BY (source_topic, source_partition, source_offset, source_index)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
