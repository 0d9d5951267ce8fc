-- Results of `dpme backtest`, beside the tables of the streams (streams/sink/schema.sql): a run is named by its inputs.
-- `books`: single assets, spread books or option books.

CREATE TABLE IF NOT EXISTS dpme.backtest_models
(
    run_id String,
    books LowCardinality(String) DEFAULT 'single assets',
    horizon_ms Int64,
    first_ms Int64,
    last_ms Int64,
    model LowCardinality(String),
    fissler_ziegel Float64,
    rate Float64,
    z2 Float64,
    kupiec_passed Int32,
    kupiec_tests Int32,
    p99_to_p1 Float64,
    rise_1_day Float64,
    rise_5_day Float64,
    mean_margin Float64,
    worst_month String,
    worst_month_rate Float64,
    month_scale Float64
)
ENGINE = MergeTree ORDER BY (run_id, model);

CREATE TABLE IF NOT EXISTS dpme.backtest_tails
(
    run_id String,
    books LowCardinality(String) DEFAULT 'single assets',
    asset LowCardinality(String),
    model LowCardinality(String),
    side LowCardinality(String),
    level Float64,
    observations Int64,
    rate Float64,
    kupiec_p Float64,
    independence_p Float64,
    conditional_p Float64,
    zone LowCardinality(String),
    z1 Float64,
    z2 Float64,
    fissler_ziegel Float64,
    mean_expected_shortfall Float64
)
ENGINE = MergeTree ORDER BY (run_id, asset, model, side, level);

-- Stores of the first version had single assets only.
ALTER TABLE dpme.backtest_models ADD COLUMN IF NOT EXISTS books LowCardinality(String) DEFAULT 'single assets';
ALTER TABLE dpme.backtest_tails ADD COLUMN IF NOT EXISTS books LowCardinality(String) DEFAULT 'single assets';

-- Capital of other models and rules at equal coverage, over the chosen model's.
CREATE TABLE IF NOT EXISTS dpme.backtest_capital
(
    run_id String,
    kind LowCardinality(String),
    rule LowCardinality(String),
    books Int32,
    observations Int64,
    exceeded Float64,
    as_asked Float64,
    factor Float64,
    ratio Float64,
    tuned_factor Float64,
    tuned_ratio Float64
)
ENGINE = MergeTree ORDER BY (run_id, kind, rule);
