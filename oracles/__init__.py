"""Market data: validation, volatility surfaces, scenario sets. Left of the logs; pure where it can be."""
