"""Backtests of risk forecasts: statistics, books, and what a run says (infra/docs/backtest.md)."""
