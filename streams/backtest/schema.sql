-- Results of `dpme backtest`, beside the tables of the streams (streams/sink/schema.sql): a run is named by its inputs.

CREATE TABLE IF NOT EXISTS dpme.backtest_models
(
    run_id String,
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
